"""From an address to an open archive."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from services.archive.directory_store import DirectoryStore
from services.archive.object_store import ObjectStore
from services.archive.s3_server import S3Server
from services.archive.signature import PathSigner
from services.runtime.address import joined
from services.runtime.log import fields
from shoal.credentials import Credentials

if TYPE_CHECKING:
    from services.archive.object_endpoint import ObjectEndpoint

LOG = logging.getLogger(__name__)

AGAIN_SECONDS = 5.0
"""How long the endpoint of a folder waits that could not begin to serve."""


class ArchiveUrlError(ValueError):
    """An address that is not one of an archive."""


@dataclass(frozen=True, slots=True)
class DirectoryAddress:
    """`file:///path`: a folder."""

    path: Path


@dataclass(frozen=True, slots=True)
class S3Address:
    """`s3://bucket/prefix?endpoint=…&region=…`: a bucket."""

    bucket: str
    prefix: str
    server: S3Server


ArchiveAddress = DirectoryAddress | S3Address
"""Where an archive is."""


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """How the objects of an archive are reached; all but `url` is about the endpoint of a folder.

    Args:
        host: address to listen on.
        port: port to listen on; 0 for a free one.
        public_host: how others reach it; empty means `host`.
        identity: returns what it proves over HTTPS, a certificate for that host; None for plain HTTP.
        secret: key of the signatures; keep it over restarts, so that addresses stay good.
        url: what addresses begin with, `http[s]://host[:port]`; empty for where the archive is seen from here.
    """

    host: str
    port: int
    secret: bytes
    public_host: str = ""
    identity: Callable[[], Credentials] | None = None
    url: str = ""


@dataclass(frozen=True, slots=True)
class OpenArchive:
    """An open archive.

    Attributes:
        store: its objects.
        address: where it is.
        endpoint: where its endpoint listens (`host:port`; empty for a bucket).
        serve: serves the endpoint until it is cancelled; of a bucket it returns at once.
    """

    store: ObjectStore
    address: ArchiveAddress
    endpoint: str
    serve: Callable[[], Coroutine[None, None, None]]


def parse_url(url: str) -> ArchiveAddress:
    """Read the address of an archive.

    Raises:
        ArchiveUrlError: when it is none.
    """
    parts = urlsplit(url)
    query = parse_qs(parts.query, keep_blank_values=True)
    match parts.scheme:
        case "file" if parts.netloc in {"", "localhost"} and parts.path.startswith("/"):
            if query or parts.fragment:
                raise ArchiveUrlError(f"archive {url!r}: a folder takes no options")
            return DirectoryAddress(Path(unquote(parts.path)))
        case "s3" if parts.netloc:
            if unknown := sorted(set(query) - {"endpoint", "region"}):
                raise ArchiveUrlError(
                    f"archive {url!r}: option {unknown[0]!r} is not known; use endpoint and region"
                )
            endpoint = query.get("endpoint", [""])[-1]
            if endpoint and urlsplit(endpoint).scheme not in {"http", "https"}:
                raise ArchiveUrlError(
                    f"archive {url!r}: endpoint {endpoint!r} has to begin with http:// or https://"
                )
            region = query.get("region", ["us-east-1"])[-1]
            prefix = unquote(parts.path).strip("/")
            return S3Address(parts.netloc, prefix, S3Server(endpoint, region))
        case _:
            raise ArchiveUrlError(
                f"archive {url!r} is not an address of one: write file:///folder or "
                "s3://bucket/prefix?endpoint=https://host"
            )


@asynccontextmanager
async def open_store(
    url: str,
    endpoint: EndpointSettings,
    *,
    wall: Callable[[], float],
    clock: Callable[[], float],
    new_id: Callable[[], str],
) -> AsyncIterator[OpenArchive]:
    """Open the archive at `url`; a folder listens at its endpoint from then on, and has to be served.

    Args:
        url: `file:///path` or `s3://bucket/prefix?endpoint=…&region=…`.
        endpoint: where a folder is served, and under which address others reach it, or a bucket's server.
        wall: Unix time in seconds.
        clock: seconds on a monotonic clock.
        new_id: never the same twice.

    Raises:
        ArchiveUrlError: when `url` is not an address of an archive.
        ArchiveUnavailableError: when the archive cannot be opened.
        OSError: when the endpoint's address cannot be had.
    """
    match parse_url(url):
        case S3Address() as address:
            # Amazon's libraries are as large as everything else together.
            from services.archive.s3_store import S3Store  # noqa: PLC0415

            reached = replace(address.server, endpoint=endpoint.url or address.server.endpoint)
            s3 = S3Store(
                address.server, address.bucket, address.prefix, new_id=new_id, reached=reached
            )
            async with s3:
                yield OpenArchive(s3, address, "", _nothing)
        case DirectoryAddress() as address:
            listener = _listen(endpoint.host, endpoint.port)
            port = int(listener.getsockname()[1])
            scheme = "https" if endpoint.identity else "http"
            seen = f"{scheme}://{joined(endpoint.public_host or endpoint.host, port)}"
            signer = PathSigner(endpoint.url or seen, endpoint.secret)
            directory = DirectoryStore(address.path, signer=signer, wall=wall, new_id=new_id)

            async def serve() -> None:
                while True:
                    await _called(listener)
                    try:
                        endpoint_type = await asyncio.to_thread(_endpoint_type)
                        async with endpoint_type(
                            directory,
                            signer,
                            listener,
                            identity=endpoint.identity,
                            wall=wall,
                            clock=clock,
                        ):
                            await asyncio.Event().wait()
                    except (ImportError, OSError) as error:
                        # Such as while the environment of a controller that runs is replaced.
                        LOG.error(  # noqa: TRY400 - the message says it all
                            "the endpoint of the archive does not serve; it tries again",
                            extra=fields(error=error),
                        )
                        await asyncio.sleep(AGAIN_SECONDS)

            with listener:
                async with directory:
                    yield OpenArchive(directory, address, joined(endpoint.host, port), serve)


@asynccontextmanager
async def open_copies(
    url: str,
    secret: bytes,
    *,
    wall: Callable[[], float],
    new_id: Callable[[], str],
) -> AsyncIterator[ObjectStore]:
    """Open a second store, to which results are copied; a folder is not served.

    Raises:
        ArchiveUrlError: when `url` is not an address of an archive.
        ArchiveUnavailableError: when it cannot be opened.
    """
    match parse_url(url):
        case S3Address() as address:
            from services.archive.s3_store import S3Store  # noqa: PLC0415 - see open_store

            async with S3Store(
                address.server, address.bucket, address.prefix, new_id=new_id
            ) as bucket:
                yield bucket
        case DirectoryAddress() as address:
            signer = PathSigner("", secret)
            async with DirectoryStore(
                address.path, signer=signer, wall=wall, new_id=new_id
            ) as folder:
                yield folder


async def _nothing() -> None:
    """Serve a bucket, which has a server of its own."""


def _endpoint_type() -> "type[ObjectEndpoint]":
    """Load the endpoint with its web server, which takes as long as a third of a controller's start."""
    from services.archive.object_endpoint import ObjectEndpoint  # noqa: PLC0415

    return ObjectEndpoint


async def _called(listener: socket.socket) -> None:
    """Wait for the first caller."""
    called = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(listener.fileno(), called.set)
    try:
        await called.wait()
    finally:
        loop.remove_reader(listener.fileno())


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise OSError(
            f"the archive's endpoint cannot listen on {host}:{port}: {error}; "
            "is the address in use?"
        ) from error
