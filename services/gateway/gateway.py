"""The root of a gateway: its parts, its server of HTTP, and its end."""

import asyncio
import contextlib
import datetime as dt
import errno
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from services.gateway.config import GatewayConfig
from services.gateway.contract import OFFERED, ContractApp
from services.gateway.door import SECOND_WORD, Door, DoorLimits
from services.gateway.gateway_counts import GatewayCounts
from services.gateway.gateway_figures import GatewayFigures
from services.gateway.openapi import openapi_document
from services.gateway.original import OriginalPages
from services.gateway.request_guard import RequestGuard
from services.gateway.session_file import SESSIONS_NAME, SessionFile
from services.gateway.sign_in import SignIn
from services.gateway.update_feed import UpdateFeed
from services.gateway.upstream import Upstream
from services.gateway.user_file import USERS_NAME, UserFile, UserFileError
from services.metrics.opening import open_metrics
from services.metrics.reader_proof import ReaderProof
from services.runtime.address import host_port, joined
from services.runtime.health_file import HealthFile
from services.runtime.log import fields
from services.runtime.process import StartRefusedError
from services.runtime.state_folder import prepare_state_folder

LOG = logging.getLogger(__name__)

_END_SECONDS: Final = 3
"""How long calls may go on once the gateway is told to stop."""
_BACKLOG: Final = 512
_EXPOSED: Final = ("grpc-status", "grpc-message", "grpc-status-details-bin")


@dataclass(frozen=True, slots=True)
class GatewayProcess:
    """What a process takes from its machine.

    Attributes:
        clock: seconds on a monotonic clock.
        boottime: seconds since the machine started.
        wall: seconds since 1970.
    """

    clock: Callable[[], float]
    boottime: Callable[[], float]
    wall: Callable[[], float]


@dataclass(eq=False)
class Gateway:
    """One gateway; `run` it once.

    Args:
        config: where it listens, and what it lets in.
        process: clocks.
        ready: called with `host:port` once it listens.
    """

    config: GatewayConfig
    process: GatewayProcess
    ready: Callable[[str], None]

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            StartRefusedError: the state folder, the identity, the certificate or the address cannot be used.
        """
        config = self.config
        await asyncio.to_thread(prepare_state_folder, config.state, USERS_NAME)
        users = UserFile(config.state / USERS_NAME)
        seconds = config.session_hours * 3600
        sessions = SessionFile(config.state / SESSIONS_NAME, users, seconds, self.process.wall)
        try:
            users.users()
            sessions.load()
        except UserFileError as error:
            raise StartRefusedError(str(error)) from error
        counts = GatewayCounts()
        upstream = Upstream(
            config.controller,
            config.identity,
            config.call_seconds,
            lambda: dt.datetime.fromtimestamp(self.process.wall(), dt.UTC),
            self.process.clock,
            counts,
        )
        limits = DoorLimits(config.calls_per_second, config.watches)
        door = Door(
            users,
            sessions,
            config.anonymous,
            limits,
            lambda: upstream.cluster,
            self.process.clock,
            counts,
        )
        secure = config.certificate is not None or bool(config.proxy)
        sign_in = SignIn(door, sessions, seconds, secure=secure)
        with contextlib.closing(_listening(config.listen, config.unread_seconds)) as listening:
            async with asyncio.TaskGroup() as tasks:
                connected = asyncio.Event()
                calling = tasks.create_task(upstream.run(connected.set))
                beating = None
                if config.health_file is not None:
                    health = HealthFile(config.health_file, self.process.boottime)
                    beating = tasks.create_task(health.run())
                looking = tasks.create_task(door.watches.run())
                await connected.wait()
                updates = UpdateFeed(upstream)
                pages = OriginalPages(door, upstream, updates, self.process.wall)
                app = self._app(door, upstream, [*sign_in.routes(), *pages.routes()])
                server = self._server(app, lambda: self.ready(_address(listening)))
                figures = GatewayFigures(
                    counts,
                    door,
                    users,
                    sessions,
                    upstream,
                    lambda: len(server.server_state.connections),
                )
                try:
                    async with open_metrics(
                        config.metrics,
                        figures.read,
                        clock=self.process.clock,
                        proof=_reader_proof(upstream),
                    ) as metrics:
                        if metrics:
                            LOG.info("metrics are served", extra=fields(address=metrics))
                        await _serve(server, listening)
                finally:
                    calling.cancel()
                    looking.cancel()
                    if beating is not None:
                        beating.cancel()

    def _app(self, door: Door, upstream: Upstream, routes: Sequence[Route]) -> ASGIApp:
        config = self.config
        contract = ContractApp(door, upstream, config.request_bytes)
        app: ASGIApp = Starlette(
            routes=[
                Route("/health", _healthy),
                Route("/openapi.json", _openapi),
                *routes,
                Mount("/", contract),
            ],
            exception_handlers={ClientDisconnect: _gone},
        )
        if config.origins:
            app = CORSMiddleware(
                app,
                allow_origins=list(config.origins),
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*", "authorization", SECOND_WORD],
                allow_credentials=True,
                expose_headers=list(_EXPOSED),
                max_age=600,
            )
        return RequestGuard(app, {path: method.safe for path, method in OFFERED.items()})

    def _server(self, app: ASGIApp, ready: Callable[[], None]) -> "_Server":
        config = self.config
        settings = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            server_header=False,
            limit_concurrency=config.connections,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_END_SECONDS,
            proxy_headers=bool(config.proxy),
            forwarded_allow_ips=config.proxy or None,
            ssl_certfile=config.certificate,
            ssl_keyfile=config.key,
        )
        try:
            settings.load()
        except OSError as error:
            raise StartRefusedError(
                f"the certificate {config.certificate} and the key {config.key} cannot be used: {error}; give a "
                "certificate in PEM with its chain, and the key that belongs to it"
            ) from error
        return _Server(settings, ready)


class _Server(uvicorn.Server):
    """Uvicorn's server, which takes no signal by itself, and says that it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `services.runtime.process`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        self._ready()


async def _serve(server: _Server, listening: socket.socket) -> None:
    serving = asyncio.create_task(server.serve([listening]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await asyncio.wait((serving,), timeout=2 * _END_SECONDS)
        raise


def _reader_proof(upstream: Upstream) -> ReaderProof | None:
    """What a page of figures proves beyond loopback; a gateway is not told which certificates are revoked."""
    proved = upstream.credentials
    if proved is None:
        return None
    return ReaderProof(lambda: upstream.credentials or proved, lambda _: False)


async def _healthy(_: object) -> PlainTextResponse:
    return PlainTextResponse("ok\n")


async def _openapi(_: object) -> JSONResponse:
    return JSONResponse(openapi_document())


async def _gone(_request: object, _error: Exception) -> PlainTextResponse:
    return PlainTextResponse("the request was left off\n", 408)


def _listening(address: str, unread_seconds: float) -> socket.socket:
    """Return a socket that listens.

    A connection of a browser that sleeps, or reads nothing, is ended by the kernel: once the time has passed in which
    it took nothing (TCP_USER_TIMEOUT, which holds for a window of 0, too), or answered no question (keep-alive). Until
    then what is not read holds its watch back, and nothing is kept for it beyond the buffers of one connection.
    """
    host, port = host_port(address)
    unread = int(unread_seconds * 1000)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = found[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartRefusedError(f"--listen {address} cannot be used: {error}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread)
        listening.bind(place)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        why = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise StartRefusedError(
            f"--listen {address} cannot be had: {why}; name another address, or port 0 for any port"
        ) from error
    return listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return joined(host, port)
