"""Where newcomers join: HTTPS that proves the controller, and asks for no certificate.

- `GET /v1/authorities`: certificates of the authorities (PEM), and in the header `Shoal-Cluster` the id of
  the cluster. A newcomer fetches it unverified and compares it with its token (`shoal.joining`).
- `POST /v1/join` `{token, name, request}`, and `role` for one that expects it, or `person` for any but a
  node's: `{certificate, authorities, cluster, namespace, trust: {ticket_keys, revoked, gossip_keys}}`, keys in
  base64. A refusal is `{reason, message}`; with the status 423 or 503 the same request may go well a little
  later.

All the world may dial here. So a connection lives for seconds, there are so many at once, counted before their
handshakes, a request is small, and so many are taken at once; whatever else comes ends the connection and nothing more.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web

from control.core.answers import Refusal, RefusalCode
from control.core.errors import ControlError
from control.front.registrar import Registrar, RegistrarError
from services.runtime.address import host_port, joined
from services.runtime.log import CountedLog, fields
from shoal.credentials import Credentials
from shoal.identity import Role
from shoal.join_token import JoinTokenError, parse_token
from shoal.joining import AUTHORITIES_PATH, CLUSTER_HEADER, JOIN_PATH
from shoal.tls import server_context

if TYPE_CHECKING:
    import ssl

LOG = logging.getLogger(__name__)

PERSON: Final = "person"
BODY_BYTES_MAX: Final = 64 << 10
CONNECTIONS_MAX: Final = 512
CONNECTIONS_OF_ONE_MAX: Final = 64
"""Of one address, so that one does not keep all others out; several boards may share one."""
CONNECTION_SECONDS: Final = 30.0
HANDSHAKE_SECONDS: Final = 10.0
_NO_DESCRIPTOR_SECONDS: Final = 0.1
"""How long accepting rests where the process has no descriptor left."""
REQUESTS_MAX: Final = 16
"""So many are taken at once; others wait for their turn."""
REQUEST_SECONDS: Final = 15.0
_STATUS: Final = {
    RefusalCode.INVALID_ARGUMENT: 400,
    RefusalCode.NOT_FOUND: 404,
    RefusalCode.PERMISSION_DENIED: 403,
    RefusalCode.ALREADY_EXISTS: 423,
    RefusalCode.RESOURCE_EXHAUSTED: 503,
}


class Newcomers:
    """Serves newcomers that have a token.

    Args:
        address: `host:port`, port 0 for a free one.
        identity: returns what the server proves.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self, address: str, identity: Callable[[], Credentials], clock: Callable[[], float]
    ) -> None:
        self._host, self._port = host_port(address)
        self._identity = identity
        self._refused = CountedLog(LOG, clock)
        self._taking = asyncio.Semaphore(REQUESTS_MAX)
        self._registrar: Registrar | None = None
        self._connections: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def serve(self, registrar: Registrar, tasks: asyncio.TaskGroup) -> AsyncIterator[str]:
        """Serve by `tasks` until the end of the block; yields the address, `host:port`.

        Raises:
            OSError: the address cannot be had.
        """
        self._registrar = registrar
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.router.add_get(AUTHORITIES_PATH, self._authorities)
        application.router.add_post(JOIN_PATH, self._join)
        runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=1.0, keepalive_timeout=5.0
        )
        await runner.setup()
        try:
            make = cast("Callable[[], asyncio.Protocol]", runner.server)
            listeners = await self._listen()
            doors = [tasks.create_task(self._open_door(one, make)) for one in listeners]
            try:
                yield joined(self._host, int(listeners[0].getsockname()[1]))
            finally:
                for door in doors:
                    door.cancel()
        finally:
            await runner.cleanup()

    async def _listen(self) -> list[socket.socket]:
        """Listen on every address of the host."""
        found = await asyncio.get_running_loop().getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listeners: list[socket.socket] = []
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                listener = socket.create_server(
                    (str(address[0]), int(address[1])), family=family, backlog=CONNECTIONS_MAX
                )
                listener.setblocking(False)
                listeners.append(listener)
        except OSError:
            for listener in listeners:
                listener.close()
            raise
        return listeners

    async def _open_door(
        self, listener: socket.socket, make: Callable[[], asyncio.Protocol]
    ) -> None:
        """Accept connections, and count them before their handshake, which a stranger may leave unfinished."""
        context = server_context(self._identity)
        loop = asyncio.get_running_loop()
        with listener:
            async with asyncio.TaskGroup() as visits:
                while True:
                    try:
                        connection, peer = await loop.sock_accept(listener)
                    except OSError as error:
                        self._refused.warn("a newcomer cannot be heard", why=error)
                        await asyncio.sleep(_NO_DESCRIPTOR_SECONDS)
                        continue
                    address = str(peer[0])
                    if self.enter(address):
                        visit = _Visit(self, make(), address)
                        visits.create_task(self._greet(connection, visit, context))
                    else:
                        connection.close()

    async def _greet(
        self, connection: socket.socket, visit: _Visit, context: ssl.SSLContext
    ) -> None:
        """Finish a handshake, which makes a visit of a connection, or count it no more."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: visit, connection, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except OSError:
            LOG.debug("a handshake of a newcomer failed", extra=fields(address=visit.address))
        finally:
            if not visit.begun:
                self.leave(visit.address)

    def enter(self, address: str) -> bool:
        """Let one more connection in; False if there are too many of its address, or of all."""
        known = self._connections
        if known.total() >= CONNECTIONS_MAX or known[address] >= CONNECTIONS_OF_ONE_MAX:
            self._refused.warn("too many connections of newcomers", address=address)
            return False
        known[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Count a connection no more that was let in."""
        self._connections[address] -= 1
        if not self._connections[address]:
            del self._connections[address]

    async def _authorities(self, _: web.Request) -> web.Response:
        registrar = self._open()
        return web.Response(
            body=registrar.trust().authorities,
            content_type="application/x-pem-file",
            headers={CLUSTER_HEADER: registrar.cluster},
        )

    async def _join(self, request: web.Request) -> web.Response:
        address = request.remote or ""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                body = await request.read()  # before its turn: a slow sender waits for itself alone
                async with self._taking:
                    answer = await self._take(body, address)
        except RegistrarError as error:
            return self._refuse(_STATUS[error.refusal.code], error.refusal, address)
        except TimeoutError:
            said = Refusal(
                RefusalCode.RESOURCE_EXHAUSTED,
                "BUSY",
                f"this took more than {REQUEST_SECONDS:g} s: the controller is busy, or the request came too "
                "slowly; try again in a moment",
            )
            return self._refuse(503, said, address)
        except (ControlError, OSError) as error:
            said = Refusal(RefusalCode.RESOURCE_EXHAUSTED, "NOT_RECORDED", str(error))
            return self._refuse(503, said, address)
        return web.json_response(answer)

    async def _take(self, body: bytes, address: str) -> dict[str, object]:
        registrar = self._open()
        said = _fields(body)
        try:
            token = parse_token(said["token"])
        except JoinTokenError as error:
            raise _invalid("MALFORMED_TOKEN", str(error)) from error
        role = said["role"]
        person = role == PERSON
        if role and not person and role not in set(Role):
            raise _invalid("INVALID_REQUEST", f"{role[:50]!r} is no role")
        row = await registrar.join(
            token,
            said["name"],
            said["request"].encode(),
            address,
            Role(role) if role and not person else None,
            person=person,
        )
        LOG.info(
            "a newcomer has joined",
            extra=fields(
                identity=row.holder.described, token=token.id, serial=row.serial, address=address
            ),
        )
        trust = registrar.trust(row.role)
        return {
            "certificate": row.pem.decode(),
            "authorities": trust.authorities.decode(),
            "cluster": registrar.cluster,
            "namespace": row.namespace,
            "trust": {
                "ticket_keys": [base64.b64encode(key).decode() for key in trust.ticket_keys],
                "revoked": list(trust.revoked),
                "gossip_keys": [base64.b64encode(key).decode() for key in trust.gossip_keys],
            },
        }

    def _refuse(self, status: int, refusal: Refusal, address: str) -> web.Response:
        self._refused.warn(
            "a newcomer is refused", code=refusal.reason, why=refusal.message, address=address
        )
        return web.json_response(
            {"reason": refusal.reason, "message": refusal.message}, status=status
        )

    def _open(self) -> Registrar:
        if self._registrar is None:
            raise web.HTTPServiceUnavailable
        return self._registrar


class _Visit(asyncio.Protocol):
    """One connection that was let in, from the end of its handshake on: its time is short."""

    def __init__(self, newcomers: Newcomers, inner: asyncio.Protocol, address: str) -> None:
        self.address = address
        self.begun = False
        self._newcomers = newcomers
        self._inner = inner
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is over."""
        connection = cast("asyncio.Transport", transport)
        self.begun = True
        self._end = asyncio.get_running_loop().call_later(CONNECTION_SECONDS, connection.abort)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        if self._end is not None:
            self._end.cancel()
            self._newcomers.leave(self.address)
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self._end is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._inner.eof_received() if self._end is not None else None

    def pause_writing(self) -> None:
        """Pass it on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._inner.resume_writing()


def _fields(body: bytes) -> dict[str, str]:
    """Read the texts of a request.

    Raises:
        RegistrarError: it is something else.
    """
    try:
        said: Any = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise _invalid("INVALID_REQUEST", "a request to join is a JSON object of texts")
    known = cast("dict[str, object]", said)
    found = {name: known.get(name, "") for name in ("token", "name", "request", "role")}
    texts = {name: value for name, value in found.items() if isinstance(value, str)}
    missing = [name for name in found if name not in texts or not (texts[name] or name == "role")]
    if missing or not all(text.isascii() for text in texts.values()):
        raise _invalid(
            "INVALID_REQUEST",
            f"a request to join has token, name and request, each a text; {', '.join(missing) or 'one'} is not",
        )
    return texts


def _invalid(reason: str, message: str) -> RegistrarError:
    return RegistrarError(Refusal(RefusalCode.INVALID_ARGUMENT, reason, message))
