"""`GET /metrics`: the figures of a process in the text format of Prometheus.

Rule: what is read is read at a scrape, and at most so often that it takes a twentieth of the process's time;
scrapes in between get the text that there is. So scrapers that ask often, or in crowds, cost no more than one that
asks once. A scraper that does not read holds one of a few places, for a few seconds.

Source: https://prometheus.io, exposition formats: the text format 0.0.4.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Self, cast

from aiohttp import web

from services.metrics.figure import COLLECT_SECONDS, COLLECTIONS, LEFT_OUT, REFUSED, Readings
from services.metrics.reader_proof import ReaderProof
from services.metrics.text import ProcessText, text_of
from services.runtime.log import CountedLog
from services.runtime.web_page import FIRST_SECONDS, WebPage
from shoal.identity import IdentityError, Role, parse_uri

LOG = logging.getLogger(__name__)

LEAST_SECONDS: Final = 0.9
"""A text is not made anew before it is so old."""
SHARE: Final = 20
"""And not before it is so many times as old as its making took."""
SCRAPES_MAX: Final = 16
ANSWER_SECONDS: Final = 10.0
_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_READERS: Final = frozenset(
    {Role.CONTROLLER, Role.VIEWER, Role.SUBMITTER, Role.OPERATOR, Role.GATEWAY}
)
"""Roles that may read figures, where an identity has to be proved; those bound to a namespace may not."""


class MetricsPage:
    """Serves figures; `async with` it.

    Args:
        read: reads the figures of the process, on the event loop.
        clock: seconds on a monotonic clock.
        host: where to listen.
        port: port, 0 for any free one.
        proof: what is proved on both sides; None for plain HTTP.
        answer_seconds: how long a scraper may take, from its question to its last byte.
        first_seconds: how long it may take from its connection to its question.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Readings]],
        *,
        clock: Callable[[], float],
        host: str,
        port: int,
        proof: ReaderProof | None = None,
        answer_seconds: float = ANSWER_SECONDS,
        first_seconds: float = FIRST_SECONDS,
    ) -> None:
        self._read = read
        self._clock = clock
        self._proof = proof
        self._answer_seconds = answer_seconds
        self._text = b""
        self._until = float("-inf")
        self._took = 0.0
        self._collections = 0
        self._refused = 0
        self._making = asyncio.Lock()
        self._scrapes = 0
        self._failed = CountedLog(LOG, clock)
        self._own = ProcessText()
        self._page = WebPage(
            {"/metrics": self._metrics},
            host=host,
            port=port,
            identity=None if proof is None else proof.identity,
            is_revoked=None if proof is None else proof.is_revoked,
            first_seconds=first_seconds,
        )

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            OSError: the address cannot be had.
        """
        await self._page.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._page.__aexit__()

    @property
    def port(self) -> int:
        """Where it really listens."""
        return self._page.port

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        if self._proof is not None and (why := _refusal(request)):
            return web.Response(status=403, text=f"{why}\n")
        if self._scrapes >= SCRAPES_MAX:
            self._refused += 1
            return web.Response(
                status=503,
                headers={"Retry-After": "1"},
                text=f"{SCRAPES_MAX} scrapes are being answered, which is the most: ask again, and less often\n",
            )
        self._scrapes += 1
        response = web.StreamResponse(headers={"Content-Type": _CONTENT_TYPE})
        try:
            async with asyncio.timeout(self._answer_seconds):
                text = await self._current()
                response.content_length = len(text)
                await response.prepare(request)
                await response.write(text)
                await response.write_eof()
        except TimeoutError:
            self._refused += 1
            self._failed.warn("a scrape of metrics was given up", seconds=self._answer_seconds)
            if not response.prepared:
                return web.Response(status=503, text="the figures could not be read in time\n")
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._scrapes -= 1
        return response

    async def _current(self) -> bytes:
        """The text, made anew if it is old; of several that want it one makes it."""
        async with self._making:
            begun = self._clock()
            if begun >= self._until:
                readings = await self._read()
                self._collections += 1
                readings.tell(COLLECTIONS, self._collections)
                readings.tell(REFUSED, self._refused)
                readings.tell(COLLECT_SECONDS, self._took)
                readings.tell_each(LEFT_OUT, readings.left_out)
                self._text = await asyncio.to_thread(_text, readings, self._own)
                self._took = self._clock() - begun
                self._until = begun + max(LEAST_SECONDS, self._took * SHARE)
            return self._text


def _refusal(request: web.Request) -> str:
    """Why this caller may not read."""
    shown = cast("dict[str, object]", request.get_extra_info("peercert") or {})
    names = cast("tuple[tuple[str, str], ...]", shown.get("subjectAltName", ()))
    try:
        identity = parse_uri(next((value for kind, value in names if kind == "URI"), ""))
    except IdentityError:
        return "this caller proves no identity of the cluster"
    if identity.role in _READERS and not identity.namespace:
        return ""
    return (
        f"{identity.described} may not read figures, which tell of all namespaces: use the certificate of a "
        "viewer that is bound to none (shoal token create --role viewer)"
    )


def _text(readings: Readings, own: ProcessText) -> bytes:
    return text_of(readings) + own.text()
