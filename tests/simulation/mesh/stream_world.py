"""A seeded world of streams alone: real stream workers on a few boards, and a controller that only places.

Programs, links and boards fail; the controller replaces what died, tells everybody where their peers
are, commits what drained, and scales as `control.core.scaling` decides. What it tells are the assignments
of the real controller (`control.core.state.Cluster`). Agents are as small as can be: one task an attempt.
Whatever died, the promise of docs/guarantees.md has to hold in the end, see `check`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from types import MappingProxyType
from typing import Any

import grpc.aio

from control.core import scaling
from control.core.rows import Loaded, PipelineAdded, ScaleRow
from control.core.state import AttemptRecord, Cluster, JobRecord, NodeRecord, PipelineRecord
from control.core.topology import Topology, topology
from services.streams.machine import AttemptStreamsMachine
from services.streams.plan import StreamLimits
from services.streams.worker.keeper_ports import KeeperRefusedError
from services.streams.worker.port_link import PortEnd, PortName
from shoal.model import JobState, ReasonCode, ScaleState
from shoal.names import AttemptRef, PipelineRef
from shoal.spec import Distribute
from shoal.v1 import session_service_pb2
from shoal.v1.streams_service_pb2 import (
    AttachRequest,
    AttemptStreams,
    ConcludeRequest,
    DetachRequest,
    PullAck,
    PullRequest,
    UpdateLanesRequest,
    WatchAttemptsRequest,
)
from shoal.wire.assignment import encode_assignment
from shoal.wire.attempt import encode_attempt_ref
from shoal.wire.port_hold import decode_port_holds
from tests.simulation.mesh.loop import VirtualLoop
from tests.simulation.mesh.network import Network
from tests.simulation.mesh.port import ROOM_BYTES, WorkerEnd, port_pairs
from tests.simulation.mesh.process import Process
from tests.simulation.mesh.program import Program
from tests.simulation.mesh.spool import SpoolDisk
from tests.simulation.mesh.stream_guarantees import Expected, missing, violations
from tests.simulation.mesh.stream_shape import Edge, Shape, canonical, feeds_of
from tests.simulation.mesh.stream_worker import LIMITS, MemoryStreamWorker, OrdersStub

_AT = datetime(2026, 1, 1, tzinfo=UTC)
_LOOK_SECONDS = 0.005
_RESTART_SECONDS = 0.05

HOLD_SECONDS = 20.0
"""A scale that holds for longer is abandoned, as the controller has it."""


class Attempt:
    """One attempt on a board: its program, and the task that is its agent."""

    def __init__(self, world: StreamWorld, board: Board, record: AttemptRecord) -> None:
        self.world = world
        self.board = board
        self.ref = record.ref
        self.record = record
        self.job = world.pipeline.jobs[record.ref.job]
        self.keeper_id = f"{record.ref.job}/{record.ref.epoch}"
        self.spool_path = f"spool/{self.keeper_id}"
        self.alive = True
        """Whether anything of it is still there."""
        self.machine: AttemptStreamsMachine | None = None
        self.program: Program | None = None
        self.moves = 0
        """How often its lanes have changed."""
        self.exit: bool | None = None
        """Whether its program has ended well."""
        self.let_go = False
        self.counted: Topology | None = None
        """The lanes when it ended or was replaced: what was settled later says nothing of it."""
        self.wake = asyncio.Event()

    def start(self) -> None:
        """Start the program and whoever drives it."""
        world, spec = self.world, self.job.spec
        names: list[PortName] = [
            *((stream.name, False) for stream in spec.streams),
            *((output.name, True) for output in spec.outputs),
        ]
        mine, theirs = port_pairs(world.loop, names)
        self.board.ports[self.keeper_id] = theirs
        sizes = {stream.name: {"block_count": stream.block_count} for stream in spec.streams}
        self.program = Program(
            world,
            spec.run,
            {
                "SHOAL_JOB": spec.name,
                "SHOAL_NAME": self.ref.name,
                "SHOAL_REPLICA": str(self.job.replica),
                "SHOAL_ATTEMPT": str(self.ref.number),
                "SHOAL_PORTS": json.dumps({"inputs": sizes}),
            },
            mine,
            self._exited,
            host=self.board.name,
        )
        self.board.agent.spawn(self._drive())

    def die(self) -> None:
        """Everything of it is gone at once."""
        self.alive = False
        if self.program is not None:
            self.program.kill()
        self.wake.set()

    def moved(self) -> None:
        """Its lanes are others now."""
        self.moves += 1
        self.wake.set()

    def superseded(self) -> None:
        """It has ended, or another one counts."""
        if self.counted is None:
            self.counted = self.world.pipeline.topology

    def release(self) -> None:
        """Let the worker drop it."""
        self.let_go = True
        self.wake.set()

    def _exited(self, status: int, number: int) -> None:
        self.exit = status == 0 and number == 0
        self.superseded()
        self.wake.set()
        self.world.ended(self)

    async def _drive(self) -> None:
        stub = self.board.stub
        told = concluded = 0
        attached = False
        while self.alive:
            try:
                if not attached:
                    told = self.moves
                    await stub.Attach(
                        AttachRequest(
                            assignment=self._assignment(),
                            spool_path=self.spool_path,
                            keeper_path="keeper.sock",
                            keeper_id=self.keeper_id,
                        ),
                        timeout=10,
                    )
                    attached = True
                    self._attached()
                elif self.let_go:
                    await stub.Detach(DetachRequest(ref=encode_attempt_ref(self.ref)), timeout=10)
                    self._detached()
                elif told != self.moves:
                    told = self.moves
                    lanes = self._assignment().lanes
                    await stub.UpdateLanes(
                        UpdateLanesRequest(ref=encode_attempt_ref(self.ref), lanes=lanes),
                        timeout=10,
                    )
                elif self.exit is not None and not concluded:
                    await stub.Conclude(
                        ConcludeRequest(ref=encode_attempt_ref(self.ref), succeeded=self.exit),
                        timeout=10,
                    )
                    concluded = 1
                else:
                    self.wake.clear()
                    await self.wake.wait()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(_RESTART_SECONDS)

    def _assignment(self) -> session_service_pb2.Assignment:
        self.record.assignment = None
        return encode_assignment(self.world.cluster.assignment(self.record))

    def _attached(self) -> None:
        worker = self.board.worker.worker
        shell = None if worker is None else worker.shell(self.ref)
        if shell is not None:
            self.machine = shell.machine
            self.world.machines.append(shell.machine)

    def _detached(self) -> None:
        self.alive = False
        self.board.ports.pop(self.keeper_id, None)
        if self.program is not None:
            self.program.kill()
        self.board.attempts.pop(self.ref, None)


class Board:
    """A machine with a stream worker, a little agent and a keeper."""

    def __init__(self, world: StreamWorld, name: str, limits: StreamLimits) -> None:
        self.world = world
        self.name = name
        self.disk = SpoolDisk(world.rng)
        self.ports: dict[str, Mapping[PortName, WorkerEnd]] = {}
        self.attempts: dict[AttemptRef, Attempt] = {}
        self.worker = MemoryStreamWorker(
            world.loop,
            world.network,
            world.rng,
            host=name,
            keeper=self,
            disk=self.disk,
            limits=limits,
        )
        self.agent = Process(world.loop, f"{name}/agent", name)
        self.boot()

    @property
    def stub(self) -> OrdersStub:
        """The worker as the agent calls it."""
        return self.worker.stub()

    @property
    def up(self) -> bool:
        """Whether it runs attempts now."""
        return self.worker.running and not self.agent.dead

    def boot(self) -> None:
        """Start worker and agent."""
        self.agent = Process(self.world.loop, f"{self.name}/agent", self.name)
        self._start_worker()
        self.agent.run(self._watch())

    def fetch_ports(self, keeper_id: str) -> dict[PortName, PortEnd]:
        """See `Keeper`."""
        if keeper_id not in self.ports:
            raise KeeperRefusedError(f"{keeper_id} is not known here")
        return dict(self.ports[keeper_id])

    def kill_worker(self) -> None:
        """End the worker; whatever streamed on this board is lost with it."""
        self.worker.kill()
        self._lose_attempts()
        self.world.later(_RESTART_SECONDS, self._start_worker)

    def lose_power(self) -> None:
        """Everything on the board ends, and comes back without what it had."""
        self.agent.kill()
        self.worker.kill()
        self.disk.lose_power()
        self._lose_attempts()
        self.world.later(4 * _RESTART_SECONDS, self.boot)

    def _start_worker(self) -> None:
        self.worker.start()

    def _lose_attempts(self) -> None:
        lost = list(self.attempts.values())
        self.attempts.clear()
        self.ports.clear()
        self.disk.spools.clear()  # the agent empties the folders of attempts that are gone
        for attempt in lost:
            attempt.die()
            self.world.lost(attempt)

    async def _watch(self) -> None:
        while True:
            watch = self.stub.WatchAttempts(WatchAttemptsRequest(), wait_for_ready=True)
            with contextlib.suppress(grpc.aio.AioRpcError):
                while True:
                    news: Any = await watch.read()
                    if news is grpc.aio.EOF:
                        break
                    for streams in news.attempts:
                        self._hear(streams)
            await asyncio.sleep(_RESTART_SECONDS)

    def _hear(self, streams: AttemptStreams) -> None:
        for ref, attempt in self.attempts.items():
            if (ref.name, ref.epoch) == (streams.ref.attempt, streams.ref.epoch):
                self.world.hear(attempt, streams)
                return


class StreamWorld:
    """Boards that fail, and a controller that replaces what died.

    Args:
        shape: the pipeline.
        seed: decides everything.
        limits: of each attempt's streams.
        boards: how many there are.
        places: the number of the board of jobs that do not run anywhere.
    """

    def __init__(
        self,
        shape: Shape,
        seed: int,
        *,
        limits: StreamLimits = LIMITS,
        boards: int = 3,
        places: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.shape = shape
        self.seed = seed
        self.rng = Random(seed)
        self.loop = VirtualLoop()
        self.limits = limits
        self.network = Network(self.loop, self.rng)
        self.ins, self.outs = canonical(shape)
        self.cluster = Cluster(Loaded(), 0)
        spec = shape.pipeline("p")
        added = PipelineAdded(PipelineRef("default", "p"), 1, "", spec, _AT)
        self.pipeline = PipelineRecord.begin(added, topology(spec))
        self.cluster.pipelines[added.ref] = self.pipeline
        self.machines: list[AttemptStreamsMachine] = []
        self.attempts: list[Attempt] = []
        """All there ever were, the latest last."""
        self.counts: dict[str, int] = {}
        self.late_kills = 0
        """How many attempts are still to be killed soon after their programs have ended."""
        self.problems: list[str] = []
        self._current: dict[str, Attempt] = {}
        self._done: asyncio.Future[None] | None = None
        self._places = places
        self._names = [f"board-{number}" for number in range(boards)]
        self._boards: dict[str, Board] = {}
        self._plans: list[tuple[float, Callable[[], None]]] = []
        self._wholes: dict[Edge, list[bytes]] = {}

    # ---- time -----------------------------------------------------------------------------------

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Plan something before the world begins."""
        self._plans.append((when, what))

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Do something in so many seconds."""
        self.loop.call_later(seconds, what, context=self.network.context)

    def soon(self, low: float, high: float, what: Callable[[], None]) -> None:
        """Do something a little later."""
        self.later(self.rng.uniform(low, high), what)

    def run(self, until_seconds: float) -> None:
        """Let the world run until every job is committed, and check what it has shown.

        Raises:
            AssertionError: it takes longer, or something does not hold.
        """
        self.loop.run_until_complete(self._run(until_seconds))
        self.check()

    async def _run(self, until_seconds: float) -> None:
        self._done = self.loop.create_future()
        self._boards = {name: Board(self, name, self.limits) for name in self._names}
        for board in self._boards.values():
            self.cluster.nodes[board.name] = NodeRecord(
                board.name, stream_address=board.worker.address
            )
        for when, what in self._plans:
            self.later(when, what)
        for job in self.pipeline.jobs.values():
            self.place(job)
        self._look()
        try:
            async with asyncio.timeout(until_seconds):
                await self._done
        except TimeoutError:
            raise AssertionError(f"not drained: {self.describe()}") from None

    def describe(self) -> str:
        """Return where everybody stands."""
        now = self.loop.time()
        return "; ".join(
            f"{one.ref.name} on {one.board.name} "
            + (f"{one.machine.stage.value} {one.machine.counters(now)}" if one.machine else "new")
            for one in self._current.values()
        )

    def count(self, what: str) -> None:
        """Count that something has happened."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def problem(self, what: str) -> None:
        """Note that something does not hold, and end the history."""
        self.problems.append(what)
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    # ---- the controller -------------------------------------------------------------------------

    def keys(self) -> list[str]:
        """The jobs by id, replicas apart."""
        return list(self.pipeline.jobs)

    def place(self, job: JobRecord) -> None:
        """Start an attempt of a job somewhere."""
        job.epoch += 1
        job.number += 1
        job.state = JobState.RUNNING
        place = self._places.get(job.ref.job)
        name = self.rng.choice(self._names) if place is None else self._names[place]
        board = self._boards[name]
        ref = AttemptRef(job.ref.namespace, job.ref.pipeline, job.ref.job, job.number, job.epoch)
        job.attempt = AttemptRecord(ref, board.name, JobState.RUNNING, _AT)
        attempt = Attempt(self, board, job.attempt)
        if job.ref.job in self._current:
            self._current[job.ref.job].superseded()
        self._current[job.ref.job] = attempt
        self.attempts.append(attempt)
        self.tell_all()

        self.soon(0.0, 0.002, lambda: self._start(attempt))

    def _start(self, attempt: Attempt) -> None:
        """Start an attempt, once its board is up."""
        if not attempt.alive:
            return
        if not attempt.board.up:
            self.soon(_RESTART_SECONDS, 2 * _RESTART_SECONDS, lambda: self._start(attempt))
            return
        attempt.board.attempts[attempt.ref] = attempt
        attempt.start()

    def tell_all(self) -> None:
        """Tell every attempt where its peers are now, each a little later."""
        for attempt in self.attempts:
            if attempt.alive and not attempt.let_go:
                self.soon(0.001, 0.05, attempt.moved)

    def hear(self, attempt: Attempt, streams: AttemptStreams) -> None:
        """Take what an agent says of an attempt."""
        job = attempt.job
        if self._current[job.ref.job] is not attempt or job.state is JobState.SUCCEEDED:
            return
        if streams.holds:
            attempt.record.holds = decode_port_holds(streams.holds, "holds")
        if self.pipeline.holding is not None:
            self.settle(self.pipeline.holding)
        if streams.HasField("failure"):
            self.broke(attempt, streams.failure.code, streams.failure.message)
        elif streams.drained:
            self.soon(0.001, 0.1, lambda: self.commit(attempt))

    def broke(self, attempt: Attempt, code: str, message: str) -> None:
        """The streams of an attempt cannot go on."""
        self.count(code)
        if code != ReasonCode.REWIND.value:
            self.problem(f"{attempt.ref.name}: {code} {message}")
        self.soon(0.005, 0.02, lambda: self.replace(attempt))

    def commit(self, attempt: Attempt) -> None:
        """Take an attempt that has drained for the one that counts."""
        job = attempt.job
        if self._current[job.ref.job] is not attempt or not attempt.alive:
            return
        if job.state is JobState.SUCCEEDED:
            return
        for reader in self.pipeline.topology.consumers(job.ref.job):
            if self.pipeline.jobs[reader].state is not JobState.SUCCEEDED:
                self.problem(f"{job.ref.job} let go before {reader}")
        job.state = JobState.SUCCEEDED
        self.tell_all()
        # The agent lets go of the attempt once the controller has its end.
        self.later(0.2, attempt.release)
        if all(one.state is JobState.SUCCEEDED for one in self.pipeline.jobs.values()):
            self.later(1.0, self._finish)

    def _finish(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def ended(self, attempt: Attempt) -> None:
        """A program has ended."""
        if attempt.exit and self.late_kills and self.rng.random() < 0.5:
            self.late_kills -= 1
            self.soon(0.0, 0.01, lambda: self.kill(attempt.ref.job))
        if not attempt.exit and attempt.alive:
            self.soon(0.01, 0.2, lambda: self.replace(attempt))

    def lost(self, attempt: Attempt) -> None:
        """An attempt has gone with its board or its stream worker."""
        self.count("killed")
        self.soon(0.01, 0.2, lambda: self.replace(attempt))

    def replace(self, attempt: Attempt) -> None:
        """Place a job anew, unless that was done already."""
        job = attempt.job
        if self._current[job.ref.job] is attempt and job.state is not JobState.SUCCEEDED:
            self.place(job)
            if attempt.alive:
                self.soon(0.0, 0.1, attempt.release)

    # ---- faults ---------------------------------------------------------------------------------

    def attempt_of(self, job: str) -> Attempt | None:
        """The attempt that counts, if it is still under way."""
        attempt = self._current.get(job)
        if attempt is None or attempt.job.state is JobState.SUCCEEDED or not attempt.alive:
            return None
        return attempt

    def kill(self, job: str) -> None:
        """End an attempt without warning: its program, and all that was kept of its streams."""
        attempt = self.attempt_of(job)
        if attempt is None:
            return
        self.count("killed")
        if attempt.program is not None and attempt.program.running:
            attempt.program.kill()
            return
        attempt.release()  # its program has ended; its agent forgets it
        self.soon(0.01, 0.2, lambda: self.replace(attempt))

    def kill_worker(self, draw: float) -> None:
        """End a stream worker."""
        self._board(draw).kill_worker()

    def lose_power(self, draw: float) -> None:
        """Let a board lose power."""
        board = self._board(draw)
        if board.up:
            board.lose_power()

    def zombie(self, job: str) -> None:
        """Replace an attempt that goes on working for a while."""
        attempt = self.attempt_of(job)
        if attempt is None:
            return
        self.count("zombies")
        self.place(attempt.job)
        self.soon(0.05, 0.5, attempt.release)

    def cut(self, share_of_calls: float) -> None:
        """Break some of the calls between boards."""
        self.count("cuts")
        for link in tuple(self.network.links):
            if link.client.host != link.server.host and self.rng.random() < share_of_calls:
                link.end(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")

    def isolate(self, draw: float, seconds: float) -> None:
        """Let nothing pass to and from one board for a while."""
        self.count("isolated")
        name = self._board(draw).name
        others = [other for other in self._names if other != name]
        for other in others:
            self.network.cut(name, other)
            self.network.cut(other, name)

        def heal() -> None:
            for other in others:
                self.network.heal(name, other)
                self.network.heal(other, name)

        self.later(seconds, heal)

    def lie(self, share_of_calls: float) -> None:
        """Say on some of the calls that their consumers are done, as only a client's may."""
        for link in tuple(self.network.links):
            if link.client.host != link.server.host and self.rng.random() < share_of_calls:
                self.count("lies")
                link.up.push(PullRequest(ack=PullAck(done=True)))

    def flip(self, chance: float) -> None:
        """Let so many messages between boards have another bit."""
        for board in self._boards.values():
            board.worker.flips = chance

    def _board(self, draw: float) -> Board:
        return self._boards[self._names[int(draw * len(self._names))]]

    # ---- scaling --------------------------------------------------------------------------------

    def scale(self, job: str, replicas: int) -> None:
        """Ask for another number of replicas; what the controller refuses is counted."""
        if len(self.pipeline.newest(job)) == replicas:
            return
        refused = scaling.refusal(self.pipeline, job, replicas)
        if refused is not None:
            self.count(refused.reason)
            return
        number = len(self.pipeline.scales) + 1
        row = ScaleRow(self.pipeline.ref, number, job, replicas, ScaleState.HOLDING, _AT)
        self.pipeline.scales.append(row)
        self.tell_all()
        self.later(HOLD_SECONDS, lambda: self._give_up(number))

    def _give_up(self, number: int) -> None:
        """Abandon a scale that holds for too long: its streams have to go on."""
        scale = self.pipeline.scales[number - 1]
        if scale.state is ScaleState.HOLDING:
            self._end_scale(replace(scale, state=ScaleState.ABANDONED))

    def settle(self, scale: ScaleRow) -> None:
        """Let the next generation begin once everybody has said how far they are."""
        if scaling.stopped_by(self.pipeline, scale):
            self._end_scale(replace(scale, state=ScaleState.ABANDONED))
            return
        rounds = scaling.rounds(self.pipeline, scale)
        if rounds is None:
            return
        then = scaling.after(self.pipeline, scale.job, scale.replicas, rounds, scale.number)
        self._end_scale(replace(scale, state=ScaleState.SETTLED, rounds=rounds))
        for job in self.pipeline.grow(then):
            self.place(job)

    def _end_scale(self, scale: ScaleRow) -> None:
        self.pipeline.scales[-1] = scale
        self.count(scale.state.name)
        self.tell_all()

    # ---- what has to hold -----------------------------------------------------------------------

    def _look(self) -> None:
        """Bounded memory, at every look."""
        limits = self.limits
        block = 2 * max(job.burst * (job.record_bytes + 40) for job in self.shape.jobs) + 400
        for attempt in self.attempts:
            machine = attempt.machine
            if machine is None or not attempt.alive:
                continue
            for lane, _ in machine._in_lanes.values():
                if sum(chunk.size for chunk in lane.queue) > limits.credit_bytes + block:
                    self.problem(f"{attempt.ref.name}: more than the credit waits on a lane")
            outputs = machine._outputs.values()
            memory = sum(out_port.memory_bytes for out_port in outputs)
            # What a look at a port finds comes whole, although the machine stops reading within it.
            tails = 2 * block * max(1, len(machine._out_lanes)) + ROOM_BYTES
            if memory > limits.memory_bytes + limits.spooling_bytes + tails:
                self.problem(f"{attempt.ref.name}: {memory} bytes are kept in memory")
            for out_port in outputs:
                if out_port._paused and not (out_port.reliable or out_port.spool_behind):
                    self.problem("a consumer that wants the newest alone blocks its producer")
        if self._done is not None and not self._done.done():
            self.later(_LOOK_SECONDS, self._look)

    def check(self) -> None:
        """Check all that the world has shown.

        Raises:
            AssertionError: something does not hold.
        """
        found = [*self.problems, *self._found()]
        assert not found, f"seed {self.seed}: {found[:5]}; {self.counts}"

    def _found(self) -> Iterator[str]:
        if self.problems:
            return
        now = self.loop.time()
        counters = [one for machine in self.machines for one in machine.counters(now)]
        flipped = sum(board.worker.flipped for board in self._boards.values())
        self.counts |= {
            "flips": flipped,
            "dropped": sum(one.dropped for one in counters),
            "refused": sum(one.refused for one in counters),
        }
        broken = sum(one.broken for one in counters)
        if broken > flipped:
            yield f"{broken} lanes broke by themselves"
        if all(edge.ordered for edge in self.shape.edges) and any(
            one.mismatches for one in counters
        ):
            # Whoever is run again sends the same, so a digest that differs was not counted right.
            yield "digests differ"
        for failure in self.network.failures:
            yield f"a handler broke: {failure}"
        for board in self._boards.values():
            self.counts["spooled"] = self.counts.get("spooled", 0) + board.disk.written
            if board.disk.spools:
                yield f"spools outlive their attempts: {list(board.disk.spools)}"
            if board.agent.failure is not None:
                yield f"an agent broke: {board.agent.failure!r}"
        rounds: Counter[tuple[str, int]] = Counter()
        for attempt in self.attempts:
            yield from self._of_attempt(attempt)
            if attempt.program is not None:
                rounds.update((attempt.ref.job, number) for number in attempt.program.processed)
        self.counts["repeated"] = rounds.total() - len(rounds)
        for job in self.pipeline.jobs.values():
            yield from self._of_sink(job)

    def _of_attempt(self, attempt: Attempt) -> Iterator[str]:
        program = attempt.program
        if program is None:
            return
        for complaint in program.complaints:
            yield f"{attempt.ref.name}: {complaint}"
        for port, delivery in program.deliveries.items():
            expected = self.expected(attempt.job, port, attempt.counted)
            for one in violations(expected, delivery):
                yield f"{attempt.ref.name}.{port}: {one}"

    def _of_sink(self, job: JobRecord) -> Iterator[str]:
        """Whether a sink got every round; once, where it starts anew."""
        edges = self.shape.inputs(job.spec.name)
        if self.shape.ports(job.spec.name) or len(edges) != 1:
            return
        rounds = [
            one.program.processed
            for one in self.attempts
            if one.job is job and one.program is not None
        ]
        resumes = self.shape.job(job.spec.name).resume
        for one in missing(self.expected(job, edges[0].into), rounds, resumes=resumes):
            yield f"{job.ref.job}: {one}"

    def expected(self, job: JobRecord, port: str, lanes: Topology | None = None) -> Expected:
        """Return what an input port of a replica has when nothing goes wrong, with these lanes."""
        name = job.spec.name
        [edge] = [one for one in self.shape.inputs(name) if one.into == port]
        deaths = self.counts.get("killed", 0) + self.counts.get("zombies", 0)
        if self.pipeline.scales:
            feed = self._scaled_feed(job, edge, lanes or self.pipeline.topology)
            return Expected(feed, edge.block_count)
        feeds = feeds_of(self.shape, self.outs, edge, job.replica)
        return Expected(
            self.ins[name, job.replica, port],
            edge.block_count,
            () if edge.ordered else feeds,
            edge.keep,
            gap_may_be=deaths > 1,
        )

    def _scaled_feed(self, job: JobRecord, edge: Edge, lanes: Topology) -> list[bytes]:
        """Return the part of the whole stream that belongs to a replica of a generation."""
        ends = lanes.ends[job.ref.job]
        stretch = next(
            end.lane.stretch for end in ends if not end.lane.output and end.lane.port == edge.into
        )
        mine = self._whole(edge)[stretch.consumer_begin : stretch.consumer_end]
        if edge.distribute is Distribute.BROADCAST:
            return mine
        return mine[job.replica :: job.spec.replicas]

    def _whole(self, edge: Edge) -> list[bytes]:
        """Return a stream in its first order; all producer replicas send as many records."""
        if edge not in self._wholes:
            parts = [
                self.outs[edge.producer, replica, edge.port]
                for replica in range(self.shape.job(edge.producer).replicas)
            ]
            assert len({len(part) for part in parts}) == 1
            self._wholes[edge] = [one for turn in zip(*parts, strict=True) for one in turn]
        return self._wholes[edge]
