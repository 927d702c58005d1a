"""The shell around the keeper's machine: one thread that waits for agents, children and deadlines."""

import contextlib
import json
import os
import selectors
import signal
import socket
import stat
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edge_agent.keeper import effects, events, machine, strays, wrapping
from edge_agent.keeper import request as requests
from edge_agent.keeper.guard import Guard, Outcome
from edge_agent.keeper.launch import LaunchError, Port, launch
from edge_agent.keeper.memory_kills import MemoryKills
from edge_agent.keeper.oom_score import JOB_SCORE
from edge_agent.keeper.record import ProcessRecord
from edge_agent.keeper.relay import Relay
from edge_agent.keeper.remains import Remains
from edge_agent.sandbox.group_counts import GroupCounts
from edge_agent.sandbox.group_folder import group_counts
from edge_agent.sandbox.plan import NO_PLAN, SandboxPlan
from shoal.protocol_version import KEEPER, Protocols

_PEER: Final = struct.Struct("=3i")  # pid, uid, gid; unix(7), SO_PEERCRED
_MAX_CLIENTS: Final = 16
_PATIENCE_SECONDS: Final = 3_600.0  # epoll takes no wait of 25 days, and a timeout may be longer
_MAX_UNSENT_PACKETS: Final = 4096
_RECORDS_A_PACKET: Final = 200
_SHUTDOWN_GRACE_SECONDS: Final = 3.0
_SHELL_SIGNAL: Final = 128
"""What a shell adds to the number of the signal that ended its last program, for a status of its own."""
_STRAYS_SECONDS: Final = 2.0
"""How long the end of an attempt waits for processes that were killed to be gone."""


@dataclass(slots=True, eq=False)
class _Client:
    connection: socket.socket
    watching: bool = False
    unsent: deque[tuple[bytes, tuple[int, ...]]] = field(
        default_factory=deque[tuple[bytes, tuple[int, ...]]]
    )


@dataclass(frozen=True, slots=True)
class _Ending:
    """An attempt whose leader has ended, and until when what it left behind is waited for."""

    outcome: Outcome
    give_up_at: float
    out_of_memory: bool
    not_begun: str
    counts: GroupCounts


@dataclass(eq=False)
class KeeperShell:
    """Serves one Unix socket until it is shut down or told to by SIGTERM.

    Args:
        socket_path: Absolute path of the socket; whatever is there is replaced.
        clock: Seconds on the machine's clock of leases, `edge_agent.keeper.boottime`.
        wall: Seconds since the epoch.
        log: Takes one line for people.
        instance: What no other keeper is called.
        version: That of the agent that started it.
        protocols: What it speaks; the agent decides whether it can work with that.
        memory_kills: Knows which programs the kernel ended.
    """

    socket_path: Path
    clock: Callable[[], float]
    wall: Callable[[], float]
    log: Callable[[str], None]
    instance: str
    version: str = ""
    protocols: Protocols = field(default_factory=lambda: KEEPER.said_by(""))
    memory_kills: MemoryKills = field(default_factory=MemoryKills)

    def __post_init__(self) -> None:
        self._machine = machine.KeeperMachine()
        self._ports: dict[str, Mapping[Port, int]] = {}
        # Children: the leaders of attempts, or their guards.
        self._by_pid: dict[int, str] = {}
        self._guards: dict[str, Guard] = {}
        self._marks = strays.Marks(str(self.socket_path))
        self._mark_of: dict[str, int] = {}
        self._helpers: set[str] = set()
        self._plans: dict[str, SandboxPlan] = {}
        # What bubblewrap writes its status to, and the path of its standard error.
        self._statuses: dict[str, tuple[int, str]] = {}
        self._ending: dict[str, _Ending] = {}
        self._relays: dict[int, tuple[str, Relay]] = {}
        self._clients: dict[socket.socket, _Client] = {}
        self._selector = selectors.DefaultSelector()
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._closing = False

    def run(self) -> None:
        """Serve until everything has ended after a shutdown."""
        listener = self._listen()
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(wake_read, selectors.EVENT_READ)
        self.log(f"keeper listens at {self.socket_path}, process {os.getpid()}")
        while not (self._closing and not (self._by_pid or self._relays or self._ending)):
            for key, mask in self._selector.select(self._patience()):
                if key.fileobj is listener:
                    self._accept(listener)
                elif key.fileobj == wake_read:
                    self._wake(os.read(wake_read, 4096))
                elif (client := self._clients.get(key.fileobj)) is not None:  # type: ignore[call-overload]
                    self._serve(client, mask)  # which what came before may have hung up
            if any(ending.give_up_at <= self.clock() for ending in self._ending.values()):
                self._sweep()
            self._act(self._machine.tick(self.clock()))
        listener.close()
        self.socket_path.unlink(missing_ok=True)
        self.log("keeper ends: nothing runs")

    def _listen(self) -> socket.socket:
        self.socket_path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        before = os.umask(0o177)
        try:
            listener.bind(str(self.socket_path))
        finally:
            os.umask(before)
        listener.listen(_MAX_CLIENTS)
        listener.setblocking(False)
        return listener

    def _patience(self) -> float | None:
        times = [ending.give_up_at for ending in self._ending.values()]
        deadline = self._machine.deadline()
        deadline = min(times if deadline is None else [*times, deadline], default=None)
        if deadline is None:
            return None
        return min(max(0.0, deadline - self.clock()), _PATIENCE_SECONDS)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            self.log(f"a connection was lost before it was taken: {error}")
            self._turn_away(listener)
            return
        uid = _user_of(connection)
        if uid not in {0, os.geteuid()}:
            self.log(f"refused a connection of user {uid}, who may not ask for anything")
            connection.close()
            return
        if len(self._clients) >= _MAX_CLIENTS:
            self.log(f"refused a connection: {_MAX_CLIENTS} are open already")
            connection.close()
            return
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * requests.MAX_PACKET_BYTES)
        self._clients[connection] = _Client(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def _turn_away(self, listener: socket.socket) -> None:
        """Without a descriptor to spare a connection cannot be taken, and would wake this loop for ever."""
        os.close(self._spare)
        with contextlib.suppress(OSError):
            listener.accept()[0].close()
        self._spare = os.open(os.devnull, os.O_RDONLY)

    def _wake(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._shut_down()
        self._reap()

    def _serve(self, client: _Client, mask: int) -> None:
        try:
            if mask & selectors.EVENT_WRITE:
                self._flush(client)
            if mask & selectors.EVENT_READ:
                packet, files, flags, _ = socket.recv_fds(
                    client.connection, requests.MAX_PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC
                )
                if files:
                    packet = _read_file(files)
                if not packet:
                    self._drop(client)
                elif flags & socket.MSG_TRUNC:
                    self._refuse(
                        client,
                        requests.BadRequestError(f"longer than {requests.MAX_PACKET_BYTES} bytes"),
                    )
                else:
                    self._answer(client, packet)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)

    def _answer(self, client: _Client, packet: bytes) -> None:
        try:
            request = requests.read_request(packet)
        except requests.BadRequestError as error:
            self._refuse(client, error)
            return
        try:
            self._obey(client, request)
        except (machine.UnknownAttemptError, LaunchError) as error:
            self._send(client, {"id": request.id, "error": str(error)})
        except Exception as error:  # noqa: BLE001 - one request fails, and every job of the board goes on
            self.log(f"{request!r} failed: {error!r}")
            self._send(client, {"id": request.id, "error": f"the keeper failed: {error!r}"})

    def _refuse(self, client: _Client, error: requests.BadRequestError) -> None:
        self._send(client, {"id": error.id, "error": f"bad request: {error}"})

    def _obey(self, client: _Client, request: requests.Request) -> None:
        reply: dict[str, object] = {"id": request.id}
        descriptors: tuple[int, ...] = ()
        match request:
            case requests.Start():
                reply["pid"] = self._start(request)
            case requests.Ports():
                if self._machine.record(request.attempt) is None:
                    raise machine.UnknownAttemptError(
                        f"the keeper has no attempt {request.attempt!r}"
                    )
                ports = self._ports.get(request.attempt, {})
                reply["ports"] = [port.name for port in ports]
                reply["directions"] = [port.direction for port in ports]
                descriptors = tuple(ports.values())
            case requests.Stop():
                self._handle(events.StopAsked(request.attempt, request.grace_seconds))
            case requests.Lease():
                self._handle(events.LeaseRenewed(request.attempt, request.lease_until))
            case requests.Forget():
                self._handle(events.ForgetAsked(request.attempt))
            case requests.List():
                self._send_records(client, request.id)
                return
            case requests.Watch():
                client.watching = True
                low, high = self.protocols.lowest, self.protocols.highest
                reply |= {
                    "instance": self.instance,
                    "version": self.version,
                    "protocols": [low, high],
                }
            case requests.Shutdown():
                self._shut_down()
        self._send(client, reply, descriptors)

    def _start(self, request: requests.Start) -> int:
        attempt = request.program.attempt
        known = self._machine.record(attempt)
        if known is not None:
            return known.pid
        if self._closing:
            raise LaunchError("the keeper is shutting down")
        env = dict(request.program.env)
        env[strays.KEEPER_VARIABLE] = strays.keeper_word(str(self.socket_path))
        plan = request.program.sandbox
        if plan == NO_PLAN and not request.helper:
            plan = SandboxPlan(oom_score=JOB_SCORE)
        self._refuse_shared_user(attempt, plan.uid)
        mark = self._marks.new()
        until = request.lease_until and request.lease_until + request.lease_grace_seconds
        self.memory_kills.begin(attempt)
        launched = launch(replace(request.program, env=env, sandbox=plan), mark, until)
        record = ProcessRecord(
            attempt=attempt,
            pid=launched.pid,
            helper=request.helper,
            start_time=self.wall(),
            made=request.made,
        )
        # Known before anything else is tried with it, or it could run on and no agent would know.
        guard = launched.guard
        self._by_pid[launched.pid if guard is None else guard.pid] = attempt
        self._mark_of[attempt] = mark
        self._plans[attempt] = plan
        if launched.status >= 0:
            self._statuses[attempt] = launched.status, request.program.stderr
        if guard is not None:
            self._guards[attempt] = guard
        if request.helper:
            self._helpers.add(attempt)
        self._ports[attempt] = launched.ports
        self._relays |= {relay.pid: (attempt, relay) for relay in launched.relays}
        started = events.Started(
            record,
            request.timeout_seconds,
            request.grace_seconds,
            request.lease_until,
            request.lease_grace_seconds,
            frozenset(relay.port for relay in launched.relays),
        )
        self._handle(started)
        return launched.pid

    def _refuse_shared_user(self, attempt: str, uid: int) -> None:
        """Two attempts of one user would reach each other, and the end of one would end both."""
        for other, plan in self._plans.items():
            if uid >= 0 and plan.uid == uid:
                raise LaunchError(
                    f"{attempt} cannot run as user {uid}: {other} does, and no two programs may share one"
                )

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
                # taken by another process, so killing the rest of the group hits no other.
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if found is None:
                break
            attempt = self._by_pid.pop(found.si_pid, None)
            if attempt is not None and attempt not in self._guards:
                with contextlib.suppress(OSError):
                    os.killpg(found.si_pid, signal.SIGKILL)
            os.waitid(os.P_PID, found.si_pid, os.WEXITED)
            exited = found.si_code == os.CLD_EXITED
            if attempt is not None:
                self._leader_ended(attempt, found.si_pid, exited, found.si_status)
            elif found.si_pid in self._relays:
                self._relay_ended(found.si_pid, found.si_status if exited else None)
        self._sweep()

    def _leader_ended(self, attempt: str, pid: int, exited: bool, status: int) -> None:  # noqa: FBT001 - the kernel's own pair
        give_up_at = self.clock() + _STRAYS_SECONDS
        guard = self._guards.pop(attempt, None)
        if guard is None:
            outcome = Outcome(status, None) if exited else Outcome(None, status)
        elif (said := guard.outcome()) is not None:
            outcome = said
        else:
            # Unguarded it may not run: as good as a lease that is not renewed.
            self.log(f"{attempt}: its guard was killed, so it is ended")
            outcome = Outcome(None, signal.SIGKILL, lease_ended=True)
        not_begun = ""
        if self._plans[attempt].wrap and outcome.exit_code is not None:
            if attempt in self._statuses:
                not_begun = wrapping.not_begun(*self._statuses[attempt])
            number = wrapping.ending_signal(outcome.exit_code)
            if number:
                outcome = replace(outcome, exit_code=None, signal=number)
        record = self._machine.record(attempt)
        killed = signal.SIGKILL in {outcome.signal, (outcome.exit_code or 0) - _SHELL_SIGNAL}
        # Read before anything of the group is killed: what is refused a process from then on says nothing.
        counts = group_counts(self._plans[attempt].kill)
        counted = counts.memory_kills is not None
        out_of_memory = self.memory_kills.ended(
            attempt, pid if record is None else record.pid, killed=killed and not counted
        )
        self._ending[attempt] = _Ending(outcome, give_up_at, out_of_memory, not_begun, counts)

    def _sweep(self) -> None:
        """End what attempts that are over left behind; an attempt is over once nothing is left of it."""
        running = set(self._by_pid.values())
        marks = {self._mark_of[attempt] for attempt in running}
        rest: dict[int, list[int]] = {}
        refused: dict[int, str] = {}
        for pid in strays.children(os.getpid()):
            if pid in self._by_pid or pid in self._relays or not strays.alive(pid):
                continue
            mark = strays.mark_of(pid)
            known = self._marks.ours(mark)
            if mark in marks or (not known and running - self._helpers):
                continue  # a daemon of a job that runs, or what may be one
            refused |= strays.end([pid, *strays.descendants(pid)])
            rest.setdefault(mark, []).append(pid)
        for attempt, ending in tuple(self._ending.items()):
            pids = rest.get(self._mark_of[attempt], [])
            pids += Remains.of(self._plans[attempt]).end()
            if not pids:
                self._over(attempt, ending, ending.outcome.left)
            elif set(pids) <= set(refused) or self.clock() >= ending.give_up_at:
                self._over(attempt, ending, strays.left(pids, refused))

    def _over(self, attempt: str, ending: _Ending, left: str) -> None:
        if left:
            self.log(f"{attempt}: {left}")
        del self._ending[attempt]
        del self._mark_of[attempt]
        del self._plans[attempt]
        if attempt in self._statuses:
            os.close(self._statuses.pop(attempt)[0])
        self._helpers.discard(attempt)
        outcome = ending.outcome
        self._handle(
            events.Ended(
                attempt,
                outcome.exit_code,
                outcome.signal,
                self.wall(),
                outcome.lease_ended,
                left,
                ending.out_of_memory,
                ending.not_begun,
                ending.counts,
            )
        )

    def _relay_ended(self, pid: int, exit_code: int | None) -> None:
        attempt, relay = self._relays.pop(pid)
        os.close(relay.control)
        self._handle(events.RelayEnded(attempt, relay.port, relay.problem(exit_code)))

    def _relays_of(self, attempt: str) -> list[Relay]:
        return [relay for owner, relay in self._relays.values() if owner == attempt]

    def _shut_down(self) -> None:
        if self._closing:
            return
        self._closing = True
        self.log(f"keeper shuts down and ends {len(self._by_pid)} processes")
        ending = {*self._by_pid.values(), *(attempt for attempt, _ in self._relays.values())}
        for attempt in ending:
            with contextlib.suppress(machine.UnknownAttemptError):
                self._handle(events.StopAsked(attempt, _SHUTDOWN_GRACE_SECONDS))

    def _handle(self, event: events.KeeperEvent) -> None:
        self._act(self._machine.handle(event, self.clock()))

    def _act(self, wanted: Sequence[effects.KeeperEffect]) -> None:
        for effect in wanted:
            match effect:
                case effects.SignalGroup():
                    self._signal(effect)
                case effects.RenewGuard():
                    if effect.attempt in self._guards:
                        self._guards[effect.attempt].renew(effect.until)
                case effects.FinishRelays():
                    for relay in self._relays_of(effect.attempt):
                        relay.program_ended()
                case effects.KillRelays():
                    for relay in self._relays_of(effect.attempt):
                        with contextlib.suppress(OSError):
                            os.kill(relay.pid, signal.SIGKILL)
                case effects.Announce():
                    for client in [c for c in self._clients.values() if c.watching]:
                        self._send(client, {"id": 0, "exited": effect.record.to_json()})
                case effects.Release():
                    for descriptor in self._ports.pop(effect.attempt, {}).values():
                        os.close(descriptor)

    def _signal(self, effect: effects.SignalGroup) -> None:
        if effect.attempt in self._ending:
            return  # the number of its group may be that of another by now
        try:
            if self._plans.get(effect.attempt, NO_PLAN).wrap:
                wrapping.signal_wrapped(effect.pid, effect.signal)
            else:
                os.killpg(effect.pid, effect.signal)
        except ProcessLookupError:
            pass
        except OSError as error:
            self._signal_refused(effect, error)
        guard = self._guards.get(effect.attempt)
        if guard is not None and effect.signal == signal.SIGKILL:
            guard.go_on()

    def _signal_refused(self, effect: effects.SignalGroup, error: OSError) -> None:
        """A program that changed its user is not ours to end: say so, and let everything else go on."""
        why = strays.left([effect.pid], {effect.pid: error.strerror or str(error)})
        self.log(f"{effect.attempt}: signal {effect.signal} was refused: {why}")
        if effect.signal != signal.SIGKILL:
            return
        self._handle(events.KillRefused(effect.attempt, why, self.wall()))
        record = self._machine.record(effect.attempt)
        if record is None or not record.running:
            # An orphan from now on, whose end is not reported.
            self._by_pid.pop(effect.pid, None)
            self._mark_of.pop(effect.attempt, None)
            self._plans.pop(effect.attempt, None)

    def _send(
        self, client: _Client, message: Mapping[str, object], descriptors: tuple[int, ...] = ()
    ) -> None:
        client.unsent.append((json.dumps(message).encode(), descriptors))
        if len(client.unsent) > _MAX_UNSENT_PACKETS:
            self.log("dropped an agent that does not read its answers")
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


def _read_file(descriptors: Sequence[int]) -> bytes:
    """The request in a file; what is none, or too long, is not JSON either."""
    try:
        if not stat.S_ISREG(os.fstat(descriptors[0]).st_mode):
            return b"no file"
        return os.pread(descriptors[0], requests.MAX_REQUEST_BYTES, 0) or b"an empty file"
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _user_of(connection: socket.socket) -> int:
    """The user whose process has connected, as the kernel noted it then."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return int(_PEER.unpack(found)[1])
