"""Opens the connection to a collector of traces, if its operator wants one."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from services.runtime.process import StartRefusedError
from services.traces.taker import SpanTaker
from shoal.redaction import redacted


class CollectorUrlError(ValueError):
    """An address is none of a collector; the message says how one is written."""


@dataclass(frozen=True, slots=True)
class TraceSender:
    """What sends spans.

    Attributes:
        cluster: id of the cluster.
        controller: name of the controller.
        version: of what runs.
    """

    cluster: str
    controller: str
    version: str


def check_collector_url(url: str) -> None:
    """Look that this is the address of a collector.

    Raises:
        CollectorUrlError: it is not.
    """
    try:
        parts = urlsplit(url)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and bool(parts.port)
        fits = fits and not (parts.username or parts.query or parts.fragment)
        fits = fits and parts.path in {"", "/"}
    except ValueError:
        fits = False
    if not fits:
        raise CollectorUrlError(
            f"{redacted(url)!r}: write http://HOST:PORT, or https://HOST:PORT for TLS; 4317 is the usual port of "
            "OTLP over gRPC"
        )


@contextlib.asynccontextmanager
async def open_collector(url: str, sender: TraceSender) -> AsyncIterator[SpanTaker | None]:
    """Yield what takes spans at an address that was checked; None where it is empty.

    Raises:
        StartRefusedError: what it takes is not installed.
    """
    if not url:
        yield None
        return
    try:
        from services.traces.collector import Collector  # noqa: PLC0415 - of the extra `traces`
    except ModuleNotFoundError as error:
        raise StartRefusedError(
            f"traces need {error.name}, which is not installed: install shoal-server with the extra `traces`, as in "
            "`pip install shoal-server[traces]`, or leave --traces out"
        ) from error
    async with Collector(url, sender) as collector:
        yield collector
