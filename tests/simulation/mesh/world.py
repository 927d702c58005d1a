"""One history of the whole mesh: users, faults, healing, and what has to be so at its end.

Everything random comes from one seed. Controller, agents, keepers, stream workers, members and
outbox are the real ones, on links in memory; the world does to them what a field of boards does,
heals, and requires that everything comes to its end. `ledger.py` has the invariants.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import traceback
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from random import Random
from typing import Any, TypeVar

import grpc

from control.core.answers import Refusal, Submission, SubmitResult
from control.core.errors import ControlError, UnknownPipelineError
from control.core.hydration import records
from control.core.machine import ControlMachine
from control.core.pipeline_query import PipelineQuery
from control.core.presence import Presence
from control.core.standing import Standing
from control.core.state import PipelineRecord
from control.core.views import pipeline_view
from control.front.control_plane import ControlPlane
from control.front.pipeline_counts import PipelineCounts
from control.leader.plane_config import PlaneConfig
from control.store import statements
from control.store.pipeline_page import page
from edge_agent.attempts.events import Acknowledged, DesiredChanged
from services.streams.machine import AttemptStreamsMachine
from services.streams.worker.port_link import PortName
from shoal.backoff import Backoff
from shoal.model import Capacity, JobState, MemberState, PipelineState
from shoal.names import AttemptRef, PipelineRef, parse_attempt
from shoal.pipeline_filter import EVERY_PIPELINE, PipelineFilter
from shoal.spec import Pipeline, Placement
from shoal.v1.streams_service_pb2 import PullAck, PullRequest
from shoal.view import PipelineView
from tests.simulation.mesh import pinned, stream_check
from tests.simulation.mesh import story as stories
from tests.simulation.mesh.archive import MemoryArchive
from tests.simulation.mesh.board import Board
from tests.simulation.mesh.broker import MemoryBroker
from tests.simulation.mesh.control_watch import ControlWatch
from tests.simulation.mesh.controller import Controller
from tests.simulation.mesh.keeper import Running
from tests.simulation.mesh.lane_watch import LaneWatch
from tests.simulation.mesh.ledger import Ledger, Trace
from tests.simulation.mesh.loop import VirtualLoop
from tests.simulation.mesh.membership import Membership
from tests.simulation.mesh.network import Link, Network
from tests.simulation.mesh.port import ProgramEnd
from tests.simulation.mesh.process import Process
from tests.simulation.mesh.program import Program
from tests.simulation.mesh.stream_shape import Shape
from tests.simulation.mesh.stream_worker import LIMITS

ValueT = TypeVar("ValueT")

ASK_SECONDS = 3.0
SETTLE_SECONDS = 400.0
LATE_STEPS = 60
CAPACITY_SLACK = 1e-6
OPEN = tuple(state for state in PipelineState if not state.terminal)
LOOK_SECONDS = 0.02
QUEUE_PAGE = 2
NEWS_PAUSE = Backoff(0.5, 8.0, jitter=0.0)


class MistakeError(AssertionError):
    """A process met something that its own code did not expect."""


class UnsettledError(AssertionError):
    """Invariant 10: some time after everything was healed, not everything has come to its end."""


@dataclass(slots=True)
class Outcome:
    """What one history was like; `problem` is empty if nothing was wrong."""

    seed: int
    trace: str = ""
    problem: str = ""
    callbacks: int = 0
    seconds: float = 0.0
    """Virtual ones."""
    losses: int = 0
    counts: dict[str, int] = field(default_factory=dict[str, int])
    """How often each fault was done, and what else happened."""
    lines: list[str] = field(default_factory=list[str])


class World:
    """A controller, its boards, archive and broker.

    Args:
        seed: decides everything.
        faults: what may go wrong.
        given: the shape of the only pipeline; drawn if it is None.
        frame: of the history; drawn if it is None.
        lines: whether the trace is kept, and not its checksum alone.
    """

    def __init__(
        self,
        seed: int,
        faults: stories.Faults,
        *,
        given: Shape | None = None,
        frame: stories.Story | None = None,
        lines: bool = False,
    ) -> None:
        self.seed = seed
        self.faults = faults
        self.rng = Random(seed)
        draw = stories.story if given is None else stories.stream_story
        self.story: stories.Story = frame or draw(self.rng)
        self.given = None if given is None else stories.streaming(self.rng, given)
        self.loop = VirtualLoop()
        self.trace = Trace(self.loop.time, lines=[] if lines else None)
        self.ledger = Ledger(self.trace, broken=self.fail, look=self._look)
        self.counts: dict[str, int] = {}
        self.failure: BaseException | None = None
        self.over: asyncio.Future[None] = self.loop.create_future()
        self.network = Network(self.loop, Random(self.rng.random()))
        self.membership = (
            Membership(self.loop, self.network, Random(self.rng.random()))
            if self.story.gossips
            else None
        )
        self.archive = MemoryArchive(Random(self.rng.random()), self.ledger.stored)
        pinned.stock(self.archive)
        self.broker = MemoryBroker(Random(self.rng.random()), self.ledger.event_arrived)
        usual = faults is stories.SHORT_CUTS
        self.config = PlaneConfig(
            lease_seconds=stories.USUAL_LEASE_SECONDS if usual else self.story.lease_seconds,
            heartbeat_seconds=1.0 if usual else self.story.lease_seconds / 6,
            queue_page=QUEUE_PAGE,
            news_pause=NEWS_PAUSE,
            unplaced_seconds=1.5,
            still_seconds=1.0,
        )
        self.controller = Controller(
            self.loop,
            self.network,
            self.archive,
            self.broker,
            Random(self.rng.random()),
            config=self.config,
            recorded=self.ledger.record,
            let_go=self.ledger.marked_published,
            membership=self.membership,
            watch=ControlWatch(self.ledger.fail),
        )
        self._lanes = LaneWatch(
            self.ledger.specs, lambda job: job in self.ledger.committed, self.ledger.fail
        )
        self.boards = [self._make_board(f"node-{index + 1}") for index in range(self.story.boards)]
        self.programs: list[tuple[AttemptRef, Program]] = []
        """Every program that ever began, in order."""
        self.machines: dict[AttemptStreamsMachine, AttemptRef] = {}
        """Every machine of streams that was seen."""
        self.faulty = True
        self.dead: Board | None = None
        """A board that never comes back."""
        self._submitted: dict[str, stories.Submitted] = {}
        self._shapes: dict[PipelineRef, Shape] = {}
        self._users: set[asyncio.Task[Any]] = set()

    # ---- living

    async def live(self) -> None:
        """Live through the history.

        Raises:
            BrokenError: an invariant does not hold.
            UnsettledError: not everything came to its end.
        """
        lottery = self._begin()
        await asyncio.sleep(self.story.seconds)
        lottery.cancel()
        self._heal()
        await self._settle()
        self._check_end()

    def _begin(self) -> asyncio.Task[None]:
        """Start everything; the task draws faults."""
        self.controller.start()
        for board in self.boards:
            board.boot()
        for _ in range(self.story.pipelines):
            self.user(self._submit())
        if self.given is not None:
            self.user(self._keep_looking())
        return self.user(self._lottery())

    def user(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let something go on beside the world; what it raises ends the history."""
        task = self.loop.create_task(work)
        self._users.add(task)
        task.add_done_callback(self._user_done)
        return task

    def _user_done(self, task: asyncio.Task[None]) -> None:
        self._users.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def _crashed(self) -> None:
        """Look whether a process ended that was not told to."""
        for board in self.boards:
            for name, error in board.crashes:
                raise MistakeError(f"{name} ended by itself") from error
        process = self.controller.process
        if process is not None and process.failure is not None:
            raise MistakeError("the controller ended by itself") from process.failure

    def fail(self, error: BaseException) -> None:
        """End the history with an error."""
        if self.failure is None:
            self.failure = error
        if not self.over.done():
            self.over.set_exception(error)

    def count(self, what: str) -> None:
        """Count something that happened."""
        self.counts[what] = self.counts.get(what, 0) + 1

    # ---- boards

    def _make_board(self, name: str) -> Board:
        board = Board(
            self.loop,
            self.network,
            self.archive,
            Random(self.rng.random()),
            name,
            capacity=Capacity(self.story.cpus or self.rng.choice((1.0, 2.0)), 8 << 30),
            gossip=self.membership is not None or self.given is not None,
            make_program=self._begin_program,
        )
        board.worker.lanes = self._lanes
        board.on_agent = lambda process: self._agent_began(board, process)
        return board

    def _agent_began(self, board: Board, process: Process) -> None:
        """Let an agent gossip, and look at what it is told."""
        self.trace.note("agent", board.name, board.agents)
        if board.shell is not None:
            driver = board.shell._attempts_driver
            driver.machine = _Watched(driver.machine, partial(self._agent_takes, board))
        if self.membership is not None:
            member = self.membership.join(process, lambda _name, _state: None, board.agents)
            process.spawn(member.run())

    def _agent_takes(self, board: Board, event: object) -> None:
        """An agent takes an event: what it is told has to be recorded."""
        del board
        if isinstance(event, Acknowledged):
            self.ledger.acknowledged(event.ref, event.state)
        elif isinstance(event, DesiredChanged):
            self.ledger.told(event.desired)

    def _begin_program(
        self,
        board: Board,
        argv: Sequence[str],
        environ: Mapping[str, str],
        ports: Mapping[PortName, ProgramEnd],
        exited: Callable[[int, int], None],
        *,
        host: str,
    ) -> Program:
        """Make a program, unless it may not run now."""
        ref = _attempt(environ)
        spec = self.ledger.specs[ref.job_ref.pipeline_ref]
        placement = spec.job(environ["SHOAL_JOB"]).placement
        others: list[tuple[AttemptRef, str]] = []
        if placement is Placement.AT_MOST_ONE_RUNNING:
            others = [
                (one.ref, each.name)
                for each in self.boards
                for one in each.programs
                if one.ref is not None and one.ref.job_ref == ref.job_ref and self._lives(one)
            ]

        def ended(status: int, number: int) -> None:
            self.ledger.ends(ref, host, (status, number))
            exited(status, number)
            late = self.faulty and self.faults.late_crash
            if late and not (status or number) and self.rng.random() < late:
                self.count("late_crash")
                delay = self.rng.uniform(0.0, 0.01)
                self.network.later(delay, board.kill_worker)

        disk = f"disk {board.disks} of {board.name}"
        self.ledger.begins(ref, host, board.boots, others, disk=disk)
        program = Program(board, argv, environ, ports, ended, host=host)
        self.programs.append((ref, program))
        return program

    @staticmethod
    def _lives(running: Running) -> bool:
        """Whether a program runs now; one that stands still with its whole board does nothing."""
        return not (running.process.dead or running.process.frozen)

    # ---- users

    async def _ask(self, make: Callable[[ControlPlane], Awaitable[ValueT]]) -> ValueT | None:
        """Ask the controller as a client does; None if there was no answer, or a refusal."""
        process, plane = self.controller.process, self.controller.plane
        if process is None or plane is None:
            return None
        answer: asyncio.Future[ValueT | None] = self.loop.create_future()

        async def asking() -> None:
            value: ValueT | None = None
            try:
                value = await make(plane)
            except ControlError as error:
                self.trace.note("refused", type(error).__name__)
            except Exception as error:  # noqa: BLE001 - a mistake of the controller's
                self.fail(error)
            if not answer.done():
                answer.set_result(value)

        process.spawn(asking())
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await answer
        except TimeoutError:
            return None

    async def _submit(self) -> None:
        """Submit something new, or something old again, until the answer has come."""
        rng = self.rng
        if self._submitted and rng.random() < 0.2:
            key = rng.choice(sorted(self._submitted))
        else:
            key = f"key-{len(self._submitted) + 1}"
            self._submitted[key] = self.given or stories.submission(rng, self.faults)
            self.count(f"submit {self._submitted[key].spec.name}")
        one = self._submitted[key]
        told = False
        while not told:
            taken = await self._ask(lambda plane: self._taken(plane, key, one))
            # Now and then the answer is lost on its way, and the user asks again.
            told = taken is True and rng.random() < 0.9
            await asyncio.sleep(0.5)

    async def _taken(self, plane: ControlPlane, key: str, one: stories.Submitted) -> bool:
        (answer,) = await plane.submit(
            [Submission("default", key, one.spec, listings=pinned.listings(one.spec))]
        )
        if isinstance(answer, Refusal):
            raise TypeError(f"a good pipeline was refused: {answer}")
        result: SubmitResult = answer
        ref = PipelineRef(result.view.namespace, result.view.id)
        self.ledger.answered(key, one.spec, ref, repeated=result.repeated)
        if one.shape is not None:
            self._shapes[ref] = one.shape
        return True

    def _some_pipeline(self) -> tuple[Pipeline, PipelineRef] | None:
        if not self.ledger.promised:
            return None
        return self.ledger.promised[self.rng.choice(sorted(self.ledger.promised))]

    async def cancel(self, _: float) -> None:
        """A user cancels a pipeline."""
        if (found := self._some_pipeline()) is not None:
            await self._ask(lambda plane: plane.cancel(found[1], "changed my mind"))

    async def finish(self, _: float) -> None:
        """A user has a pipeline finish."""
        if (found := self._some_pipeline()) is not None:
            await self._ask(lambda plane: plane.finish(found[1]))

    async def scale(self, _: float) -> None:
        """A user changes the replicas of a job in the middle."""
        found = self._some_pipeline()
        if found is None or found[0].name not in {"spread", "given"}:
            return
        job = "map"
        if self.given is not None and self.given.shape is not None:
            job = self.rng.choice([one.name for one in self.given.shape.jobs if one.plain])
        replicas = self.rng.choice((1, 2, 3) if self.given is None else (1, 2, 3, 4))
        await self._ask(lambda plane: plane.scale(found[1], job, replicas))

    async def _drain(
        self, board: Board, *, drained: bool, move_seconds: float | None = None
    ) -> None:
        await self._ask(
            lambda plane: plane.drain(board.name, drained=drained, move_seconds=move_seconds)
        )

    # ---- faults

    async def _lottery(self) -> None:
        """Draw one fault after the other."""
        rng, faults = self.rng, self.faults
        # A history that has all faults has little of each, so every one has its own taste.
        taste = {
            name: rng.choice((0.0, 1.0, 1.0, 4.0)) for name in _LOTS if name not in _STREAM_LOTS
        }
        drawn = [name for name in _LOTS if getattr(faults, name)]
        names = [name for name in drawn if taste.get(name, 1.0)] or drawn
        weights = [getattr(faults, name) * (taste.get(name) or 1.0) for name in names]
        while self.given is not None and not self.programs:  # noqa: ASYNC110 - the world's own
            await asyncio.sleep(LOOK_SECONDS)
        while self.faulty:
            await asyncio.sleep(rng.expovariate(1 / faults.every_seconds))
            (name,) = rng.choices(names, weights)
            self.count(name)
            self.trace.note("fault", name)
            self.user(getattr(self, name)(rng.uniform(0.1, faults.down_seconds)))

    async def _down(
        self, seconds: float, begin: Callable[[], object], end: Callable[[], object]
    ) -> None:
        """Do something, and take it back after a while."""
        begin()
        await asyncio.sleep(seconds)
        if self.faulty:
            end()

    def _host(self) -> str:
        return self.rng.choice(("controller", *(board.name for board in self.boards)))

    def _pair(self) -> tuple[str, str]:
        """Two hosts that speak to each other; mostly a board and its controller."""
        boards = [board.name for board in self.boards]
        if self.rng.random() < 0.6:
            return self.rng.choice(boards), "controller"
        one, other = self.rng.sample(boards, 2)
        return one, other

    async def cut(self, seconds: float) -> None:
        """Nothing passes between two hosts."""
        await self.apart(*self._pair(), seconds)

    async def apart(self, one: str, other: str, seconds: float) -> None:
        """Let nothing pass between two hosts for a while."""
        await self._down(
            seconds,
            lambda: self.network.cut_both_ways(one, other),
            lambda: self.network.heal_both_ways(one, other),
        )

    async def cut_one_way(self, seconds: float) -> None:
        """Nothing passes from one host to another."""
        pair = self._pair()
        one, other = pair if self.rng.random() < 0.5 else pair[::-1]
        await self._down(
            seconds, lambda: self.network.cut(one, other), lambda: self.network.heal(one, other)
        )

    async def tear(self, _: float) -> None:
        """Every connection between two hosts is reset."""
        self.network.tear(*self._pair())

    async def _be(
        self, seconds: float, owner: object, value: object, *names: str, usual: object = 0.0
    ) -> None:
        """Give attributes another value for a while."""

        def be(value: object) -> None:
            for name in names:
                setattr(owner, name, value)

        await self._down(seconds, lambda: be(value), lambda: be(usual))

    async def slow(self, seconds: float) -> None:
        """Every link is slow."""
        await self._be(seconds, self.network, self.rng.uniform(10, 100), "slow", usual=1.0)

    async def lossy(self, seconds: float) -> None:
        """Datagrams are lost and doubled."""
        if self.membership is not None:
            part = self.rng.uniform(0.05, 0.4)
            await self._be(seconds, self.membership.weather, part, "loss", "duplication")

    def _board(self) -> Board:
        return self.rng.choice(self.boards)

    async def agent_crash(self, seconds: float) -> None:
        """SIGKILL to an agent."""
        board = self._board()
        await self._down(seconds, board.kill_agent, board.start_agent)

    async def worker_crash(self, _: float) -> None:
        """SIGKILL to a stream worker; its agent starts another."""
        self._board().kill_worker()

    async def keeper_crash(self, _: float) -> None:
        """SIGKILL to a keeper; its agent starts another."""
        self._board().kill_keeper()

    async def powerless(self, board: Board, seconds: float, *, lose_unsynced: bool = True) -> None:
        """A board loses its power, and writes that were on their way."""
        await self._down(seconds, lambda: board.power_off(lose_unsynced=lose_unsynced), board.boot)

    async def power_cut(self, seconds: float) -> None:
        """A board loses its power, and writes that were on their way."""
        await self.powerless(self._board(), seconds)

    async def power_cut_synced(self, seconds: float) -> None:
        """A board loses its power just after its writes were done."""
        await self.powerless(self._board(), seconds, lose_unsynced=False)

    async def disk_lost(self, seconds: float) -> None:
        """A board loses its power, and comes back with an empty disk."""
        board = self._board()

        def begin() -> None:
            board.power_off(lose_unsynced=True)
            board.lose_disk()

        await self._down(seconds, begin, board.boot)

    async def agent_freeze(self, seconds: float) -> None:
        """SIGSTOP to an agent."""
        board = self._board()
        await self._down(seconds, partial(_freeze, board.agent), partial(_thaw, board.agent))

    async def worker_freeze(self, seconds: float) -> None:
        """SIGSTOP to a stream worker."""
        board = self._board()
        await self._down(
            seconds, partial(_freeze, board.worker.process), partial(_thaw, board.worker.process)
        )

    async def board_freeze(self, seconds: float) -> None:
        """A whole board stands still."""
        board = self._board()
        await self._down(seconds, board.freeze, board.thaw)

    async def controller_crash(self, seconds: float) -> None:
        """SIGKILL to the controller."""
        await self._down(min(seconds, 4.0), self.controller.kill, self.controller.start)

    async def controller_freeze(self, seconds: float) -> None:
        """SIGSTOP to the controller, or a pause of its whole machine."""
        process = self.controller.process
        if process is None:
            return
        if self.faults.controller_suspends:
            await self._down(seconds, lambda: self._suspend(process), lambda: self._resume(process))
            return
        await self._down(seconds, process.freeze, process.thaw)
        process.thaw()

    def _suspend(self, process: Process) -> None:
        """The controller's machine stands still: what is sent to it meanwhile is lost."""
        process.freeze()
        for board in self.boards:
            self.network.cut(board.name, "controller")

    def _resume(self, process: Process) -> None:
        process.thaw()
        for board in self.boards:
            self.network.heal(board.name, "controller")

    async def rumour(self, seconds: float) -> None:
        """A board that works is cut off from its controller, and gossip takes it for dead."""
        board = self._board()

        def begin() -> None:
            self.network.cut_both_ways(board.name, "controller")
            self.network.tear(board.name, "controller")
            self._gossip(board, MemberState.DEAD)

        def end() -> None:
            self.network.heal_both_ways(board.name, "controller")
            self._gossip(board, MemberState.ALIVE)

        await self._down(seconds, begin, end)

    def _gossip(self, board: Board, state: MemberState) -> None:
        if self.controller.plane is not None:
            self.controller.plane.member_verdict(board.name, state)

    async def clock_jump(self, _: float) -> None:
        """A wall clock is set, by up to an hour."""
        skew = self.rng.uniform(-3600, 3600)
        if self.rng.random() < 0.5:
            self.controller.skew_seconds = skew
        else:
            self._board().skew_seconds = skew

    async def store_fails(self, seconds: float) -> None:
        """The controller's disk is broken for a while."""
        await self._be(min(seconds, 3.0), self.controller.store, True, "fails")

    async def archive_errors(self, seconds: float) -> None:
        """Requests to the object store fail, and some of them have been done."""
        await self._be(seconds, self.archive, self.rng.uniform(0.1, 0.6), "errors")

    async def archive_away(self, seconds: float) -> None:
        """The object store does not answer."""
        await self._be(seconds, self.archive, True, "away")

    async def broker_drop(self, _: float) -> None:
        """The broker ends its connections."""
        self.broker.drop()

    async def broker_away(self, seconds: float) -> None:
        """The broker is away."""
        await self._down(seconds, self.broker.stop, self.broker.start)

    async def drain(self, _: float) -> None:
        """An operator drains a node, or takes it back, and has one forgotten if it is gone."""
        board = self._board()
        drained = self.rng.random() < 0.5
        # What is moved begins anew, which is a loss to a history that may have none.
        moves = drained and not self.faults.nothing_is_lost and self.rng.random() < 0.7
        seconds = self.rng.choice((0.0, 0.0, 1.0, 10.0)) if moves else None
        await self._drain(board, drained=drained, move_seconds=seconds)
        await self._ask(lambda plane: plane.forget_node(board.name))

    async def submit(self, _: float) -> None:
        """A user submits."""
        await self._submit()

    async def nothing(self, _: float) -> None:
        """All is well."""

    async def program_crash(self, _: float) -> None:
        """SIGKILL to a program, as from a kernel without memory."""
        running = [one for board in self.boards for one in board.programs if self._lives(one)]
        if running:
            self.rng.choice(running).signal(signal.SIGKILL)

    def _calls(self) -> list[Link]:
        """Draw half of the calls between boards."""
        hosts = {board.name for board in self.boards}
        return [
            link
            for link in self.network.links
            if link.client.host != link.server.host
            and hosts.issuperset((link.client.host, link.server.host))
            and self.rng.random() < 0.5
        ]

    async def tear_some(self, _: float) -> None:
        """Some calls between boards are reset."""
        for link in self._calls():
            link.end(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")

    async def lie(self, _: float) -> None:
        """On some calls it is said that their consumers are done, as only the controller may."""
        for link in self._calls():
            self.count("lies")
            link.up.push(PullRequest(ack=PullAck(done=True)))

    async def flip(self, seconds: float) -> None:
        """Of the messages between boards one in a hundred has another bit."""

        def be(part: float) -> None:
            for board in self.boards:
                board.worker.flips = part

        await self._down(seconds, lambda: be(0.01), lambda: be(0.0))

    # ---- healing

    def _heal(self) -> None:
        """Everything works from now on."""
        self.faulty = False
        self.trace.note("heals")
        network = self.network
        network.slow = 1.0
        for source, target in tuple(network.cuts):
            network.heal(source, target)
        if self.membership is not None:
            self.membership.weather.loss = self.membership.weather.duplication = 0.0
        self.archive.away, self.archive.errors = False, 0.0
        self.broker.start()
        self.controller.store.fails = False
        for board in self.boards:
            board.worker.flips = 0.0
        if self.controller.process is not None:
            self.controller.process.thaw()
        self.controller.start()
        if self.rng.random() < self.faults.board_dies:
            self.dead = self._board()
            self.count("board dies")
        for board in self.boards:
            board.thaw()
            if board is self.dead:
                board.power_off(lose_unsynced=True)
            else:
                board.boot()
                board.start_agent()
                self._gossip(board, MemberState.ALIVE)

    async def _settle(self) -> None:
        """Wait for the end of everything; users help where only they can."""
        loop = self.loop
        end = loop.time() + SETTLE_SECONDS
        step = 0
        while not self._settled():
            if loop.time() > end:
                raise UnsettledError(self._unsettled())
            await asyncio.sleep(1.0)
            self._crashed()
            if step % 5 == 0:
                for board in self.boards:
                    await self._drain(board, drained=False)
                for view in self._open_pipelines():
                    await self._help(view, late=step > LATE_STEPS)
            step += 1

    async def _help(self, view: PipelineView, *, late: bool) -> None:
        """Finish what would never end; give up what has no room since a node is gone for good."""
        ref = PipelineRef(view.namespace, view.id)
        shape = self._shapes.get(ref)
        if shape is not None and any(job.records == stories.ENDLESS for job in shape.jobs):
            await self._ask(lambda plane: plane.finish(ref))
        pinned = any(job.placement is Placement.PINNED for job in view.spec.jobs)
        waits = any(job.state is JobState.QUEUED for job in view.jobs)
        if self.dead is not None and (pinned or (late and waits)):
            await self._ask(lambda plane: plane.cancel(ref, "its node is gone"))
        elif late and _crowded_out(view):
            # A known limit: nothing makes room on the node that a job is pinned to.
            await self._ask(lambda plane: plane.cancel(ref, "its node has no room for it"))

    def _open_pipelines(self) -> list[PipelineView]:
        plane = self.controller.plane
        if plane is None:
            return []
        found: list[PipelineView] = []
        for ref in self._recorded(OPEN):
            with contextlib.suppress(UnknownPipelineError):  # recorded, and about to be shown
                found.append(plane.shown.pipeline(ref))
        return found

    def _recorded(self, states: Collection[PipelineState]) -> list[PipelineRef]:
        """The pipelines in the store in any of these states, newest first."""
        connection = self.controller.store.connection
        query = PipelineQuery("default", PipelineFilter(states=frozenset(states)))
        return [ref for _, ref in page(connection, query, 1000, None).found]

    def _settled(self) -> bool:
        plane = self.controller.plane
        return (
            plane is not None
            and plane.leader.machine is not None
            and all(key in self.ledger.promised for key in self._submitted)
            and not self._recorded(OPEN)
            and all(ref in self.ledger.finals for ref in self.ledger.specs)
            and all(
                not board.programs and not board.journal.records
                for board in self.boards
                if board is not self.dead
            )
            and not self._mistold()
            and not statements.outbox(self.controller.store.connection, 0, 1)
        )

    def _mistold(self) -> list[str]:
        """What was told of a board last, and is not so any more."""
        wrong: list[str] = []
        for board in self.boards:
            row = self.ledger.newest("", f"nodes/{board.name}")
            told = json.loads(row.data)["presence"] if row is not None else "nothing"
            # One that a person had forgotten was told of, and the controller does not know it either.
            gone: set[str] = {Presence.DOWN, Presence.LEFT}
            if not self._known(board):
                gone.add("nothing")
            if told not in (gone if board is self.dead else {Presence.UP}):
                wrong.append(f"{board.name} is told to be {told}")
        return wrong

    def _known(self, board: Board) -> bool:
        """Whether the controller has ever seen a board."""
        plane = self.controller.plane
        machine = None if plane is None else plane.leader.machine
        return machine is None or board.name in machine.cluster.nodes

    def _unsettled(self) -> str:
        lines = [f"10: not settled {SETTLE_SECONDS:g} s after healing:"]
        for view in self._open_pipelines():
            lines.append(f"pipeline {view.id} is {view.state.name}")
            lines += [
                f"  {job.name} {job.state.name} on {job.node or '-'}: {job.waiting_for} {job.reason.message}"
                for job in view.jobs
                if not job.state.terminal
            ]
        lines += [
            f"{board.name}{' (dead)' if board is self.dead else ''} runs "
            f"{[one.attempt for one in board.programs]}, knows "
            f"{[(one.ref.name, one.ref.epoch, one.phase) for one in board.records.values()]}"
            for board in self.boards
        ]
        lines += self._mistold()
        rows = statements.outbox(self.controller.store.connection, 0, 100)
        lines += [f"outbox has {len(rows)} rows, first {row.id}" for row in rows[:1]]
        return "\n".join(lines)

    def _check_end(self) -> None:
        """Everything has ended: look at it whole."""
        self._crashed()
        ledger, plane = self.ledger, self.controller.plane
        assert plane is not None
        machine = plane.leader.machine
        assert machine is not None
        found = statements.find(
            self.controller.store.connection, self._recorded(tuple(PipelineState))
        )
        recorded = {one.ref: one for one in records(found.rows, machine.cluster)}
        views = {ref: pipeline_view(one) for ref, one in recorded.items()}
        for key, (spec, ref) in ledger.promised.items():
            view = views[ref]
            ledger.check(view.spec == spec, "1:", key, "was promised another specification")
        for ref, event in ledger.finals.items():
            ledger.check(
                event in ledger.arrived, "6: the final event of", ref.name, "never arrived"
            )
        for view in views.values():
            for job in view.jobs:
                done = job.state is JobState.SUCCEEDED
                commit = next((one for one in ledger.committed if one.name == job.name), None)
                ledger.check(
                    done == (commit is not None), "2:", job.name, job.state.name, "and", commit
                )
                epochs = [attempt.epoch for attempt in job.attempts]
                ledger.check(epochs == sorted(set(epochs)), "3: epochs of", job.name, epochs)
        ledger.check_final_events()
        ledger.check_nothing_lost()
        ledger.check_updates()
        self._check_reloaded(plane)
        self._check_counts(plane, views)
        for row in (*ledger.committed.values(), *ledger.salvaged.values()):
            ledger.check(
                f"{row.key}" in self.archive.objects, "7: the manifest", row.key, "is not there"
            )
        for ref, shape in self._shapes.items():
            self._check_streams(ref, shape, recorded[ref])
        self._check_boards()

    def _check_reloaded(self, plane: ControlPlane) -> None:
        """A controller that started now would know what this one knows."""
        loaded = statements.load(self.controller.store.connection, self.config.pipelines_open_max)
        again = ControlMachine(
            self.config, loaded, self.loop.time(), wall=self.controller.wall, ids="x".__mul__
        )
        known = {} if plane.leader.machine is None else plane.leader.machine.cluster.pipelines
        again.memory.learn(statements.find(self.controller.store.connection, list(known)))
        for ref, pipeline in known.items():
            same = again.cluster.pipelines[ref]
            self.ledger.check(same.row() == pipeline.row(), "1: the store has another", ref.name)
            for name, job in pipeline.jobs.items():
                self.ledger.check(
                    same.jobs[name].row() == job.row(), "1: the store has another", job.ref.name
                )

    def _check_counts(self, plane: ControlPlane, views: Mapping[PipelineRef, PipelineView]) -> None:
        """What was counted as pipelines changed is what there is, now and for a controller that started now."""
        stand = {ref: Standing.of(view) for ref, view in views.items()}
        loaded = statements.load(self.controller.store.connection, 1)
        self.ledger.check(loaded.standings == stand, "1: the store sums up", loaded.standings)
        counted = plane.shown.counted("default")
        there = PipelineCounts(stand).totals("default", EVERY_PIPELINE)
        self.ledger.check(counted == there, "1: counted are", counted, "there are", there)

    def _check_streams(self, pipeline: PipelineRef, shape: Shape, record: PipelineRecord) -> None:
        programs: dict[str, list[tuple[AttemptRef, Program]]] = {}
        for ref, program in self.programs:
            if ref.job_ref.pipeline_ref == pipeline:
                programs.setdefault(ref.job, []).append((ref, program))
        now = self.loop.time()
        told = stream_check.Told(
            shape,
            record,
            programs,
            {
                job.job: row.attempt
                for job, row in self.ledger.committed.items()
                if job.pipeline_ref == pipeline
            },
            next((n for job, n in self.ledger.cuts.items() if job.pipeline_ref == pipeline), None),
            [
                one
                for machine, ref in self.machines.items()
                if ref.job_ref.pipeline_ref == pipeline
                for one in machine.counters(now)
            ],
        )
        found = list(stream_check.problems(told))
        self.ledger.check(not found, "streams of", pipeline.name, found[:3])
        self.counts["dropped"] = sum(one.dropped for one in told.counters)

    def _check_boards(self) -> None:
        """Nothing is left of streams, and none broke but by a bit that was changed."""
        flipped = sum(board.worker.flipped for board in self.boards)
        now = self.loop.time()
        broken = sum(one.broken for machine in self.machines for one in machine.counters(now))
        self.ledger.check(broken <= flipped, broken, "lanes broke,", flipped, "were broken")
        for board in self.boards:
            self.ledger.check(
                board is self.dead or not board.spools.spools,
                f"spools outlive their attempts on {board.name}:",
                list(board.spools.spools),
            )

    async def _keep_looking(self) -> None:
        """Look where records stream between transactions, too."""
        while True:
            self._look()
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self) -> None:
        """Look at what the controller reckons, and at what is kept of streams."""
        self._check_capacity()
        for board in self.boards:
            worker = board.worker.worker
            for ref, shell in () if worker is None else worker._shells.items():
                self.machines[shell.machine] = ref
                shape = self._shapes.get(ref.job_ref.pipeline_ref)
                if shape is not None:
                    found = list(stream_check.too_much(shell.machine, shape, LIMITS))
                    self.ledger.check(not found, ref.name, found)

    def _check_capacity(self) -> None:
        """Invariant 8, as the controller reckons."""
        plane = self.controller.plane
        machine = None if plane is None else plane.leader.machine
        for node in () if machine is None else machine.cluster.nodes.values():
            claimed = machine.cluster.claimed(node) if machine else node.capacity
            self.ledger.check(
                claimed.cpus <= node.capacity.cpus + CAPACITY_SLACK,
                f"8: {node.name} has {node.capacity.cpus} CPUs, claimed are {claimed.cpus}",
            )

    def describe_counts(self) -> dict[str, int]:
        """What happened, for the table."""
        found = dict(self.counts)
        for kind, states in (("attempt", self.ledger.attempts), ("scale", self.ledger.scales)):
            for state in states.values():
                found[f"{kind} {state.name}"] = found.get(f"{kind} {state.name}", 0) + 1
        return found


class _Watched:
    """The machine of an agent's attempts, whose events are looked at first."""

    def __init__(self, machine: Any, look: Callable[[object], None]) -> None:
        self._machine = machine
        self._look = look
        self.tick = machine.tick
        self.deadline = machine.deadline

    def handle(self, event: Any, now: float) -> Any:
        """Look at an event, and let the machine take it."""
        self._look(event)
        return self._machine.handle(event, now)


def _crowded_out(view: PipelineView) -> bool:
    """Whether a pinned job waits for room that others of its pipeline took while it drained.

    A source that has ended gives its room away, and its consumers may move in. Loses its node the records
    then, the source has to run again, beside consumers that wait for it.
    """
    pinned = {job.name for job in view.spec.jobs if job.placement is Placement.PINNED}
    running = {job.node for job in view.jobs if job.state is JobState.RUNNING}
    return any(
        job.state is JobState.QUEUED
        and job.spec_name in pinned
        and job.attempts[-1].node in running
        for job in view.jobs
        if job.attempts
    )


def _attempt(environ: Mapping[str, str]) -> AttemptRef:
    return parse_attempt(
        environ["SHOAL_NAME"], environ["SHOAL_NAMESPACE"], int(environ["SHOAL_EPOCH"])
    )


def _freeze(process: Process | None) -> None:
    if process is not None:
        process.freeze()


def _thaw(process: Process | None) -> None:
    if process is not None:
        process.thaw()


_STREAM_LOTS = ("program_crash", "tear_some", "flip", "lie")
"""Faults without a taste, which is drawn for the others whether they may happen or not."""
_LOTS = tuple(one.name for one in fields(stories.Faults) if hasattr(World, one.name))


def history(
    seed: int,
    faults: stories.Faults,
    *,
    given: Shape | None = None,
    lines: bool = False,
    make: Callable[..., World] = World,
) -> Outcome:
    """Live through one history; run it apart (`apart.py`)."""
    world = make(seed, faults, given=given, lines=lines)
    _KEPT.append(world)
    outcome = Outcome(seed)
    loop = world.loop
    logging.disable(logging.WARNING)
    handler = _Mistakes(world)
    root = logging.getLogger()
    root.addHandler(handler)

    async def whole() -> None:
        living = loop.create_task(world.live())
        await asyncio.wait((living, world.over), return_when=asyncio.FIRST_COMPLETED)
        if world.over.done():
            living.cancel()
            world.over.result()
        living.result()
        for name, failure in world.network.failures:
            raise AssertionError(f"a handler of {name} failed") from failure

    try:
        loop.run_until_complete(whole())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told with its seed
        outcome.problem = "".join(traceback.format_exception(error))
    root.removeHandler(handler)
    outcome.trace = world.trace.hash
    outcome.callbacks = loop.callbacks
    outcome.seconds = loop.time()
    outcome.losses = world.ledger.losses
    outcome.counts = world.describe_counts()
    outcome.lines = world.trace.lines or []
    return outcome


class _Mistakes(logging.Handler):
    """Ends a history in which a process logged an exception that it did not expect."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line of the log."""
        if record.exc_info and record.exc_info[1] is not None:
            error = MistakeError(f"{record.name}: {record.getMessage()}")
            error.__cause__ = record.exc_info[1]
            self._world.fail(error)


_KEPT: list[World] = []
"""Worlds of this process: what killed processes left in them must not be collected."""
