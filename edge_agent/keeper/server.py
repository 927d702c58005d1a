"""The shell around the keeper's machine: one thread that waits for agents, children and deadlines."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edge_agent.keeper import strays
from edge_agent.keeper.launch import LaunchError, Port, launch
from edge_agent.keeper.machine import (
    Announce,
    Effect,
    Ended,
    FinishRelays,
    ForgetAsked,
    KeeperMachine,
    KillRelays,
    LeaseRenewed,
    RelayEnded,
    Release,
    SignalGroup,
    Started,
    StopAsked,
    UnknownAttemptError,
)
from edge_agent.keeper.record import ProcessRecord
from edge_agent.keeper.relay import Relay
from edge_agent.keeper.request import (
    MAX_PACKET_BYTES,
    BadRequestError,
    Forget,
    Lease,
    List,
    Ports,
    Request,
    Shutdown,
    Start,
    Stop,
    Watch,
    read_request,
)

_MAX_CLIENTS: Final = 16
_PATIENCE_SECONDS: Final = 3_600.0  # epoll takes no wait of 25 days, and a timeout may be longer
_MAX_UNSENT_PACKETS: Final = 4096
_RECORDS_A_PACKET: Final = 200
_SHUTDOWN_GRACE_SECONDS: Final = 3.0


@dataclass(slots=True, eq=False)
class _Client:
    connection: socket.socket
    watching: bool = False
    unsent: deque[tuple[bytes, tuple[int, ...]]] = field(
        default_factory=deque[tuple[bytes, tuple[int, ...]]]
    )


class Keeper:
    """Serves one Unix socket until it is shut down or told to by SIGTERM.

    Args:
        socket_path: Absolute path of the socket; whatever is there is replaced.
        clock: Monotonic seconds.
        wall: Seconds since the epoch.
        log: Takes one line for people.
    """

    def __init__(
        self,
        socket_path: Path,
        clock: Callable[[], float],
        wall: Callable[[], float],
        log: Callable[[str], None],
    ) -> None:
        self._path = socket_path
        self._clock = clock
        self._wall = wall
        self._log = log
        self._machine = KeeperMachine()
        self._ports: dict[str, Mapping[Port, int]] = {}
        self._by_pid: dict[int, str] = {}
        self._relays: dict[int, tuple[str, Relay]] = {}
        self._clients: dict[socket.socket, _Client] = {}
        self._selector = selectors.DefaultSelector()
        self._closing = False
        self.refused_packets = 0

    def run(self) -> None:
        """Serve until everything has ended after a shutdown."""
        listener = self._listen()
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(wake_read, selectors.EVENT_READ)
        self._log(f"keeper listens at {self._path}, process {os.getpid()}")
        while not (self._closing and not self._by_pid and not self._relays):
            for key, mask in self._selector.select(self._patience()):
                if key.fileobj is listener:
                    self._accept(listener)
                elif key.fileobj == wake_read:
                    self._wake(os.read(wake_read, 4096))
                else:
                    self._serve(self._clients[key.fileobj], mask)  # type: ignore[index]
            self._act(self._machine.tick(self._clock()))
        listener.close()
        self._path.unlink(missing_ok=True)
        self._log("keeper ends: nothing runs")

    def _listen(self) -> socket.socket:
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        before = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(before)
        listener.listen(_MAX_CLIENTS)
        listener.setblocking(False)
        return listener

    def _patience(self) -> float | None:
        deadline = self._machine.deadline()
        if deadline is None:
            return None
        return min(max(0.0, deadline - self._clock()), _PATIENCE_SECONDS)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            self._log(f"a connection was lost before it was taken: {error}")
            return
        if len(self._clients) >= _MAX_CLIENTS:
            self._log(f"refused a connection: {_MAX_CLIENTS} are open already")
            connection.close()
            return
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MAX_PACKET_BYTES)
        self._clients[connection] = _Client(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def _wake(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._shut_down()
        self._reap()

    def _serve(self, client: _Client, mask: int) -> None:
        try:
            if mask & selectors.EVENT_WRITE:
                self._flush(client)
            if mask & selectors.EVENT_READ:
                packet, _, flags, _ = client.connection.recvmsg(MAX_PACKET_BYTES)
                if not packet:
                    self._drop(client)
                elif flags & socket.MSG_TRUNC:
                    self._refuse(client, BadRequestError(f"longer than {MAX_PACKET_BYTES} bytes"))
                else:
                    self._answer(client, packet)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)

    def _answer(self, client: _Client, packet: bytes) -> None:
        try:
            request = read_request(packet)
        except BadRequestError as error:
            self._refuse(client, error)
            return
        try:
            self._obey(client, request)
        except (UnknownAttemptError, LaunchError) as error:
            self._send(client, {"id": request.id, "error": str(error)})

    def _refuse(self, client: _Client, error: BadRequestError) -> None:
        self.refused_packets += 1
        self._send(client, {"id": error.id, "error": f"bad request: {error}"})

    def _obey(self, client: _Client, request: Request) -> None:
        now = self._clock()
        match request:
            case Start():
                self._send(client, {"id": request.id, "pid": self._start(request, now)})
            case Ports():
                if self._machine.record(request.attempt) is None:
                    raise UnknownAttemptError(f"the keeper has no attempt {request.attempt!r}")
                ports = self._ports.get(request.attempt, {})
                reply = {
                    "id": request.id,
                    "ports": [port.name for port in ports],
                    "directions": [port.direction for port in ports],
                }
                self._send(client, reply, tuple(ports.values()))
            case Stop():
                self._act(
                    self._machine.handle(StopAsked(request.attempt, request.grace_seconds), now)
                )
                self._send(client, {"id": request.id})
            case Lease():
                renewed = LeaseRenewed(request.attempt, request.lease_seconds)
                self._act(self._machine.handle(renewed, now))
                self._send(client, {"id": request.id})
            case Forget():
                self._act(self._machine.handle(ForgetAsked(request.attempt), now))
                self._send(client, {"id": request.id})
            case List():
                self._send_records(client, request.id)
            case Watch():
                client.watching = True
                self._send(client, {"id": request.id})
            case Shutdown():
                self._send(client, {"id": request.id})
                self._shut_down()

    def _start(self, request: Start, now: float) -> int:
        attempt = request.program.attempt
        known = self._machine.record(attempt)
        if known is not None:
            return known.pid
        if self._closing:
            raise LaunchError("the keeper is shutting down")
        env = dict(request.program.env)
        env[strays.KEEPER_VARIABLE] = str(self._path)
        env[strays.ATTEMPT_VARIABLE] = attempt
        launched = launch(replace(request.program, env=env))
        record = ProcessRecord(
            attempt=attempt, pid=launched.pid, helper=request.helper, start_time=self._wall()
        )
        self._by_pid[launched.pid] = attempt
        self._ports[attempt] = launched.ports
        self._relays |= {relay.pid: (attempt, relay) for relay in launched.relays}
        started = Started(
            record,
            request.timeout_seconds,
            request.grace_seconds,
            request.lease_seconds,
            frozenset(relay.port for relay in launched.relays),
        )
        self._act(self._machine.handle(started, now))
        return launched.pid

    def _send_records(self, client: _Client, request_id: int) -> None:
        records = [record.to_json() for record in self._machine.records()]
        rest = max(1, len(records))
        for first in range(0, rest, _RECORDS_A_PACKET):
            page = records[first : first + _RECORDS_A_PACKET]
            more = first + _RECORDS_A_PACKET < rest
            self._send(client, {"id": request_id, "attempts": page, "more": more})

    def _reap(self) -> None:
        while True:
            try:
                # Looked at before it is reaped: while the leader is a zombie its group's number cannot be
                # taken by anybody else, so killing the rest of the group hits nobody else.
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            attempt = self._by_pid.pop(found.si_pid, None)
            if attempt is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(found.si_pid, signal.SIGKILL)
            os.waitid(os.P_PID, found.si_pid, os.WEXITED)
            exited = found.si_code == os.CLD_EXITED
            if attempt is not None:
                strays.kill_stray_children(attempt)
                self._ended(attempt, exited, found.si_status)
            elif found.si_pid in self._relays:
                self._relay_ended(found.si_pid, found.si_status if exited else None)
            else:
                # An orphan; its own children are ours now.
                strays.kill_children_without(set(self._by_pid.values()))

    def _ended(self, attempt: str, exited: bool, status: int) -> None:  # noqa: FBT001 - the kernel's own pair
        event = Ended(attempt, status if exited else None, None if exited else status, self._wall())
        self._act(self._machine.handle(event, self._clock()))

    def _relay_ended(self, pid: int, exit_code: int | None) -> None:
        attempt, relay = self._relays.pop(pid)
        os.close(relay.control)
        event = RelayEnded(attempt, relay.port, relay.problem(exit_code))
        self._act(self._machine.handle(event, self._clock()))

    def _relays_of(self, attempt: str) -> list[Relay]:
        return [relay for owner, relay in self._relays.values() if owner == attempt]

    def _shut_down(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._log(f"keeper shuts down and ends {len(self._by_pid)} processes")
        ending = {*self._by_pid.values(), *(attempt for attempt, _ in self._relays.values())}
        for attempt in ending:
            with contextlib.suppress(UnknownAttemptError):
                self._act(
                    self._machine.handle(StopAsked(attempt, _SHUTDOWN_GRACE_SECONDS), self._clock())
                )

    def _act(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case SignalGroup():
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(effect.pid, effect.signal)
                case FinishRelays():
                    for relay in self._relays_of(effect.attempt):
                        relay.program_ended()
                case KillRelays():
                    for relay in self._relays_of(effect.attempt):
                        os.kill(relay.pid, signal.SIGKILL)
                case Announce():
                    for client in [c for c in self._clients.values() if c.watching]:
                        self._send(client, {"id": 0, "exited": effect.record.to_json()})
                case Release():
                    for descriptor in self._ports.pop(effect.attempt, {}).values():
                        os.close(descriptor)

    def _send(
        self, client: _Client, message: Mapping[str, object], descriptors: tuple[int, ...] = ()
    ) -> None:
        client.unsent.append((json.dumps(message).encode(), descriptors))
        if len(client.unsent) > _MAX_UNSENT_PACKETS:
            self._log("dropped an agent that does not read its answers")
            self._drop(client)
            return
        try:
            self._flush(client)
        except OSError:
            self._drop(client)

    def _flush(self, client: _Client) -> None:
        while client.unsent:
            packet, descriptors = client.unsent[0]
            try:
                socket.send_fds(client.connection, [packet], list(descriptors))
            except BlockingIOError:
                break
            client.unsent.popleft()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        if client.connection in self._clients:
            self._selector.modify(client.connection, wanted)

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.connection, None) is not None:
            self._selector.unregister(client.connection)
            client.connection.close()
