"""HTTP server of a `DirectoryStore`: signed addresses for reading and writing single objects.

GET answers single ranges as RFC 9110, section 14 has it; everything else gets the whole object.
"""

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import KW_ONLY, dataclass
from typing import Self

from aiohttp import web

from services.archive.directory_store import DirectoryStore
from services.archive.key import InvalidKeyError
from services.archive.object_store import (
    ArchiveFullError,
    ArchiveUnavailableError,
    ObjectDigestError,
    ObjectMissingError,
    UploadMissingError,
)
from services.archive.signature import PATH_PREFIX, PathSigner, SignatureRefusedError
from services.runtime.log import CountedLog
from shoal.credentials import Credentials
from shoal.tls import server_context

LOG = logging.getLogger(__name__)

_IDLE_SECONDS = 60.0
"""How long a sender may be silent in the middle of a PUT."""
_GONE = (ConnectionError, web.RequestPayloadError)  # perhaps no client is there to read the answer
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class _UploadSizeError(Exception):
    """More or fewer bytes than announced."""


@dataclass(eq=False)
class ObjectEndpoint:
    """Serves the objects of `store` on an already listening socket; use it with `async with`.

    Args:
        store: where objects lie.
        signer: the one that made the addresses.
        listener: a bound and listening TCP socket; the endpoint closes it.
        identity: returns what it proves over HTTPS; None for plain HTTP. An address carries the right
            to use it, so clients prove nothing.
        wall: Unix time in seconds.
        clock: seconds on a monotonic clock.
    """

    store: DirectoryStore
    signer: PathSigner
    listener: socket.socket
    _: KW_ONLY
    identity: Callable[[], Credentials] | None = None
    wall: Callable[[], float]
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        self._refused = CountedLog(LOG, self.clock)
        application = web.Application()
        any_key = r"{key:[\s\S]+}"  # a dot is no line break, and a key may have some
        application.router.add_get(f"{PATH_PREFIX}{any_key}", self._get)
        application.router.add_put(f"{PATH_PREFIX}{any_key}", self._put)
        # Longer headers than any address of ours are refused by aiohttp itself (400).
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)

    async def __aenter__(self) -> Self:
        """Begin to serve."""
        await self._runner.setup()
        tls = None if self.identity is None else server_context(self.identity)
        await web.SockSite(self._runner, self.listener, ssl_context=tls).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop serving; requests that run get a second to end."""
        await self._runner.cleanup()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        try:
            self.signer.check_get(key, _query(request), self.wall())
            info = await self.store.head(key)
        except (SignatureRefusedError, InvalidKeyError) as error:
            return self._refuse(403, error)
        except ArchiveUnavailableError as error:
            return self._refuse(503, error)
        if info is None:
            return self._refuse(404, ObjectMissingError(key))
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        first, end = 0, info.size_bytes
        status = 200
        if (wanted := _RANGE.fullmatch(request.headers.get("Range", ""))) is not None:
            found = _range(wanted[1], wanted[2], info.size_bytes)
            if found is None:
                return web.Response(
                    status=416, headers={"Content-Range": f"bytes */{info.size_bytes}"}
                )
            first, end = found
            status = 206
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{info.size_bytes}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = end - first
        await response.prepare(request)
        try:
            if request.method == "GET":
                await self._send(response, key, first, end)
            await response.write_eof()
        except (ConnectionError, TimeoutError) as error:
            self._refused.warn("reader gone before the end", why=error)
            response.force_close()
        except (ArchiveUnavailableError, ObjectMissingError) as error:
            # The size is out already: only a broken connection says that this is not all.
            self._refused.warn("object broke off", why=error)
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _send(self, response: web.StreamResponse, key: str, first: int, end: int) -> None:
        left = end - first
        async with contextlib.aclosing(self.store.get_stream(key, offset=first)) as chunks:
            async for chunk in chunks:
                async with asyncio.timeout(_IDLE_SECONDS):
                    await response.write(chunk[:left])
                left -= len(chunk)
                if left <= 0:
                    return

    async def _put(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        try:
            put = self.signer.check_put(key, _query(request), self.wall())
            if request.content_length not in {None, put.size_bytes}:
                raise _UploadSizeError(
                    f"object {key!r} was announced with {put.size_bytes} bytes, and the request "
                    f"has {request.content_length}; nothing was stored"
                )
            received = self._receive(request, key, put.size_bytes)
            if put.part is None:
                await self.store.put_stream(key, received, sha256=put.sha256)
            else:
                await self.store.put_part(key, put, put.part, received)
        except (SignatureRefusedError, InvalidKeyError) as error:
            return self._refuse(403, error)
        except (_UploadSizeError, ObjectDigestError, *_GONE) as error:
            return self._refuse(400, error)
        except UploadMissingError as error:
            return self._refuse(404, error)
        except TimeoutError as error:
            return self._refuse(408, error)
        except ArchiveFullError as error:
            return self._refuse(507, error)
        except ArchiveUnavailableError as error:
            return self._refuse(503, error)
        return web.Response(status=200)

    async def _receive(
        self, request: web.Request, key: str, size_bytes: int
    ) -> AsyncIterator[bytes]:
        received = 0
        while True:
            async with asyncio.timeout(_IDLE_SECONDS):
                chunk = await request.content.readany()
            received += len(chunk)
            if received > size_bytes or (not chunk and received < size_bytes):
                raise _UploadSizeError(
                    f"object {key!r} was announced with {size_bytes} bytes, and {received} "
                    "arrived; nothing was stored"
                )
            if not chunk:
                return
            yield chunk

    def _refuse(self, status: int, error: Exception) -> web.Response:
        self._refused.warn(f"request refused with {status}", why=error)
        # The rest of a refused body is not worth reading.
        response = web.Response(status=status, text=f"{error}\n")
        if status != 404:
            response.force_close()
        return response


def _query(request: web.Request) -> dict[str, str]:
    query = dict(request.query)
    if len(query) != len(request.query):
        raise SignatureRefusedError("the address has a parameter twice")
    return query


def _range(first: str, last: str, size_bytes: int) -> tuple[int, int] | None:
    """Return first byte and the one after the last, or None when there are none."""
    if not first and not last:
        return None
    if not first:  # the last so many bytes
        begin, end = max(0, size_bytes - int(last)), size_bytes
    else:
        begin = int(first)
        end = min(int(last) + 1, size_bytes) if last else size_bytes
    return (begin, end) if begin < end else None
