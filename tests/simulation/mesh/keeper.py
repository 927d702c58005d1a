"""The keeper of a board: the real machine, over programs, guards and a socket in memory.

What runs belongs to the board's kernel and not to the keeper: programs outlive a keeper that is
killed. What becomes of them is as `edge_agent/keeper` has it:

- A program with a lease has a guard, which ends it at its moment, also when agent and keeper are
  dead or stand still; without its keeper the guard ends it at once (SIGTERM, then SIGKILL).
- The others run on without anyone who knows them, until the next keeper begins: it ends them all,
  and the stream worker with them.
- The end of a program is news for the keeper that started it alone, and waits while that is frozen.

Requests are served one after the other, and each waits for the one before. FIFOs are given as any
other port, without a relay.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edge_agent.attempt_folder import parse_keeper_id
from edge_agent.keeper import effects, events, machine
from edge_agent.keeper.client import KeeperError, KeeperGoneError, StartRequest
from edge_agent.keeper.guard import GRACE_SECONDS
from edge_agent.keeper.record import ProcessRecord
from edge_agent.sandbox.group_counts import NO_COUNTS, GroupCounts
from services.streams.worker.keeper_ports import KeeperAwayError, KeeperRefusedError
from services.streams.worker.port_link import PortEnd, PortName
from shoal.names import AttemptRef
from shoal.protocol_version import KEEPER, Protocols
from tests.simulation.mesh.loop import VirtualLoop
from tests.simulation.mesh.network import LOCAL_SECONDS
from tests.simulation.mesh.port import WorkerEnd, port_pairs
from tests.simulation.mesh.process import Process
from tests.simulation.mesh.program import Program

if TYPE_CHECKING:
    from tests.simulation.mesh.board import Board

ANSWER_SECONDS = 10.0
"""How long an agent waits for an answer, as `edge_agent.keeper.client` does."""
BEGIN_SECONDS = 0.15
LAUNCH_SECONDS = 0.02
SHUTDOWN_GRACE_SECONDS = 3.0


class Guard:
    """Ends its program at a moment, unless that is moved on: the rules of `edge_agent.keeper.guard`.

    Args:
        board: whose clock counts.
        running: what it guards.
        until: the moment.
    """

    def __init__(self, board: Board, running: Running, until: float) -> None:
        self._board = board
        self._running = running
        self.until = until
        """On the board's clock of leases."""
        self.lease_ended = False
        self.process = Process(board.loop, f"{board.name}/guard-{running.attempt}", board.name)
        self.process.run(self._watch())

    def renew(self, until: float) -> None:
        """Let the program run until a moment; a guard looks at it when the one before has come."""
        earlier, self.until = until < self.until, until
        if earlier:
            self.process.spawn(self._watch())

    def keeper_gone(self) -> None:
        """Nobody learns how it ends and nobody could renew it: end it at once."""
        self.renew(min(self.until, self._board.clock() + GRACE_SECONDS))
        self.process.spawn(self._ask_to_end())

    async def _ask_to_end(self) -> None:
        self._running.signal(signal.SIGTERM)

    async def _watch(self) -> None:
        while (left := self.until - self._board.clock()) > 0:  # noqa: ASYNC110 - it may move on
            await asyncio.sleep(left)
        self.lease_ended = True
        self._running.signal(signal.SIGKILL)


@dataclass(slots=True, eq=False)
class Running:
    """A process of the kernel that a keeper has started: an attempt's program, or the stream worker."""

    pid: int
    attempt: str
    ref: AttemptRef | None
    began: float
    """When, on the loop's clock."""
    process: Process
    program: Program | None = None
    """None for the stream worker."""
    guard: Guard | None = None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self.program is not None:
            self.program.signal(number)
        else:
            self.process.kill()


class MemoryKeeper:
    """The keepers of one board, one after the other, and the processes that they have started.

    Args:
        board: where they run.
        make_program: makes a program.
    """

    def __init__(self, board: Board, make_program: Callable[..., Program] = Program) -> None:
        self._board = board
        self._make_program = make_program
        self._pid = 100
        self.running: dict[int, Running] = {}
        """Everything that runs now, by pid, whichever keeper has started it, if any is alive."""
        self.process: Process | None = None
        self._keepers = 0
        self.version = ""
        """Of the agent that started it."""
        self._closing = False
        self.path = Path("/board") / board.name / "keeper.sock"
        """In which what is on its way arrives: no process's."""
        self._machine = machine.KeeperMachine()
        self._listens = False
        self._inbox: deque[Callable[[], Any]] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._connections: dict[MemoryKeeperConnection, None] = {}
        self._mine: dict[int, str] = {}
        self._guards: dict[str, Guard] = {}
        self._ports: dict[str, Mapping[PortName, WorkerEnd]] = {}

    @property
    def alive(self) -> bool:
        """Whether the process of a keeper is there, frozen or not."""
        return self.process is not None and not self.process.dead

    def start(self) -> None:
        """Start a keeper's process; a second one ends at once, as the lock has it."""
        if self.alive:
            return
        self._machine = machine.KeeperMachine()
        self._keepers += 1
        self.version = self._board.version
        self._closing = False
        self._listens = False
        self._inbox.clear()
        self._mine.clear()
        self.process = Process(self._board.loop, f"{self._board.name}/keeper", self._board.name)
        self.process.on_end(self._gone)
        self.process.run(self._run())

    def kill(self) -> None:
        """SIGKILL of the keeper alone; see the module for what becomes of its programs."""
        if self.process is not None:
            self.process.kill()

    def _gone(self) -> None:
        """The kernel closes what a keeper had open."""
        if self.process is not None:
            self._board.ended(self.process)
        self._listens = False
        self._ports.clear()
        guards, self._guards = self._guards, {}
        for guard in guards.values():
            guard.keeper_gone()
        for connection in tuple(self._connections):
            connection.hang_up()

    def lose_power(self) -> None:
        """Everything ends, and nothing of it is told."""
        self._guards.clear()
        self._connections.clear()
        running, self.running = self.running, {}
        self.kill()
        for one in running.values():
            if one.guard is not None:
                one.guard.process.kill()
            one.signal(signal.SIGKILL)

    def processes(self) -> list[Process]:
        """Every process that is there: keeper, guards, programs, and the stream worker."""
        found = [] if self.process is None or self.process.dead else [self.process]
        for one in self.running.values():
            found.append(one.process)
            found += [] if one.guard is None else [one.guard.process]
        return found

    async def ensure(self) -> None:
        """See `KeeperDoor`."""
        if await self._answers():
            return
        self.start()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while not await self._answers():  # noqa: ASYNC110 - as the agent does it
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise KeeperGoneError(f"the keeper did not answer at {self.path}") from None

    def connect(self) -> MemoryKeeperConnection:
        """See `KeeperDoor`."""
        return MemoryKeeperConnection(self, self._board.loop)

    async def fetch(self, keeper_path: str, keeper_id: str) -> Mapping[PortName, PortEnd]:
        """Hand over the ends of the ports of an attempt, as `ports` does; see `PortSource`."""
        del keeper_path
        if self.process is None or not self._listens or self.process.frozen:
            raise KeeperAwayError(f"the keeper at {self.path} does not answer about {keeper_id}")
        if self._machine.record(keeper_id) is None:
            raise KeeperRefusedError(f"the keeper at {self.path} has no attempt {keeper_id!r}")
        return dict(self._ports.get(keeper_id, {}))

    # ---- the socket

    def join(self, connection: MemoryKeeperConnection) -> None:
        """Take a connection.

        Raises:
            KeeperGoneError: nobody listens.
        """
        if not self._listens:
            raise KeeperGoneError(f"no keeper answers at {self.path}: Connection refused")
        self._connections[connection] = None

    def leave(self, connection: MemoryKeeperConnection) -> None:
        """Let go of a connection."""
        self._connections.pop(connection, None)

    def ask(self, request: Callable[[], Any]) -> None:
        """Let a request arrive after the way of the socket."""
        keeper = self.process
        self.later(self._arrive, keeper, request)

    def later(self, what: Callable[..., object], *args: Any) -> None:
        """Let something happen once the socket has carried it."""
        self._board.network.later(LOCAL_SECONDS, what, *args)

    def _arrive(self, keeper: Process | None, request: Callable[[], Any]) -> None:
        if keeper is self.process and self.alive:
            self._inbox.append(request)
            if self._wake is not None and not self._wake.done():
                self._wake.set_result(None)

    async def _answers(self) -> bool:
        try:
            async with self.connect() as client:
                await client.list()
        except KeeperError:
            return False
        return True

    # ---- in its process

    async def _run(self) -> None:
        await asyncio.sleep(BEGIN_SECONDS * (0.3 + self._board.rng.random()))
        for one in tuple(self.running.values()):
            one.signal(signal.SIGKILL)
        self._listens = True
        while True:
            if self._inbox:
                answer = self._inbox.popleft()()
                if answer is not None:
                    await answer
            else:
                await self._wait()
            self._act(self._machine.tick(self._board.clock()))
            if self._closing and not self._mine:
                return

    def shut_down(self) -> None:
        """Do what `shutdown` asks for: end everything, then the keeper."""
        self._closing = True
        for attempt in tuple(self._mine.values()):
            self.handle(events.StopAsked(attempt, SHUTDOWN_GRACE_SECONDS))

    async def _wait(self) -> None:
        loop, deadline = self._board.loop, self._machine.deadline()
        self._wake = loop.create_future()
        if deadline is None:
            await self._wake
            return
        timer = loop.call_later(max(0.0, deadline - self._board.clock()), self._wake_up)
        await self._wake
        timer.cancel()

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def start_program(self, request: StartRequest, *, helper: bool) -> int:
        """Do what `start` and `spawn` ask for."""
        board, attempt = self._board, request.attempt
        known = self._machine.record(attempt)
        if known is not None:
            return known.pid
        if self._closing:
            raise KeeperError("the keeper is shutting down")
        await asyncio.sleep(LAUNCH_SECONDS * (0.2 + board.rng.random()))
        until = request.lease_until and request.lease_until + request.lease_grace_seconds
        if until and board.clock() >= until:
            raise KeeperError("its lease ran out before it was started")
        self._pid += 1
        pid = self._pid
        program: Program | None = None
        if helper:
            process = board.start_worker()
            process.on_end(lambda: self._exited(pid, 0, int(signal.SIGKILL)))
        else:
            names: list[PortName] = [(port.name, port.direction == "out") for port in request.ports]
            theirs, self._ports[attempt] = port_pairs(board.loop, names)

            def exited(status: int, number: int) -> None:
                self._exited(pid, status, number)

            program = self._make_program(
                board, request.argv, request.env, theirs, exited, host=board.name
            )
            process = program.process
        ref = None if helper else parse_keeper_id(attempt)
        running = Running(pid, attempt, ref, board.loop.time(), process, program)
        self.running[pid] = running
        self._mine[pid] = attempt
        if until:
            running.guard = self._guards[attempt] = Guard(board, running, until)
        record = ProcessRecord(
            attempt, pid, helper=helper, start_time=board.wall(), made=request.made
        )
        started = events.Started(
            record,
            request.timeout_seconds,
            request.grace_seconds,
            request.lease_until,
            request.lease_grace_seconds,
        )
        self.handle(started)
        return pid

    def handle(self, event: events.KeeperEvent) -> None:
        """Let the keeper decide about an event, and do what it decides."""
        self._act(self._machine.handle(event, self._board.clock()))

    def instance(self) -> str:
        """Which keeper this is."""
        return f"{self._board.name}-{self._keepers}"

    def records(self) -> Sequence[ProcessRecord]:
        """Do what `list` asks for."""
        return list(self._machine.records())

    def _exited(self, pid: int, status: int, number: int) -> None:
        """The kernel has seen an end: it tells the parent, that is the keeper or a guard of its."""
        running = self.running.pop(pid, None)
        if running is None:
            return  # it went with the power
        self._board.ended(running.process)
        guard = running.guard
        if running.program is not None:
            self._board.left(running.attempt, running.program.results())
        if guard is not None:
            guard.process.kill()
        if self._mine.pop(pid, None) is None:
            return  # the keeper that started it is gone
        lease_ended = guard is not None and guard.lease_ended
        keeper = self.process

        counts = NO_COUNTS if running.program is None else running.program.counts

        def leader_ended() -> None:
            self._leader_ended(running, status, number, lease_ended, counts)

        self.later(self._arrive, keeper, leader_ended)

    def _leader_ended(
        self,
        running: Running,
        status: int,
        number: int,
        lease_ended: bool,  # noqa: FBT001
        counts: GroupCounts,
    ) -> None:
        self._guards.pop(running.attempt, None)
        ended = events.Ended(
            running.attempt,
            None if number else status,
            number or None,
            self._board.wall(),
            lease_ended,
            counts=counts,
        )
        self.handle(ended)

    def _act(self, wanted: Sequence[effects.KeeperEffect]) -> None:
        for effect in wanted:
            match effect:
                case effects.SignalGroup():
                    running = self.running.get(effect.pid)
                    if running is not None:
                        running.signal(effect.signal)
                case effects.RenewGuard():
                    guard = self._guards.get(effect.attempt)
                    if guard is not None:
                        guard.renew(effect.until)
                case effects.Announce():
                    for connection in self._connections:
                        connection.announce(effect.record)
                case effects.Release():
                    self._ports.pop(effect.attempt, None)
                case effects.FinishRelays() | effects.KillRelays():
                    raise AssertionError("nothing here has a relay")


class MemoryKeeperConnection:
    """See `KeeperConnection` of the agent; `async with` opens it.

    Args:
        keeper: the other side.
        loop: the loop of the world.
    """

    def __init__(self, keeper: MemoryKeeper, loop: VirtualLoop) -> None:
        self._keeper = keeper
        self._loop = loop
        self._open = False
        self._version = ""
        self._watching = False
        self._pending: dict[asyncio.Future[Any], None] = {}
        self._exits: deque[ProcessRecord | None] = deque()
        self._news: asyncio.Future[None] | None = None
        self._taker: Callable[[ProcessRecord], bool] | None = None

    async def __aenter__(self) -> Self:
        self._keeper.join(self)
        self._open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._keeper.leave(self)
        self.hang_up()

    async def start(self, request: StartRequest) -> int:
        """See `KeeperConnection`."""
        return int(await self._ask(lambda: self._keeper.start_program(request, helper=False)))

    def begin(self, request: StartRequest) -> asyncio.Future[Any]:
        """See `KeeperConnection`."""
        return asyncio.ensure_future(self.start(request))

    async def spawn(self, request: StartRequest) -> int:
        """See `KeeperConnection`."""
        return int(await self._ask(lambda: self._keeper.start_program(request, helper=True)))

    async def stop(self, attempt: str, grace_seconds: float | None = None) -> None:
        """See `KeeperConnection`."""
        await self._ask(lambda: self._keeper.handle(events.StopAsked(attempt, grace_seconds)))

    @property
    def version(self) -> str:
        """See `KeeperConnection`."""
        return self._version

    @property
    def protocols(self) -> Protocols:
        """See `KeeperConnection`."""
        return KEEPER.said_by(self._version)

    async def shutdown(self) -> None:
        """See `KeeperConnection`."""
        await self._ask(self._keeper.shut_down)

    async def renew_lease(self, attempt: str, until: float) -> None:
        """See `KeeperConnection`."""
        await self._ask(lambda: self._keeper.handle(events.LeaseRenewed(attempt, until)))

    async def forget(self, attempt: str) -> None:
        """See `KeeperConnection`."""
        await self._ask(lambda: self._keeper.handle(events.ForgetAsked(attempt)))

    def drop(self, attempt: str) -> None:
        """See `KeeperConnection`."""
        if not self._open:
            raise KeeperGoneError("the keeper hung up")
        answer = self._loop.create_future()  # which nobody reads
        self._keeper.ask(
            lambda: self._serve(lambda: self._keeper.handle(events.ForgetAsked(attempt)), answer)
        )

    async def list(self) -> Sequence[ProcessRecord]:
        """See `KeeperConnection`."""
        records: Sequence[ProcessRecord] = await self._ask(self._keeper.records)
        return records

    async def watch(self) -> str:
        """See `KeeperConnection`."""

        def watch() -> str:
            self._watching = True
            self._version = self._keeper.version
            return self._keeper.instance()

        return str(await self._ask(watch))

    def listen(self, taker: Callable[[ProcessRecord], bool]) -> None:
        """See `KeeperConnection`."""
        self._taker = taker

    async def exits(self) -> AsyncIterator[ProcessRecord]:
        """See `KeeperConnection`."""
        while True:
            while self._exits:
                record = self._exits.popleft()
                if record is None:
                    return
                if self._taker is None or not self._taker(record):
                    yield record
            self._news = self._loop.create_future()
            await self._news

    def announce(self, record: ProcessRecord) -> None:
        """The keeper tells of an end."""
        if self._watching:
            self._keeper.later(self._hear, record)

    def hang_up(self) -> None:
        """The connection is gone, whoever ended it."""
        self._open = False
        for answer in self._pending:
            _resolve(answer, KeeperGoneError("the keeper hung up"))
        self._hear(None)

    def _hear(self, record: ProcessRecord | None) -> None:
        self._exits.append(record)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _ask(self, request: Callable[[], Any]) -> Any:
        if not self._open:
            raise KeeperGoneError("the keeper hung up")
        answer = self._loop.create_future()
        self._pending[answer] = None
        self._keeper.ask(lambda: self._serve(request, answer))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                said = await answer
        except TimeoutError as error:
            raise KeeperGoneError(f"the keeper at {self._keeper.path} does not answer") from error
        finally:
            self._pending.pop(answer, None)
        if isinstance(said, KeeperError):
            raise said
        return said

    async def _serve(self, request: Callable[[], Any], answer: asyncio.Future[Any]) -> None:
        """Run in the keeper's process."""
        try:
            said = request()
            if asyncio.iscoroutine(said):
                said = await said
        except machine.UnknownAttemptError as error:
            said = KeeperError(str(error))
        except KeeperError as error:
            said = error
        self._keeper.later(_resolve, answer, said)


def _resolve(answer: asyncio.Future[Any], said: Any) -> None:
    if not answer.done():
        answer.set_result(said)
