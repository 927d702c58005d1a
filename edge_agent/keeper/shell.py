"""The shell around the keeper's machine: one thread that waits for agents, children and deadlines.

Rule. What comes at once is done at once, and told at once. A turn of the loop takes the packets that wait, reaps all
that has ended, looks once for what those left behind, and then sends each agent what there is for it. So the costs of a
turn (waking up, looking at the children, sending) are shared by all the jobs in it. A turn that takes longer than
`_TURN_SECONDS` does both in between.

Invariant. What is done for each start, end and forgetting does not depend on how many programs run: the only list that
is as long as that is the kernel's of this process's children, which is read once a turn in which something has ended.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edge_agent.keeper import child, effects, events, machine, strays, wrapping
from edge_agent.keeper import request as requests
from edge_agent.keeper.agent_connection import AgentConnection, LongPacketError
from edge_agent.keeper.child import ChildEnd
from edge_agent.keeper.guard import Guard, Outcome
from edge_agent.keeper.launch import LaunchError, Port, launch
from edge_agent.keeper.memory_kills import MemoryKills
from edge_agent.keeper.oom_score import JOB_SCORE
from edge_agent.keeper.record import ProcessRecord
from edge_agent.keeper.relay import Relay
from edge_agent.keeper.remains import Remains
from edge_agent.keeper.starters import Starters
from edge_agent.sandbox.group_counts import NO_COUNTS, GroupCounts
from edge_agent.sandbox.group_folder import group_counts
from edge_agent.sandbox.plan import NO_PLAN, SandboxPlan
from shoal.protocol_version import BATCHES, KEEPER, Protocols

_MAX_CLIENTS: Final = 16
_PATIENCE_SECONDS: Final = 3_600.0  # epoll takes no wait of 25 days, and a timeout may be longer
_MAX_UNSENT: Final = 4096
_TURN_SECONDS: Final = 0.02
_TURN_PACKETS: Final = 16
"""How many packets of one agent are taken in a turn, before the ends of programs and other agents have theirs."""
_RECORDS_A_PACKET: Final = 200
_SHUTDOWN_GRACE_SECONDS: Final = 3.0
_SHELL_SIGNAL: Final = 128
"""What a shell adds to the number of the signal that ended its last program, for a status of its own."""
_STRAYS_SECONDS: Final = 2.0
"""How long the end of an attempt waits for processes that were killed to be gone."""
_KILLS_SECONDS: Final = 0.01
_NO_RELAYS: Final = frozenset[str]()
_JOB_PLAN: Final = SandboxPlan(oom_score=JOB_SCORE)
"""Of a program of which nothing else is said."""


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
    memory_kills: MemoryKills = field(
        default_factory=lambda: MemoryKills(fresh_seconds=_KILLS_SECONDS)
    )

    def __post_init__(self) -> None:
        self._machine = machine.KeeperMachine()
        self._ports: dict[str, Mapping[Port, int]] = {}
        # Children: the leaders of attempts, or their guards.
        self._by_pid: dict[int, str] = {}
        self._guards: dict[str, Guard] = {}
        self._marks = strays.Marks(str(self.socket_path))
        self._word = strays.keeper_word(str(self.socket_path))
        self._mark_of: dict[str, int] = {}
        self._helpers: set[str] = set()
        # Whether what only its mark tells may be left of a program: whatever no user of its own binds.
        self._loose = False
        self._plans: dict[str, SandboxPlan] = {}
        self._users: dict[int, str] = {}
        # What bubblewrap writes its status to, and the path of its standard error.
        self._statuses: dict[str, tuple[int, str]] = {}
        self._ending: dict[str, _Ending] = {}
        self._relays: dict[int, tuple[str, Relay]] = {}
        self._clients: dict[socket.socket, AgentConnection] = {}
        # Those that are to be told something at the end of this turn, and those that did not take all of it.
        self._told: dict[AgentConnection, None] = {}
        self._slow: set[AgentConnection] = set()
        self._turn_until = 0.0
        self._selector = selectors.DefaultSelector()
        self._starters = Starters(self._selector, f"shoal-starter {self.socket_path}", self.log)
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
            ready = self._selector.select(self._patience())
            self._turn_until = self.clock() + _TURN_SECONDS
            for key, mask in ready:
                if key.fileobj is listener:
                    self._accept(listener)
                elif key.fileobj == wake_read:
                    self._wake(os.read(wake_read, 4096))
                elif key.data is self._starters:
                    self._starters.hear(key.fd)
                elif (client := self._clients.get(key.fileobj)) is not None:  # type: ignore[call-overload]
                    self._serve(client, mask)  # which what came before may have hung up
            self._take_ends()
            self._starters.tick()
            now = self.clock()
            if self._ending and any(one.give_up_at <= now for one in self._ending.values()):
                self._sweep()
            self._act(self._machine.tick(now))
            self._flush()
        listener.close()
        self._starters.close()
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
        deadline = self._machine.deadline()
        if self._ending:
            times = [ending.give_up_at for ending in self._ending.values()]
            deadline = min(times if deadline is None else [*times, deadline])
        if (idle := self._starters.deadline()) is not None:
            idle += self.clock() - self._starters.clock()
            deadline = idle if deadline is None else min(idle, deadline)
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
        client = AgentConnection(connection)
        uid = client.user()
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
        self._clients[connection] = client
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

    def _serve(self, client: AgentConnection, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._told[client] = None
        if not mask & selectors.EVENT_READ:
            return
        try:
            for _ in range(_TURN_PACKETS):
                try:
                    packet = client.receive()
                except LongPacketError:
                    longer = f"longer than {requests.MAX_PACKET_BYTES} bytes"
                    self._refuse(client, requests.BadRequestError(longer))
                    continue
                if not packet:
                    client.flush()  # it may have closed only its own end
                    self._drop(client)
                    return
                self._answer(client, packet)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)

    def _answer(self, client: AgentConnection, packet: bytes) -> None:
        try:
            asked = requests.read_packet(packet)
        except requests.BadRequestError as error:
            asked = (error,)
        for request in asked:
            if self.clock() >= self._turn_until:
                # So much at once, on so slow a machine, that neither answers nor ends can wait for all of it.
                self._reap()
                self._flush()
                self._turn_until = self.clock() + _TURN_SECONDS
            if isinstance(request, requests.BadRequestError):
                self._refuse(client, request)
                continue
            try:
                self._obey(client, request)
            except (machine.UnknownAttemptError, LaunchError) as error:
                self._send(client, {"id": request.id, "error": str(error)})
            except Exception as error:  # noqa: BLE001 - one request fails, and every job of the board goes on
                self.log(f"{request!r} failed: {error!r}")
                self._send(client, {"id": request.id, "error": f"the keeper failed: {error!r}"})

    def _refuse(self, client: AgentConnection, error: requests.BadRequestError) -> None:
        self._send(client, {"id": error.id, "error": f"bad request: {error}"})

    def _obey(self, client: AgentConnection, request: requests.Request) -> None:
        reply: dict[str, object] = {"id": request.id}
        descriptors: tuple[int, ...] = ()
        match request:
            case requests.Start():
                self._tell(client, b'{"id": %d, "pid": %d}' % (request.id, self._start(request)))
                return
            case requests.Forget():
                self._handle(events.ForgetAsked(request.attempt))
                self._tell(client, b'{"id": %d}' % request.id)
                return
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
            case requests.List():
                self._send_records(client, request.id)
                return
            case requests.Watch():
                client.watching = True
                client.packs = min(request.highest, self.protocols.highest) >= BATCHES
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
        env = {**request.program.env, strays.KEEPER_VARIABLE: self._word}
        plan = request.program.sandbox
        if not plan.oom_score and plan == NO_PLAN and not request.helper:
            plan = _JOB_PLAN
        self._refuse_shared_user(attempt, plan.uid)
        mark = self._marks.new()
        until = request.lease_until and request.lease_until + request.lease_grace_seconds
        self.memory_kills.begin(attempt)
        try:
            launched = launch(
                request.program, mark, until, env=env, plan=plan, starters=self._starters
            )
        except LaunchError:
            self.memory_kills.ended(attempt, 0, killed=False)
            raise
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
        self._loose = self._loose or not Remains.of(plan).bound
        if plan.uid >= 0:
            self._users[plan.uid] = attempt
        if launched.status >= 0:
            self._statuses[attempt] = launched.status, request.program.stderr
        if guard is not None:
            self._guards[attempt] = guard
        if request.helper:
            self._helpers.add(attempt)
        if launched.ports:
            self._ports[attempt] = launched.ports
        for relay in launched.relays:
            self._relays[relay.pid] = attempt, relay
        started = events.Started(
            record,
            request.timeout_seconds,
            request.grace_seconds,
            request.lease_until,
            request.lease_grace_seconds,
            frozenset([relay.port for relay in launched.relays]) if launched.relays else _NO_RELAYS,
        )
        self._handle(started)
        return launched.pid

    def _refuse_shared_user(self, attempt: str, uid: int) -> None:
        """Two attempts of one user would reach each other, and the end of one would end both."""
        other = self._users.get(uid)
        if other is not None:
            raise LaunchError(
                f"{attempt} cannot run as user {uid}: {other} does, and no two programs may share one"
            )

    def _send_records(self, client: AgentConnection, request_id: int) -> None:
        records = [record.to_json() for record in self._machine.records()]
        rest = max(1, len(records))
        for first in range(0, rest, _RECORDS_A_PACKET):
            page = records[first : first + _RECORDS_A_PACKET]
            more = first + _RECORDS_A_PACKET < rest
            self._send(client, {"id": request_id, "attempts": page, "more": more})

    def _take_ends(self) -> None:
        """Take the ends of programs that starters have told, and which they reap."""
        told = False
        for end in self._starters.ended():
            attempt = self._by_pid.pop(end.pid, None)
            if attempt is None:
                continue
            told = True
            self._leader_ended(attempt, end)
            # All that such a program has started has its user, so none has to be looked for among the children.
            if not Remains.of(self._plans[attempt]).end():
                self._over(attempt, self._ending[attempt], "")
        if told and (self._ending or (self._loose and self._idle())):
            self._sweep()

    def _reap(self) -> None:
        self._starters.look()
        ended = False
        while (end := child.next_end()) is not None:
            ended = True
            attempt = self._by_pid.pop(end.pid, None)
            if attempt is not None and attempt not in self._guards:
                child.signal_group(end.pid, signal.SIGKILL)
            child.reap(end.pid)
            self._starters.reaped(end.pid)
            if attempt is not None:
                self._leader_ended(attempt, end)
            elif end.pid in self._relays:
                self._relay_ended(end.pid, end.status if end.exited else None)
        if ended or self._ending:
            self._sweep()

    def _leader_ended(self, attempt: str, end: ChildEnd) -> None:
        give_up_at = self.clock() + _STRAYS_SECONDS
        guard = self._guards.pop(attempt, None)
        if guard is None:
            outcome = Outcome(end.status, None) if end.exited else Outcome(None, end.status)
        elif (said := guard.outcome()) is not None:
            outcome = said
        else:
            # Unguarded it may not run: as good as a lease that is not renewed.
            self.log(f"{attempt}: its guard was killed, so it is ended")
            outcome = Outcome(None, signal.SIGKILL, lease_ended=True)
        not_begun = ""
        plan = self._plans[attempt]
        if plan.wrap and outcome.exit_code is not None:
            if attempt in self._statuses:
                not_begun = wrapping.not_begun(*self._statuses[attempt])
            number = wrapping.ending_signal(outcome.exit_code)
            if number:
                outcome = replace(outcome, exit_code=None, signal=number)
        record = self._machine.record(attempt)
        killed = signal.SIGKILL in {outcome.signal, (outcome.exit_code or 0) - _SHELL_SIGNAL}
        # Read before anything of the group is killed: what is refused a process from then on says nothing.
        # Of a program that went well nothing needs explaining.
        counts = group_counts(plan.kill) if plan.kill and outcome.exit_code != 0 else NO_COUNTS
        counted = counts.memory_kills is not None
        out_of_memory = self.memory_kills.ended(
            attempt, end.pid if record is None else record.pid, killed=killed and not counted
        )
        self._ending[attempt] = _Ending(outcome, give_up_at, out_of_memory, not_begun, counts)

    def _sweep(self) -> None:
        """End what attempts that are over left behind; an attempt is over once nothing is left of it."""
        rest: dict[int, list[int]] = {}
        refused: dict[int, str] = {}
        others = [
            pid
            for pid in strays.children(os.getpid())
            if pid not in self._by_pid
            and pid not in self._relays
            and pid not in self._starters.pids
        ]
        if others:
            self._end_strays(others, rest, refused)
        for attempt, ending in tuple(self._ending.items()):
            pids = rest.get(self._mark_of[attempt], [])
            plan = self._plans[attempt]
            if plan.kill or plan.uid > 0:
                pids += Remains.of(plan).end()
            if not pids:
                self._over(attempt, ending, ending.outcome.left)
            elif set(pids) <= set(refused) or self.clock() >= ending.give_up_at:
                self._over(attempt, ending, strays.left(pids, refused))
        self._loose = self._loose and not self._idle()

    def _idle(self) -> bool:
        """Whether no job runs, so that no stray can be one's."""
        return len(self._by_pid) <= len(self._helpers)

    def _end_strays(
        self, others: Sequence[int], rest: dict[int, list[int]], refused: dict[int, str]
    ) -> None:
        """End children that are none of what was started, but for those of a job that runs; sort them by their mark."""
        running = set(self._by_pid.values())
        marks = {self._mark_of[attempt] for attempt in running}
        for pid in others:
            if not strays.alive(pid):
                continue
            mark = strays.mark_of(pid)
            known = self._marks.ours(mark)
            if mark in marks or (not known and running - self._helpers):
                continue  # a daemon of a job that runs, or what may be one
            refused |= strays.end([pid, *strays.descendants(pid)])
            rest.setdefault(mark, []).append(pid)

    def _over(self, attempt: str, ending: _Ending, left: str) -> None:
        if left:
            self.log(f"{attempt}: {left}")
        del self._ending[attempt]
        del self._mark_of[attempt]
        self._users.pop(self._plans.pop(attempt).uid, None)
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
                    said = json.dumps({"id": 0, "exited": effect.record.to_json()}).encode()
                    for client in [c for c in self._clients.values() if c.watching]:
                        self._tell(client, said)
                case effects.Release():
                    for descriptor in self._ports.pop(effect.attempt, {}).values():
                        os.close(descriptor)

    def _signal(self, effect: effects.SignalGroup) -> None:
        if effect.attempt in self._ending:
            return  # the number of its group may be that of another by now
        try:
            if self._plans.get(effect.attempt, NO_PLAN).wrap:
                wrapping.signal_wrapped(effect.pid, effect.signal)
            elif not self._starters.signal(effect.pid, effect.signal):
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
            self._users.pop(self._plans.pop(effect.attempt, NO_PLAN).uid, None)

    def _send(
        self,
        client: AgentConnection,
        message: Mapping[str, object],
        descriptors: tuple[int, ...] = (),
    ) -> None:
        self._tell(client, json.dumps(message).encode(), descriptors)

    def _tell(
        self, client: AgentConnection, message: bytes, descriptors: tuple[int, ...] = ()
    ) -> None:
        """Have it told at the end of this turn; descriptors at once, since they may be closed by then."""
        client.tell(message, descriptors)
        self._told[client] = None
        if descriptors:
            self._flush()
        if client.waiting > _MAX_UNSENT:
            self.log("dropped an agent that does not read its answers")
            self._drop(client)

    def _flush(self) -> None:
        """Tell every agent what there is for it."""
        while self._told:
            client, _ = self._told.popitem()
            if client.socket not in self._clients:
                continue
            try:
                slow = not client.flush()
            except OSError:
                self._drop(client)
                continue
            if slow != (client in self._slow):
                (self._slow.add if slow else self._slow.discard)(client)
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if slow else 0)
                self._selector.modify(client.socket, wanted)

    def _drop(self, client: AgentConnection) -> None:
        self._slow.discard(client)
        if self._clients.pop(client.socket, None) is not None:
            self._selector.unregister(client.socket)
            client.socket.close()
