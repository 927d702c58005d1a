"""The agent's side of the keeper's socket.

Rule. A request waits for no other one's answer. What is in no hurry waits a moment for one that is. What is asked in
one turn of the loop is sent at its end, to a keeper that takes lists (protocol 3) in one packet, and what the keeper
tells of one of its turns comes in one packet, too. A single timer watches the answer that has been waited for longest.

Invariant. Requests reach the keeper in the order in which they were asked, and each is answered, refused, or fails with
`KeeperGoneError` within `_ANSWER_SECONDS`.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self, cast

from edge_agent.keeper.boottime import boottime
from edge_agent.keeper.launch import Port
from edge_agent.keeper.record import ProcessRecord
from edge_agent.keeper.request import IN_FILE, MAX_PACKET_BYTES, MAX_REQUEST_BYTES
from edge_agent.sandbox.plan import NO_PLAN, SandboxPlan
from edge_agent.sandbox.plan_json import plan_text
from shoal.protocol_version import BATCHES, KEEPER, SANDBOXES, Protocols

_ANSWER_SECONDS: Final = 10.0
_EXITS_KEPT: Final = 4096
_IDLE_SECONDS: Final = 0.02
"""How long what is in no hurry waits for another request that it can go along with."""
_encoded: Final = json.JSONEncoder(separators=(",", ":")).encode
_decoded: Final = json.JSONDecoder().decode


class KeeperError(Exception):
    """The keeper refused a request."""


class KeeperGoneError(KeeperError):
    """The keeper does not answer any more; with it went every process that it kept."""


@dataclass(frozen=True, slots=True)
class StartRequest:
    """A program to start; see `edge_agent.keeper.launch.Launch`. Seconds; 0 means no timeout, no lease.

    `lease_until` is a moment of `edge_agent.keeper.boottime`.
    """

    attempt: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path | str
    stdout: Path | str
    stderr: Path | str
    stdin: Path | str | None = None
    ports: Sequence[Port] = ()
    timeout_seconds: float = 0.0
    grace_seconds: float = 5.0
    lease_until: float = 0.0
    lease_grace_seconds: float = 0.0
    memory_bytes: int = 0
    open_files: int = 0
    made: str = ""
    sandbox: SandboxPlan = NO_PLAN


_Answer = asyncio.Future[Mapping[str, object]]
_NOBODY: Final[tuple[_Answer | None, float]] = None, 0.0


class KeeperClient:
    """One connection to the keeper; `async with` opens and closes it.

    Every request raises `KeeperError` when it is refused and `KeeperGoneError` when no keeper answers.
    """

    def __init__(self, socket_path: Path) -> None:
        self.version = ""
        """Of the keeper, once it is watched; empty where an earlier version does not say."""
        self.protocols: Protocols | None = None
        """What the keeper speaks, once it is watched; None from a build that does not say."""
        self._path = socket_path
        self._socket: socket.socket | None = None
        # What is not answered yet, each with when it is given up, oldest first.
        self._pending: dict[int, tuple[_Answer, float]] = {}
        # What a list has that goes on in another packet, by the request.
        self._pages: dict[int, list[object]] = {}
        self._next_id = 1
        self._exits: asyncio.Queue[ProcessRecord | None] = asyncio.Queue(_EXITS_KEPT)
        self._taker: Callable[[ProcessRecord], bool] | None = None
        # What is to be sent, each with the file that holds it, -1 for none.
        self._unsent: deque[tuple[bytes, int]] = deque()
        self._packs = self._knows_sandboxes = False
        # Whether `_flush` is going to be called.
        self._sending = False
        self._full = False
        self._watchdog: asyncio.TimerHandle | None = None
        self._idler: asyncio.TimerHandle | None = None
        self._buffer = bytearray(MAX_PACKET_BYTES)

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            KeeperGoneError: No keeper listens there.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MAX_PACKET_BYTES)
        try:
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            raise KeeperGoneError(f"no keeper answers at {self._path}: {error.strerror}") from error
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection.fileno(), self._readable)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hang up; the keeper and its processes go on."""
        self._hang_up("the connection was closed")

    async def start(self, request: StartRequest) -> int:
        """Start a job's program and return its process id; the same attempt is never started twice."""
        if not self._knows_sandboxes:
            await self._need_sandboxes(request.sandbox)
        answer = await self._ask(self._said("start", request), plan=request.sandbox)
        return cast("int", answer["pid"])

    def begin(self, request: StartRequest) -> asyncio.Future[Any]:
        """Ask for the same without waiting; the future is done once the program has begun."""
        if not self._knows_sandboxes:
            return asyncio.ensure_future(self.start(request))
        return self._ask(self._said("start", request), plan=request.sandbox)

    async def spawn(self, request: StartRequest) -> int:
        """Start a helper process that outlives the agent, and return its process id."""
        if not self._knows_sandboxes:
            await self._need_sandboxes(request.sandbox)
        answer = await self._ask(self._said("spawn", request), plan=request.sandbox)
        return cast("int", answer["pid"])

    async def stop(self, attempt: str, grace_seconds: float | None = None) -> None:
        """Ask for the end of a process group: SIGTERM, then SIGKILL after the grace; returns at once."""
        await self._ask({"op": "stop", "attempt": attempt, "grace_seconds": grace_seconds})

    async def renew_lease(self, attempt: str, until: float) -> None:
        """Let a program run until a moment of `edge_agent.keeper.boottime`, and no longer without another renewal."""
        await self._ask(
            {
                "op": "lease",
                "attempt": attempt,
                "lease_until": until,
                "lease_seconds": _as_seconds(until),
            }
        )

    async def forget(self, attempt: str) -> None:
        """Drop an attempt and kill what is left of it; not in a hurry."""
        await self._ask({"op": "forget", "attempt": attempt}, idle=True)

    def drop(self, attempt: str) -> None:
        """Ask for the same, and wait for no answer."""
        answer = self._ask({"op": "forget", "attempt": attempt}, idle=True)
        answer.add_done_callback(_unread)

    async def list(self) -> Sequence[ProcessRecord]:
        """Everything that the keeper remembers, helpers too, oldest first."""
        answer = await self._ask({"op": "list"})
        records = cast("list[Mapping[str, object]]", answer["attempts"])
        return [ProcessRecord.from_json(record) for record in records]

    async def watch(self) -> str:
        """Begin to hear ends; ask for `list` afterwards to learn of those before.

        Returns which keeper this is: no two processes of it are called the same. Empty where an
        earlier version does not say.
        """
        ours = KEEPER.said_by("")
        answer = await self._ask({"op": "watch", "protocols": [ours.lowest, ours.highest]})
        self.version = str(answer.get("version", ""))
        self.protocols = _protocols(answer.get("protocols"), self.version)
        known = 0 if self.protocols is None else self.protocols.highest
        self._packs, self._knows_sandboxes = known >= BATCHES, known >= SANDBOXES
        return str(answer.get("instance", ""))

    def listen(self, taker: Callable[[ProcessRecord], bool]) -> None:
        """Hand each end from now on to a taker first, which says whether it took it."""
        self._taker = taker

    async def exits(self) -> AsyncIterator[ProcessRecord]:
        """Every end since `watch` that no taker took, in order, until the keeper is gone."""
        while (record := await self._exits.get()) is not None:
            yield record

    async def shutdown(self) -> None:
        """End every process, then the keeper; returns at once."""
        await self._ask({"op": "shutdown"})

    def _said(self, op: str, request: StartRequest) -> dict[str, object]:
        """What a keeper is told of a program that it is to start."""
        said: dict[str, object] = {
            "op": op,
            "attempt": request.attempt,
            "argv": list(request.argv),
            "env": dict(request.env),
            "cwd": str(request.cwd),
            "stdout": str(request.stdout),
            "stderr": str(request.stderr),
            "timeout_seconds": request.timeout_seconds,
            "grace_seconds": request.grace_seconds,
        }
        # What is left out has its default.
        if request.stdin is not None:
            said["stdin"] = str(request.stdin)
        if request.ports:
            said["ports"] = [_port(port) for port in request.ports]
        if request.lease_until:
            said["lease_until"] = request.lease_until
            said["lease_grace_seconds"] = request.lease_grace_seconds
            said["lease_seconds"] = _as_seconds(request.lease_until)
        if request.memory_bytes or request.open_files:
            said["limits"] = {
                "memory_bytes": request.memory_bytes,
                "open_files": request.open_files,
            }
        if request.made:
            said["made"] = request.made
        return said

    async def _need_sandboxes(self, plan: SandboxPlan) -> None:
        """Refuse a keeper of before, which would start the program and leave out what is to be done before it."""
        # Alone, the order in which the kernel ends processes keeps no job from another.
        if replace(plan, oom_score=0) == NO_PLAN:
            return
        if self.protocols is None:
            await self.watch()
        if not self._knows_sandboxes:
            raise KeeperError(
                f"the keeper at {self._path} is of version {self.version or 'unknown'} and knows no sandbox: it is "
                "replaced once it keeps no program; to have that sooner, `shoal drain` the node"
            )

    def _ask(
        self, message: dict[str, object], *, idle: bool = False, plan: SandboxPlan = NO_PLAN
    ) -> _Answer:
        """Ask for something at the end of this turn, or `idle` along with another request; return what is answered.

        Args:
            message: what is asked for.
            idle: whether it waits for another request.
            plan: the sandbox of a program that is to be started.

        Raises:
            KeeperError: The request is too long.
            KeeperGoneError: No keeper is there.
        """
        if self._socket is None:
            raise KeeperGoneError(f"the keeper at {self._path} is gone")
        request_id = self._next_id
        self._next_id += 1
        message["id"] = request_id
        text = _encoded(message)
        if plan is not NO_PLAN:
            text = f'{text[:-1]},"sandbox":{plan_text(plan)}}}'
        packet = text.encode()
        file = -1
        if len(packet) > MAX_PACKET_BYTES:
            packet, file = self._in_file(packet, message["op"])
        self._unsent.append((packet, file))
        if not self._sending:
            if not idle:
                self._sending = True
                self._loop.call_soon(self._flush)
            elif self._idler is None:
                self._idler = self._loop.call_later(_IDLE_SECONDS, self._flush)
        give_up_at = self._loop.time() + _ANSWER_SECONDS
        if self._watchdog is None:
            self._watchdog = self._loop.call_at(give_up_at, self._watch_answers)
        answer: _Answer = self._loop.create_future()
        self._pending[request_id] = answer, give_up_at
        return answer

    def _in_file(self, packet: bytes, op: object) -> tuple[bytes, int]:
        """Return the packet that brings a long request in a file, and the file."""
        longest = MAX_REQUEST_BYTES if self._knows_sandboxes else MAX_PACKET_BYTES
        if len(packet) > longest:
            raise KeeperError(
                f"{op} takes {len(packet)} bytes, and the keeper reads at most "
                f"{longest}: shorten the command or its variables"
            )
        try:
            return _in_file(packet)
        except OSError as error:
            said = f"the keeper at {self._path} cannot be asked: {error!r}"
            raise KeeperGoneError(said) from error

    def _watch_answers(self) -> None:
        """Give up what was asked long ago; the first that is not late says when to look again, as the oldest one."""
        self._watchdog = None
        now = self._loop.time()
        while self._pending:
            request_id, (answer, give_up_at) = next(iter(self._pending.items()))
            if give_up_at > now:
                self._watchdog = self._loop.call_at(give_up_at, self._watch_answers)
                return
            del self._pending[request_id]
            self._pages.pop(request_id, None)
            self._fail(answer, f"no answer within {_ANSWER_SECONDS:g} s")

    def _fail(self, answer: _Answer, why: str) -> None:
        if not answer.done():
            said = f"the keeper at {self._path} does not answer: {why}"
            answer.set_exception(KeeperGoneError(said))

    def _flush(self) -> None:
        """Send what there is, now or once the socket takes it."""
        if self._idler is not None:
            self._idler.cancel()
            self._idler = None
        while self._socket is not None and self._unsent:
            count, packet = self._packed()
            file = self._unsent[0][1]
            try:
                if file >= 0:
                    socket.send_fds(self._socket, [packet], [file])
                else:
                    self._socket.send(packet)
            except BlockingIOError:
                if not self._full:
                    self._full = True
                    self._loop.add_writer(self._socket.fileno(), self._flush)
                return
            except OSError as error:
                self._hang_up(str(error))
                return
            for _ in range(count):
                self._unsent.popleft()
            if file >= 0:
                os.close(file)
        self._sending = False
        if self._full and self._socket is not None:
            self._full = False
            self._loop.remove_writer(self._socket.fileno())

    def _packed(self) -> tuple[int, bytes]:
        """As many requests as go into the next packet, and that packet."""
        size, packed = 0, list[bytes]()
        if self._packs and len(self._unsent) > 1:
            for packet, file in self._unsent:
                size += len(packet) + 1
                if file >= 0 or size >= MAX_PACKET_BYTES:
                    break
                packed.append(packet)
        if len(packed) <= 1:
            return 1, self._unsent[0][0]
        return len(packed), b"[" + b",".join(packed) + b"]"

    def _readable(self) -> None:
        if self._socket is None:
            return
        try:
            size = self._socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError as error:
            self._hang_up(str(error))
            return
        if not size:
            self._hang_up("the keeper hung up")
            return
        found: object = _decoded(str(memoryview(self._buffer)[:size], "utf-8"))
        messages = cast("list[object]", found) if isinstance(found, list) else [found]
        answered = False
        for one in messages:
            message = cast("dict[str, object]", one)
            if "exited" not in message:
                answered = True
                self._take(message)
            elif answered:
                # After what is done by the answers before it, which may be that its program has begun.
                self._loop.call_soon(self._take_end, message["exited"])
            else:
                self._take_end(message["exited"])

    def _take_end(self, exited: object) -> None:
        record = ProcessRecord.from_json(cast("Mapping[str, object]", exited))
        if self._taker is not None and self._taker(record):
            return
        try:
            self._exits.put_nowait(record)
        except asyncio.QueueFull:
            # The watcher has stopped listening; a new connection starts from `list`.
            self._hang_up(f"{_EXITS_KEPT} ends were not taken")

    def _take(self, message: Mapping[str, object]) -> None:
        request_id = cast("int", message["id"])
        if "attempts" in message and request_id in self._pending:
            pages = self._pages.setdefault(request_id, [])
            pages.extend(cast("list[object]", message["attempts"]))
            if message["more"]:
                return
            message = {**message, "attempts": self._pages.pop(request_id)}
        answer, _ = self._pending.pop(request_id, _NOBODY)
        if answer is None or answer.done():
            return  # its caller waits no longer
        if "error" in message:
            answer.set_exception(KeeperError(str(message["error"])))
        else:
            answer.set_result(message)

    def _hang_up(self, why: str) -> None:
        if self._socket is None:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._socket = None
        while self._unsent:
            _, file = self._unsent.popleft()
            if file >= 0:
                os.close(file)
        for timer in (self._watchdog, self._idler):
            if timer is not None:
                timer.cancel()
        for answer, _ in self._pending.values():
            self._fail(answer, why)
        self._pending.clear()
        self._pages.clear()
        if self._exits.full():
            self._exits.get_nowait()
        self._exits.put_nowait(None)


def _unread(answer: _Answer) -> None:
    """See the answer to a request without a caller that waits, or an error of it would be logged."""
    if not answer.cancelled():
        answer.exception()


def _in_file(request: bytes) -> tuple[bytes, int]:
    """The packet that brings a request in a file, and the file."""
    file = os.memfd_create("shoal-request")
    try:
        os.pwrite(file, request, 0)
    except OSError:
        os.close(file)
        raise
    return IN_FILE, file


def _protocols(said: object, version: str) -> Protocols | None:
    if said is None:
        return None
    lowest, highest = cast("list[int]", said)
    return Protocols(lowest, highest, version)


def _port(port: Port) -> Mapping[str, object]:
    place = {"path": port.path, "record_bytes": port.record_bytes} if port.path else {"fd": port.fd}
    return {"name": port.name, "direction": port.direction, **place}


async def ensure_keeper(
    socket_path: Path,
    log_path: Path,
    environ: Mapping[str, str] = MappingProxyType({}),
    version: str = "",
) -> None:
    """Make sure that a keeper answers at `socket_path`, starting one in a session of its own if none does.

    Cancelled before it answers, that one ends again: nothing runs under it yet, and the agent that ends
    could not ask it to.

    Args:
        socket_path: where it listens.
        log_path: where one that is started here writes its log.
        environ: all variables of one that is started here.
        version: what one that is started here says of itself.

    Raises:
        KeeperGoneError: None answered within the deadline; its log says why.
    """
    if await _answers(socket_path):
        return
    pid = _spawn_keeper(socket_path, log_path, environ, version)
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            while not await _answers(socket_path):  # noqa: ASYNC110 - see below
                await asyncio.sleep(0.02)  # another process: there is no event to wait for
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        raise
    except TimeoutError:
        raise KeeperGoneError(
            f"the keeper did not answer at {socket_path} within {_ANSWER_SECONDS} s: see {log_path}"
        ) from None


async def end_keeper(socket_path: Path, deadline_seconds: float) -> bool:
    """End a keeper with everything that it keeps; say whether there was one.

    Raises:
        TimeoutError: it did not end in time.
    """
    try:
        async with asyncio.timeout(deadline_seconds), KeeperClient(socket_path) as client:
            await client.watch()
            await client.shutdown()
            async for _ in client.exits():
                pass
    except KeeperError:
        return False
    return True


async def _answers(socket_path: Path) -> bool:
    with contextlib.suppress(KeeperError):
        async with KeeperClient(socket_path) as client:
            await client.list()
            return True
    return False


def _spawn_keeper(
    socket_path: Path, log_path: Path, environ: Mapping[str, str], version: str
) -> int:
    # A log that a full disk has no room for is no reason to have no keeper.
    words = ["--socket", str(socket_path.absolute()), "--version", version]
    try:
        return _spawn_keeper_logging_to(words, str(log_path), environ)
    except OSError:
        try:
            return _spawn_keeper_logging_to(words, os.devnull, environ)
        except OSError as error:
            said = f"no keeper can be started for {socket_path}: {error}"
            raise KeeperGoneError(said) from error


def _spawn_keeper_logging_to(arguments: Sequence[str], log: str, environ: Mapping[str, str]) -> int:
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    # A session of its own, so that what ends the agent's terminal or unit by group does not end the jobs.
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "edge_agent.keeper", *arguments],
        dict(environ),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, append, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, log, append, 0o600),
        ],
        setsid=True,
        setsigmask=(),
    )


def _as_seconds(until: float) -> float:
    """What a keeper of before understands, which outlives its agent and knows lengths of time alone."""
    return max(0.001, until - boottime()) if until else 0.0
