"""A few addresses over HTTP, for programs that read them now and then: the page of figures, the page of members.

Rule. A connection is there for requests. One that has none under way is ended: `first_seconds` after it came, if there
was never any, and `idle_seconds` after the last one. A header that comes a byte at a time is no request, and an answer
that is not read keeps none alive. So connections that do nothing do not pile up.

Where readers prove an identity, a certificate that is revoked is refused with its next request, since a connection
outlasts its handshake.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Self, cast

from aiohttp import web

from shoal.credentials import Credentials
from shoal.tls import server_context

FIRST_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 75.0
_SHUTDOWN_SECONDS: Final = 1.0
_LOOKS: Final = 4
"""How often it is looked for such connections within `first_seconds`."""

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebPage:
    """Serves answers to GET by their paths; `async with` it.

    Args:
        answers: by path.
        host: where to listen.
        port: port, 0 for any free one.
        identity: returns what it proves over HTTPS, where its readers have to prove an identity of the same cluster,
            too; None for plain HTTP.
        is_revoked: says whether a certificate with a serial number is believed no more.
        first_seconds: how long a connection may be without its first request.
        idle_seconds: how long it may be without the next one.
    """

    def __init__(
        self,
        answers: Mapping[str, Answer],
        *,
        host: str,
        port: int,
        identity: Callable[[], Credentials] | None = None,
        is_revoked: Callable[[int], bool] | None = None,
        first_seconds: float = FIRST_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._host = host
        self._port = port
        self._identity = identity
        self._is_revoked = is_revoked
        self._first_seconds = first_seconds
        self._idle_seconds = idle_seconds
        # Until when a connection may be without a request; one that has one under way is not here.
        self._until: dict[asyncio.Protocol, float] = {}
        self._busy: set[asyncio.Protocol] = set()
        self._looking: asyncio.TimerHandle | None = None
        application = web.Application(middlewares=[self._serve])
        for path, answer in answers.items():
            application.router.add_get(path, answer)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            keepalive_timeout=idle_seconds,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            OSError: the address cannot be had.
        """
        await self._runner.setup()
        tls = None if self._identity is None else server_context(self._identity, prove=True)
        await web.TCPSite(self._runner, self._host, self._port, ssl_context=tls).start()
        self._look()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._looking is not None:
            self._looking.cancel()
        async with asyncio.timeout(5):
            await self._runner.cleanup()

    @property
    def port(self) -> int:
        """Where it really listens."""
        return int(self._runner.addresses[0][1])

    @web.middleware
    async def _serve(self, request: web.Request, handler: Answer) -> web.StreamResponse:
        if self._is_revoked is not None and self._is_revoked(_proved_serial(request)):
            return web.Response(status=403, text="the certificate of this caller was revoked\n")
        connection = request.protocol
        self._busy.add(connection)
        try:
            return await handler(request)
        finally:
            self._busy.discard(connection)
            self._until[connection] = asyncio.get_running_loop().time() + self._idle_seconds

    def _look(self) -> None:
        """End the connections that are without a request for too long."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        server = self._runner.server
        connections = [] if server is None else server.connections
        self._until = {
            one: self._until.get(one, now + self._first_seconds)
            for one in connections
            if one not in self._busy
        }
        for one in connections:
            if self._until.get(one, now) < now:
                one.force_close()
        self._looking = loop.call_later(self._first_seconds / _LOOKS, self._look)


def _proved_serial(request: web.Request) -> int:
    """Serial number of the certificate that a caller has proved."""
    shown = cast("dict[str, object]", request.get_extra_info("peercert") or {})
    return int(str(shown.get("serialNumber", "0")), 16)
