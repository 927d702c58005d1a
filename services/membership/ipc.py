"""The port that the stock `serf` command speaks to: msgpack over TCP.

`{Command, Seq}` and a body each way. The first command is `handshake`; with an auth key set, the
second is `auth`. One connection may have several streams, monitors and queries open.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from services.membership.dialect import StreamUnpacker, Value, pack
from services.membership.fields import U64_MAX, fields, flag, host_to_octets, number, octets, text
from services.membership.layout import FLAG, TEXT, FieldKind, MessageLayout, integer, packed
from services.membership.member import ChangeKind, Member, MemberChange
from services.membership.message import SwimState
from services.membership.refusal import RefusedError
from services.membership.serf.coordinate import coordinate_body
from services.membership.serf.effects import EventHeard, QueryHeard
from services.membership.serf.queries import QueryRequest
from services.membership.serf.shell import Happening, KeyReport

if TYPE_CHECKING:
    from services.membership.shell import GossipShell

_CONNECTIONS_MAX: Final = 64
_FOLLOWERS_MAX: Final = 64
_REQUEST_BYTES_MAX: Final = 1024 * 1024
_READ_BYTES: Final = 64 * 1024
_WRITE_SECONDS: Final = 10.0
_LEAVE_SECONDS: Final = 5.0
_QUERIES_HELD: Final = 1024
_STATUS: Final = {
    SwimState.ALIVE: "alive",
    SwimState.SUSPECT: "alive",  # Serf shows no suspicion
    SwimState.DEAD: "failed",
    SwimState.LEFT: "left",
}
_EVENTS: Final = {
    ChangeKind.JOINED: "member-join",
    ChangeKind.UPDATED: "member-update",
    ChangeKind.DIED: "member-failed",
    ChangeKind.LEFT: "member-leave",
    ChangeKind.REAPED: "member-reap",
}
_Body = dict[str, Value]


class _CommandError(ValueError):
    """A command cannot be carried out; the sentence goes to the client."""


def member_row(member: Member) -> _Body:
    """A member as Serf's port describes it."""
    versions = member.versions
    return {
        "Addr": host_to_octets(member.address),
        "DelegateCur": versions.delegate,
        "DelegateMax": versions.delegate_max,
        "DelegateMin": versions.delegate_min,
        "Name": member.name,
        "Port": member.port,
        "ProtocolCur": versions.protocol,
        "ProtocolMax": versions.protocol_max,
        "ProtocolMin": versions.protocol_min,
        "Status": _STATUS[member.state],
        "Tags": dict(member.tags),
    }


class IpcServer:
    """Serves Serf's port for one gossip.

    Args:
        gossip: The member that is asked.
        host: Where to listen; loopback, unless an auth key is set.
        port: Port, 7373 by convention, 0 for any free one.
        auth_key: What clients have to know, empty for nothing.
        log: What monitors follow.

    Raises:
        ValueError: A host other than loopback without an auth key.
    """

    def __init__(
        self,
        gossip: GossipShell,
        *,
        host: str = "127.0.0.1",
        port: int = 7373,
        auth_key: str = "",
        log: logging.Logger | None = None,
    ) -> None:
        if not auth_key and host not in {"127.0.0.1", "::1", "localhost"}:
            raise ValueError(f"serving {host} to other machines needs an auth key; set one")
        self.gossip = gossip
        self._host = host
        self._port = port
        self.auth_key = auth_key
        self.log = log or logging.getLogger("shoal.membership")
        self._server: asyncio.Server | None = None
        self._connections = 0
        self.left = asyncio.Event()
        """Set when a client asked this member to leave."""

    @property
    def port(self) -> int:
        """Where it really listens.

        Raises:
            RuntimeError: It does not listen.
        """
        if self._server is None:
            raise RuntimeError("the IPC server is closed; enter it with `async with` first")
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._connected, self._host, self._port, limit=_READ_BYTES
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= _CONNECTIONS_MAX:
            writer.close()
            return
        self._connections += 1
        try:
            await _Session(self, reader, writer).run()
        except* (OSError, RefusedError, TimeoutError, asyncio.IncompleteReadError) as group:
            self.log.debug("IPC client is gone: %s", group.exceptions[0])
        finally:
            self._connections -= 1
            writer.close()


class _Session:
    """One client."""

    def __init__(
        self, server: IpcServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._gossip = server.gossip
        self._reader = reader
        self._writer = writer
        self._unpacker = StreamUnpacker()
        self._greeted = False
        self._trusted = not server.auth_key
        self._followers: dict[int, asyncio.Task[None]] = {}
        self._asked: dict[int, QueryHeard] = {}
        self._next_query = 0
        self._sending = asyncio.Lock()
        self._tasks: asyncio.TaskGroup | None = None
        self._commands: Mapping[str, Callable[[int], Awaitable[_Body | None]]] = {
            "event": self._event,
            "force-leave": self._force_leave,
            "get-coordinate": self._coordinate,
            "install-key": partial(self._key, self._gossip.serf.install_key),
            "join": self._join,
            "leave": self._leave,
            "list-keys": self._list_keys,
            "members": self._members,
            "members-filtered": self._members_filtered,
            "monitor": self._monitor,
            "query": self._query,
            "remove-key": partial(self._key, self._gossip.serf.remove_key),
            "respond": self._respond,
            "stats": self._stats,
            "stop": self._stop,
            "stream": self._stream,
            "tags": self._tags,
            "use-key": partial(self._key, self._gossip.serf.use_key),
        }

    async def run(self) -> None:
        """Serve until the client goes."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            while True:
                try:
                    header = await self._read()
                except EOFError:
                    break
                name, sequence = fields(header, (b"Command", b"Seq"))
                await self._command(text(name, "Command"), number(sequence, U64_MAX, "Seq"))
            for follower in self._followers.values():
                follower.cancel()

    async def _command(self, name: str, sequence: int) -> None:
        try:
            body = await self._dispatch(name, sequence)
        except ValueError as error:  # what gossip refuses is one too
            await self._send({"Error": str(error), "Seq": sequence})
        else:
            await self._send({"Error": "", "Seq": sequence}, body)

    async def _dispatch(self, name: str, sequence: int) -> _Body | None:
        if name == "handshake":
            (version,) = fields(await self._read(), (b"Version",))
            if number(version, U64_MAX, "Version") > 1:
                raise _CommandError("Unsupported IPC version")
            if self._greeted:
                raise _CommandError("Handshake already performed")
            self._greeted = True
            return None
        if not self._greeted:
            raise _CommandError("Handshake required")
        if name == "auth":
            (key,) = fields(await self._read(), (b"AuthKey",))
            given = octets(key, 4096, "AuthKey")
            if not self._server.auth_key or not hmac.compare_digest(
                given, self._server.auth_key.encode()
            ):
                raise _CommandError("Invalid authentication token")
            self._trusted = True
            return None
        if not self._trusted:
            raise _CommandError("Authentication required")
        command = self._commands.get(name)
        if command is None:
            raise _CommandError("Unsupported command")
        return await command(sequence)

    async def _read(self) -> object:
        """Read one value.

        Raises:
            EOFError: The client closed.
            RefusedError: Garbage, or over 1 MiB for one value.
        """
        unread = 0
        while True:
            there, value = self._unpacker.value()
            if there:
                return value
            data = await self._reader.read(_READ_BYTES)
            unread += len(data)
            if not data or unread > _REQUEST_BYTES_MAX:
                raise EOFError
            self._unpacker.feed(data)

    async def _send(self, header: _Body, body: _Body | None = None) -> None:
        data = pack(header) + (pack(body) if body is not None else b"")
        async with self._sending, asyncio.timeout(_WRITE_SECONDS):
            self._writer.write(data)
            await self._writer.drain()

    # ---- members --------------------------------------------------------------------------------

    async def _members(self, _: int) -> _Body:
        return {"Members": [member_row(m) for m in self._gossip.members(all_states=True)]}

    async def _members_filtered(self, _: int) -> _Body:
        tags, status, name = fields(await self._read(), (b"Tags", b"Status", b"Name"))
        wanted = _pairs(tags)
        state, called = text(status, "Status"), text(name, "Name")
        rows: list[Value] = []
        for member in self._gossip.members(all_states=True):
            if (
                _whole(state, _STATUS[member.state])
                and _whole(called, member.name)
                and all(_whole(value, member.tags.get(tag, "")) for tag, value in wanted.items())
            ):
                rows.append(member_row(member))  # noqa: PERF401 a comprehension would hide it
        return {"Members": rows}

    async def _join(self, _: int) -> _Body:
        existing, _replay = fields(await self._read(), (b"Existing", b"Replay"))
        addresses = [text(item, "address") for item in _list(existing)]
        joined = await self._gossip.join(addresses)
        if not joined and addresses:
            raise _CommandError(f"no member answered at {', '.join(addresses)}")
        return {"Num": joined}

    async def _leave(self, _: int) -> None:
        await self._gossip.leave(_LEAVE_SECONDS)
        self._server.left.set()

    async def _force_leave(self, _: int) -> None:
        node, prune = fields(await self._read(), (b"Node", b"Prune"))
        self._gossip.serf.force_leave(text(node, "Node"), prune=flag(prune, "Prune"))

    async def _tags(self, _: int) -> None:
        tags, delete = fields(await self._read(), (b"Tags", b"DeleteTags"))
        merged = dict(self._gossip.local.tags) | _pairs(tags)
        for name in _list(delete):
            merged.pop(text(name, "tag"), None)
        await self._gossip.set_tags(merged)

    async def _stats(self, _: int) -> _Body:
        gossip = self._gossip
        members = gossip.members(all_states=True)
        states = [member.state for member in members]
        counters: _Body = {name: str(count) for name, count in gossip.counters.items()}
        serf: _Body = {
            "encrypted": str(gossip.keyring.primary is not None).lower(),
            "failed": str(states.count(SwimState.DEAD)),
            "health_score": str(gossip.awareness),
            "left": str(states.count(SwimState.LEFT)),
            "members": str(len(members)),
        }
        return {
            "agent": {"name": gossip.local.name},
            "counters": counters,
            "event_handlers": {},
            "runtime": {"version": "shoal"},
            "serf": serf,
            "tags": dict(gossip.local.tags),
        }

    async def _coordinate(self, _: int) -> _Body:
        (node,) = fields(await self._read(), (b"Node",))
        found = self._gossip.serf.coordinate(text(node, "Node"))
        if found is None:
            return {"Coord": None, "Ok": False}
        return {"Coord": coordinate_body(found), "Ok": True}

    # ---- events and queries ---------------------------------------------------------------------

    async def _event(self, _: int) -> None:
        name, payload, coalesce = fields(await self._read(), (b"Name", b"Payload", b"Coalesce"))
        self._gossip.serf.send_event(
            text(name, "Name"),
            octets(payload, _REQUEST_BYTES_MAX, "Payload"),
            coalesce=flag(coalesce, "Coalesce"),
        )

    async def _query(self, sequence: int) -> None:
        asking = self._gossip.serf.query(_QUERY.read(await self._read()))
        stack = contextlib.AsyncExitStack()
        answers = await stack.enter_async_context(asking)

        async def follow() -> None:
            async with stack:
                async for answer in answers:
                    row: _Body = {
                        "From": answer.sender,
                        "Payload": answer.payload,
                        "Type": "ack" if answer.ack else "response",
                    }
                    await self._send({"Error": "", "Seq": sequence}, row)
            done: _Body = {"From": "", "Payload": b"", "Type": "done"}
            await self._send({"Error": "", "Seq": sequence}, done)

        self._follow(sequence, follow)

    async def _respond(self, _: int) -> None:
        identity, payload = fields(await self._read(), (b"ID", b"Payload"))
        asked = self._asked.get(number(identity, U64_MAX, "ID"))
        if asked is None:
            raise _CommandError("No pending query with given ID")
        self._gossip.serf.respond(asked.query, octets(payload, 4096, "Payload"))

    # ---- keys -----------------------------------------------------------------------------------

    async def _key(self, change: Callable[[bytes], Awaitable[KeyReport]], _: int) -> _Body:
        (encoded,) = fields(await self._read(), (b"Key",))
        try:
            key = base64.b64decode(octets(encoded, 256, "Key"), validate=True)
        except ValueError as error:
            raise _CommandError("key is not base64; make one with `serf keygen`") from error
        return _reported(await change(key))

    async def _list_keys(self, _: int) -> _Body:
        return _reported(await self._gossip.serf.list_keys())

    # ---- following ------------------------------------------------------------------------------

    async def _stream(self, sequence: int) -> None:
        (kinds,) = fields(await self._read(), (b"Type",))
        wanted = [kind.strip() for kind in text(kinds, "Type").split(",")]

        async def follow() -> None:
            async with self._gossip.serf.watch() as watch:
                async for happening in watch:
                    row = self._happening(happening)
                    if row is not None and _wanted(row, wanted):
                        await self._send({"Error": "", "Seq": sequence}, row)

        self._follow(sequence, follow)

    async def _monitor(self, sequence: int) -> None:
        (level,) = fields(await self._read(), (b"LogLevel",))
        name = text(level, "LogLevel").upper()
        threshold = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "ERR": 40}.get(name, 10)

        async def follow() -> None:
            async with _log_lines(self._server.log, threshold) as lines:
                async for line in lines:
                    await self._send({"Error": "", "Seq": sequence}, {"Log": line})

        self._follow(sequence, follow)

    async def _stop(self, _: int) -> None:
        (which,) = fields(await self._read(), (b"Stop",))
        follower = self._followers.pop(number(which, U64_MAX, "Stop"), None)
        if follower is not None:
            follower.cancel()

    def _follow(self, sequence: int, follow: Callable[[], Awaitable[None]]) -> None:
        """Send records under the sequence number of the command that asked for them."""
        if len(self._followers) >= _FOLLOWERS_MAX or self._tasks is None:
            raise _CommandError(f"{_FOLLOWERS_MAX} streams are open; stop some")

        async def run() -> None:
            # The command's own answer has to be first.
            await asyncio.sleep(0)
            with contextlib.suppress(OSError, TimeoutError):
                await follow()
            self._followers.pop(sequence, None)

        self._followers[sequence] = self._tasks.create_task(run())

    def _happening(self, happening: Happening) -> _Body | None:
        if isinstance(happening, MemberChange):
            kind = _EVENTS.get(happening.kind)
            if kind is None:
                return None
            return {"Event": kind, "Members": [member_row(happening.member)]}
        if isinstance(happening, EventHeard):
            event = happening.event
            return {
                "Coalesce": event.coalesce,
                "Event": "user",
                "LTime": event.time,
                "Name": event.name,
                "Payload": event.payload,
            }
        query = happening.query
        self._next_query += 1
        self._asked[self._next_query] = happening
        if len(self._asked) > _QUERIES_HELD:
            del self._asked[next(iter(self._asked))]
        return {
            "Event": "query",
            "ID": self._next_query,
            "LTime": query.time,
            "Name": query.name,
            "Payload": query.payload,
        }


@contextlib.asynccontextmanager
async def _log_lines(log: logging.Logger, threshold: int) -> AsyncIterator[AsyncIterator[str]]:
    """Follow a log; lines that find no room are lost."""
    queue: asyncio.Queue[str] = asyncio.Queue(512)

    class Tail(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(f"[{record.levelname}] {record.getMessage()}")

    async def lines() -> AsyncIterator[str]:
        while True:
            yield await queue.get()

    tail = Tail(threshold)
    log.addHandler(tail)
    try:
        yield lines()
    finally:
        log.removeHandler(tail)


def _reported(report: KeyReport) -> _Body:
    return {
        "Keys": dict(report.keys),
        "Messages": dict(report.messages),
        "NumErr": report.failed,
        "NumNodes": report.members,
        "NumResp": report.answered,
        "PrimaryKeys": dict(report.primaries),
    }


def _wanted(row: _Body, wanted: list[str]) -> bool:
    """Whether a stream's filter asks for this: `*`, `user:deploy`, `member-join`, `query`."""
    kind = str(row["Event"])
    return any(want in ("*", kind, f"{kind}:{row.get('Name', '')!s}") for want in wanted)


def _whole(expression: str, value: str) -> bool:
    """Match a filter of the operator's own command; empty matches all."""
    try:
        return not expression or re.fullmatch(expression, value) is not None
    except re.error as error:
        raise _CommandError(f"expression {expression!r}: {error}") from error


def _list(value: object) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _CommandError(f"expected an array, got {type(value).__name__}")
    return value  # pyright: ignore[reportUnknownVariableType]


def _pairs(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _CommandError(f"expected a map, got {type(value).__name__}")
    pairs: dict[object, object] = value  # pyright: ignore[reportUnknownVariableType]
    return {text(key, "key"): text(item, "value") for key, item in pairs.items()}


_QUERY: Final = MessageLayout(
    QueryRequest,
    ("Name", TEXT),
    ("Payload", packed(_REQUEST_BYTES_MAX)),
    ("FilterNodes", FieldKind(lambda nodes, _: [text(node, "node") for node in _list(nodes)])),
    ("FilterTags", FieldKind(lambda tags, _: _pairs(tags))),
    ("RequestAck", FLAG),
    ("RelayFactor", integer(255)),
    ("Timeout", FieldKind(lambda value, name: number(value, U64_MAX, name) / 1e9)),
)
