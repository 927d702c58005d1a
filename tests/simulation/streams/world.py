"""A seeded world for the streams of one pipeline: jobs, workers, links and a controller, in virtual time."""

from __future__ import annotations

import heapq
import itertools
import json
import random
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from services.streams.attempt import AttemptMachine, Stage
from services.streams.block import (
    HEADED,
    Block,
    BlockError,
    BlockReader,
    Kind,
    decode,
    entries,
    pack,
    plain,
    unpack,
)
from services.streams.effect import (
    AcceptCall,
    Acknowledge,
    CloseCall,
    ClosePort,
    Dial,
    DropSegment,
    Effect,
    HangUp,
    PausePort,
    ReadPort,
    ReadSpool,
    RefuseCall,
    ReportDrained,
    ReportFailed,
    SendBlock,
    SendEnd,
    SendSpooled,
    ShutPort,
    WritePort,
    WriteSpool,
)
from services.streams.event import (
    Attached,
    CallAcknowledged,
    CallClosed,
    CallDone,
    CallOpened,
    CallReady,
    Concluded,
    Detached,
    DialAccepted,
    DialBlock,
    DialBroken,
    DialEnded,
    Event,
    LanesChanged,
    PortBlock,
    PortClosed,
    PortWritten,
    SpoolLoaded,
    SpoolWritten,
)
from services.streams.part import OFFSET, Assembler
from services.streams.plan import AttemptPlan, Budget, InputPlan, OutputPlan
from services.streams.rotation import share
from services.streams.shelf import SpoolPlace
from shoal.model import ReasonCode
from shoal.session.lane import Lane, LanePeer
from shoal.spec import Distribute, PortBinding

PART_BYTES = 700
"""A body above this size travels in parts of it."""


@dataclass(frozen=True)
class Edge:
    """An output port of one job that feeds an input port of another."""

    producer: str
    port: str
    consumer: str
    into: str
    distribute: Distribute = Distribute.ROUND_ROBIN
    block_count: int = 1
    ordered: bool = True
    """Whether producer replicas take turns; else the consumer has to be a sink."""
    keep: int = 0
    """If above 0, the consumer wants the newest records alone; it has to be a sink."""


@dataclass(frozen=True)
class JobShape:
    """One job of the pipeline; a source makes `records` records, others one a round."""

    name: str
    replicas: int = 1
    resume: bool = False
    records: int = 0
    record_bytes: int = 20
    headers: bool = False
    """Every third record has headers."""
    keys: int = 0
    """If above 0, every record has a header `key` with one of so many values."""
    pace: float = 0.0
    """A source makes its next record not before so many seconds have passed for each one before."""
    plain: bool = False
    """What it sends depends on nothing but what it gets: not on the replica, nor on the round."""


@dataclass(frozen=True)
class Shape:
    """A pipeline."""

    jobs: tuple[JobShape, ...]
    edges: tuple[Edge, ...]

    def job(self, name: str) -> JobShape:
        return next(job for job in self.jobs if job.name == name)

    def inputs(self, job: str) -> list[Edge]:
        return [edge for edge in self.edges if edge.consumer == job]

    def ports(self, job: str) -> list[str]:
        return list(dict.fromkeys(edge.port for edge in self.edges if edge.producer == job))


Canon = dict[tuple[str, int, str], list[bytes]]
"""What every port carries when nothing goes wrong: (job, replica, port) -> records."""


def canonical(shape: Shape) -> tuple[Canon, Canon]:
    """Run the pipeline without streams and return what goes into and out of every port."""
    ins: Canon = {}
    outs: Canon = {}
    for job in shape.jobs:  # producers come first
        for replica in range(job.replicas):
            columns: list[list[list[bytes]]] = []
            for edge in shape.inputs(job.name):
                feed = _merge(shape, outs, edge, replica)
                ins[job.name, replica, edge.into] = feed
                size = edge.block_count
                columns.append([feed[at : at + size] for at in range(0, len(feed), size)])
            count = min((len(column) for column in columns), default=job.records)
            for port in shape.ports(job.name):
                outs[job.name, replica, port] = [
                    output(job, replica, port, number, [column[number] for column in columns])
                    for number in range(count)
                ]
    return ins, outs


def output(job: JobShape, replica: int, port: str, number: int, inputs: list[list[bytes]]) -> bytes:
    """Return what a job sends in one round: a function of what it gets."""
    text = f"{job.name}{replica}.{port}#{number}:".encode()
    digest = sum(
        sum(record) * (index + 1) for group in inputs for index, record in enumerate(group)
    )
    if job.plain:
        every = b"".join(record for group in inputs for record in group)
        text, digest = f"{job.name}.{port}:".encode(), zlib.crc32(every)
    record = (text + str(digest).encode()).ljust(job.record_bytes, b".")
    headers: dict[str, object] = {}
    if job.keys:
        headers["key"] = f"key {number * number % job.keys}"
    elif not job.headers or number % 3:
        return record
    text = json.dumps(headers).encode()
    return len(text).to_bytes(2, "little") + text + record


def entry_of(record: bytes) -> int:
    """Return what the table of a block has to say of a record; here, none begins with a name `..{`."""
    return len(record) | (HEADED if record[2:3] == b"{" else 0)


def key_of(record: bytes) -> bytes:
    """Return the key of a record, as the contract has it."""
    if not entry_of(record) & HEADED:
        return record
    size = 2 + int.from_bytes(record[:2], "little")
    key: str = json.loads(record[2:size])["key"]
    return key.encode()


def feeds_of(shape: Shape, outs: Canon, edge: Edge, replica: int) -> list[list[bytes]]:
    """Return what each producer replica has for one consumer replica."""
    producers = shape.job(edge.producer).replicas
    consumers = shape.job(edge.consumer).replicas
    feeds: list[list[bytes]] = []
    for producer in range(producers):
        if edge.distribute is Distribute.KEY:
            mine = outs[edge.producer, producer, edge.port]
            feeds.append([one for one in mine if zlib.crc32(key_of(one)) % consumers == replica])
            continue
        part = share(
            producer,
            producers,
            replica,
            consumers,
            broadcast=edge.distribute is Distribute.BROADCAST,
        )
        records = outs[edge.producer, producer, edge.port]
        feeds.append([] if part.empty else records[part.first :: part.step])
    return feeds


def _merge(shape: Shape, outs: Canon, edge: Edge, replica: int) -> list[bytes]:
    producers = shape.job(edge.producer).replicas
    consumers = shape.job(edge.consumer).replicas
    feeds = [deque(feed) for feed in feeds_of(shape, outs, edge, replica)]
    merged: list[bytes] = []
    turn = 0
    while any(feeds):
        rotates = edge.distribute is Distribute.ROUND_ROBIN or consumers == 1
        index = turn * consumers + replica if rotates else turn
        feed = feeds[index % producers]
        if feed:
            merged.append(feed.popleft())
        turn += 1
    return merged


class Call:
    """One call between two attempts: messages arrive in order, or the call breaks."""

    def __init__(
        self, number: int, lane: str, dial: int, consumer: Node, producer: Node | None
    ) -> None:
        self.number = number
        self.lane = lane
        self.dial = dial
        self.consumer = consumer
        self.producer = producer
        self.open = True
        self.last_down = 0.0
        self.assembler = Assembler()
        self.last_up = 0.0


@dataclass
class SimJob:
    """The program of one attempt: takes rounds, sends records in blocks."""

    shape: JobShape
    replica: int
    inputs: list[Edge]
    ports: list[str]
    queues: dict[str, deque[bytes]] = field(default_factory=dict[str, deque[bytes]])
    readers: dict[str, BlockReader] = field(default_factory=dict[str, BlockReader])
    ended: set[str] = field(default_factory=set[str])
    started: set[str] = field(default_factory=set[str])
    positions: dict[str, int] = field(default_factory=dict[str, int])
    arrived: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    round: int | None = None
    first_round: int = 0
    pending: dict[str, list[bytes]] = field(default_factory=dict[str, list[bytes]])
    sent: dict[str, int] = field(default_factory=dict[str, int])
    finished: bool = False
    waits: bool = False


class Node:
    """One attempt with its machine and its program."""

    def __init__(
        self, world: World, job: JobShape, replica: int, epoch: int, *, replacement: bool
    ) -> None:
        self.world = world
        self.job = job
        self.replica = replica
        self.epoch = epoch
        self.address = f"{job.name}-{replica}:{epoch}"
        self.alive = True
        self.committed = False
        self.machine = AttemptMachine(
            world.plan(job, replica, epoch, replacement=replacement),
            world.budget,
            world.random.random,
        )
        self.program = SimJob(
            job, replica, world.shape.inputs(job.name), world.shape.ports(job.name)
        )
        for edge in self.program.inputs:
            self.program.queues[edge.into] = deque()
            self.program.readers[edge.into] = BlockReader()
        for port in self.program.ports:
            self.program.pending[port] = []
        self.reading: set[str] = set()
        self.outbox: deque[PortBlock | PortClosed] = deque()
        self.calls: dict[int, Call] = {}
        self.dials: dict[tuple[str, int], Call] = {}
        self.spool: dict[SpoolPlace, bytes] = {}
        self.wake_at: float | None = None

    # ---- the shell ------------------------------------------------------------------------------

    def post(self, event: Event) -> None:
        if not self.alive:
            return
        effects = self.machine.handle(event, self.world.now)
        for effect in effects:
            self.act(effect)
        self.check()
        self.schedule_tick()

    def schedule_tick(self) -> None:
        deadline = self.machine.deadline()
        if deadline is not None and (self.wake_at is None or deadline < self.wake_at):
            self.wake_at = deadline
            self.world.at(deadline, self.tick)

    def tick(self) -> None:
        self.wake_at = None
        if not self.alive:
            return
        for effect in self.machine.tick(self.world.now):
            self.act(effect)
        self.schedule_tick()

    def act(self, effect: Effect) -> None:
        world = self.world
        match effect:
            case ReadPort(port=port, output=True):
                self.reading.add(port)
                world.later(self.flush)
            case PausePort(port=port, output=True):
                self.reading.discard(port)
                outlet = self.machine._outlets[port]
                why = outlet.reliable or outlet.spool_behind
                assert why, "a consumer that wants the newest alone blocks its producer"
            case ReadPort() | PausePort():
                pass
            case WritePort(port=port, output=True, parts=parts):
                [block] = BlockReaderOnce(b"".join(parts))
                assert block.kind is Kind.START
                self.program.started.add(port)
                self.program.sent[port] = block.first
                self.program.first_round = block.first
                world.later(self.run_program)
            case WritePort(port=port, parts=parts):
                data = b"".join(parts)
                world.later(lambda: self.deliver(port, data))
            case ShutPort() | ClosePort():
                pass
            case Dial():
                world.dial(self, effect)
            case HangUp(lane=lane, dial=dial):
                hung_up = self.dials.pop((lane, dial), None)
                if hung_up is not None:
                    world.close(hung_up)
            case Acknowledge(lane=lane, dial=dial):
                dialled = self.dials.get((lane, dial))
                if dialled is not None:
                    world.up(
                        dialled,
                        CallAcknowledged(
                            dialled.number,
                            lane,
                            effect.consumed,
                            effect.released,
                            effect.consumed_bytes,
                        ),
                    )
            case AcceptCall(call=number, producer_epoch=epoch, first=first):
                call = self.calls[number]
                world.down(call, DialAccepted(call.lane, call.dial, epoch, first))
            case SendBlock(call=number, body=body):
                call = self.calls[number]
                world.carry(call, effect.header, plain(body))
                world.later(lambda: self.post(CallReady(number, call.lane)))
            case SendSpooled(call=number, header=head, place=place):
                call = self.calls[number]
                world.carry(call, head, plain(self.spool[place]))
                world.later(lambda: self.post(CallReady(number, call.lane)))
            case SendEnd(call=number, total=total, cut=cut, continued=continued):
                call = self.calls[number]
                end = DialEnded(call.lane, call.dial, total, cut, continued, effect.digest)
                world.down(call, end)
            case RefuseCall(call=number, reason=reason, message=message):
                call = self.calls[number]
                world.counts[reason] = world.counts.get(reason, 0) + 1
                world.down(call, DialBroken(call.lane, call.dial, reason, message), last=True)
            case CloseCall(call=number):
                world.close(self.calls[number])
            case WriteSpool(place=place, body=body):
                self.spool[place] = bytes(body)
                world.later(lambda: self.post(SpoolWritten(place)))
                world.counts["spooled"] = world.counts.get("spooled", 0) + 1
            case ReadSpool(lane=lane, call=number, place=place):
                body = self.spool[place]
                world.later(lambda: self.post(SpoolLoaded(lane, number, body)))
            case DropSegment(segment=segment):
                for place in [place for place in self.spool if place.segment == segment]:
                    del self.spool[place]
            case ReportDrained():
                world.drained(self)
            case ReportFailed(code=code, message=message):
                world.failed(self, code, message)

    def check(self) -> None:
        """Bounded memory, at every moment."""
        budget = self.world.budget
        block = 2 * self.world.block_bytes + 400
        for lane, _ in self.machine._in_lanes.values():
            queued = sum(chunk.size for chunk in lane.queue)
            assert queued <= budget.credit_bytes + block, "more than the credit waits on a lane"
        memory = sum(outlet.memory_bytes for outlet in self.machine._outlets.values())
        tails = 2 * block * max(1, len(self.machine._out_lanes))
        assert memory <= budget.memory_bytes + budget.spooling_bytes + tails, (
            f"{memory} bytes are kept in memory"
        )

    # ---- the program ----------------------------------------------------------------------------

    def deliver(self, port: str, data: bytes) -> None:
        if not self.alive:
            return
        program = self.program
        for block in BlockReaderOnce(data):
            if block.kind is Kind.START:
                program.started.add(port)
                program.positions[port] = block.first
                edge = next(edge for edge in program.inputs if edge.into == port)
                assert block.first % edge.block_count == 0
                program.first_round = block.first // edge.block_count
            elif block.kind is Kind.END:
                feed = self.world.feed(self.job.name, self.replica, port)
                size = next(e.block_count for e in program.inputs if e.into == port)
                # Whoever begins after a last round that was short counts it as a whole one.
                whole = -(-len(feed) // size) * size
                begun_after = block.first == whole == program.first_round * size
                assert block.first == len(feed) or begun_after, "the end came early"
                # The newest record may die with its producer, and what would make it again with others.
                newest = any(one.keep for one in program.inputs if one.into == port)
                deaths = self.world.counts.get("killed", 0) + self.world.counts.get("zombies", 0)
                gap_may_be = newest and deaths > 1
                assert block.first == program.positions[port] or gap_may_be, "a gap before the end"
                if any(one.keep for one in program.inputs if one.into == port):
                    [intake] = self.machine._intakes.values()
                    counters = intake.counters(self.world.now)
                    assert counters.records + counters.dropped == len(feed), "not counted"
                    dropped = self.world.counts.get("dropped", 0)
                    self.world.counts["dropped"] = dropped + counters.dropped
                program.ended.add(port)
            else:
                edge = next(edge for edge in program.inputs if edge.into == port)
                if edge.keep and block.first > program.positions[port]:
                    assert not program.queues[port], "more came before all was processed"
                    program.positions[port] = block.first
                assert block.first == program.positions[port], "a gap on a port"
                feed = self.world.feed(self.job.name, self.replica, port)
                records = unpack(block)
                at = program.positions[port]
                if edge.keep:
                    assert len(records) <= edge.keep, "more than the newest"
                if edge.ordered:
                    assert records == feed[at : at + len(records)], "not the records that were sent"
                else:
                    self.check_arrived(edge, records)
                marks = tuple(map(entry_of, records))
                assert entries(block) == marks, "headers are not marked as they were"
                program.positions[port] += len(records)
                program.queues[port].extend(records)
        self.post(PortWritten(port, output=False))
        self.world.later(self.run_program)

    def check_arrived(self, edge: Edge, records: list[bytes]) -> None:
        """Whatever the order between producers, that of each is as it was sent."""
        feeds = feeds_of(self.world.shape, self.world.outs, edge, self.replica)
        seen = self.program.arrived.setdefault(edge.into, [0] * len(feeds))
        for record in records:
            [number] = [number for number, feed in enumerate(feeds) if record in feed]
            at = feeds[number].index(record)
            late = at > seen[number] and edge.keep
            assert late or at == seen[number], f"{record!r} is not what its producer sent next"
            seen[number] = at + 1

    def go_on(self) -> None:
        self.program.waits = False
        self.run_program()

    def run_program(self) -> None:
        program = self.program
        ports = {edge.into for edge in program.inputs} | set(program.ports)
        if not self.alive or program.finished or program.started != ports or len(self.outbox) > 2:
            return None
        if program.round is None:
            program.round = program.first_round
        world = self.world
        if program.round * self.job.pace > world.now:
            if not program.waits:
                program.waits = True
                world.at(program.round * self.job.pace, self.go_on)
            return None
        for _ in range(world.random.randint(1, world.burst)):
            groups: list[list[bytes]] = []
            if not program.inputs and program.round >= self.job.records:
                return self.end_program()
            for edge in program.inputs:
                queue = program.queues[edge.into]
                if len(queue) < edge.block_count and edge.into not in program.ended:
                    break
                if not queue:
                    return self.end_program()
                groups.append([queue[at] for at in range(min(edge.block_count, len(queue)))])
            if len(groups) != len(program.inputs):
                break
            for edge, group in zip(program.inputs, groups, strict=True):
                for _ in group:
                    program.queues[edge.into].popleft()
            for port in program.ports:
                record = output(self.job, self.replica, port, program.round, groups)
                program.pending[port].append(record)
            if not program.ports:
                number = program.round
                [*edges] = program.inputs
                if edges and edges[0].keep:
                    feed = world.ins[self.job.name, self.replica, edges[0].into]
                    number = feed.index(groups[0][0])
                world.processed[self.job.name, self.replica].append((number, self.epoch))
            program.round += 1
        self.send_pending()
        for edge in program.inputs:
            done = program.positions[edge.into] - len(program.queues[edge.into])
            self.post(PortBlock(edge.into, False, Block(Kind.ACK, done)))
        if not program.inputs or any(program.queues.values()):
            world.later(self.run_program)
        return None

    def send_pending(self) -> None:
        program = self.program
        for port, records in program.pending.items():
            if not records:
                continue
            block = Block(
                Kind.DATA,
                program.sent[port],
                len(records),
                pack(records, [*map(entry_of, records)]),
            )
            program.sent[port] += len(records)
            self.outbox.append(PortBlock(port, True, block))
            records.clear()
        self.world.later(self.flush)

    def end_program(self) -> None:
        program = self.program
        program.finished = True
        world = self.world
        if world.late_kills and world.random.random() < 0.5:
            world.late_kills -= 1
            key = (self.job.name, self.replica)
            world.at(world.now + world.random.uniform(0.0, 0.01), lambda: world.kill(key))
        self.send_pending()
        for port in program.ports:
            if self.world.random.random() < 0.5:
                self.outbox.append(PortBlock(port, True, Block(Kind.END, program.sent[port])))
            self.outbox.append(PortClosed(port, output=True))
        self.world.later(lambda: self.post(Concluded(succeeded=True)))
        self.world.later(self.flush)

    def flush(self) -> None:
        moved = False
        while self.alive and self.outbox and self.outbox[0].port in self.reading:
            self.post(self.outbox.popleft())
            moved = True
        if moved:
            self.world.later(self.run_program)


def BlockReaderOnce(data: bytes) -> list[Block]:  # noqa: N802 - stands for the reader on the job's side
    reader = BlockReader()
    blocks: list[Block] = []
    view = memoryview(data)
    while view:
        room = reader.buffer()
        count = min(len(room), len(view))
        room[:count] = view[:count]
        view = view[count:]
        blocks += reader.filled(count)
    reader.finish()
    return blocks


class World:
    """Virtual time, links that break, attempts that die, and a controller that replaces them."""

    def __init__(self, shape: Shape, seed: int, *, budget: Budget, burst: int = 8) -> None:
        self.shape = shape
        self.seed = seed
        self.random = random.Random(seed)
        self.budget = budget
        self.burst = burst
        self.block_bytes = burst * (max(job.record_bytes for job in shape.jobs) + 40)
        self.now = 0.0
        self.ins, self.outs = canonical(shape)
        self.processed: dict[tuple[str, int], list[tuple[int, int]]] = {
            (job.name, replica): [] for job in shape.jobs for replica in range(job.replicas)
        }
        self.current: dict[tuple[str, int], Node] = {}
        """What sinks were given: round and epoch of the attempt."""
        self.counts: dict[str, int] = {}
        self.machines: list[AttemptMachine] = []
        self.done: set[tuple[str, int]] = set()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._numbers = itertools.count(1)
        self._calls: list[Call] = []
        self.cut_until = 0.0
        self.flips = 0.0
        """How likely it is that a message between nodes is not what was sent."""
        self.late_kills = 0
        """How many attempts are still to be killed soon after their programs have ended."""

    def feed(self, job: str, replica: int, port: str) -> list[bytes]:
        """Return what comes on an input port when nothing goes wrong."""
        return self.ins[job, replica, port]

    # ---- time -----------------------------------------------------------------------------------

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(when, self.now), next(self._order), what))

    def later(self, what: Callable[[], None]) -> None:
        self.at(self.now + self.random.expovariate(2000), what)

    def run(self, *, until_done: float) -> None:
        for job in self.shape.jobs:
            for replica in range(job.replicas):
                self.place(job, replica)
        while self._events and len(self.done) < len(self.processed):
            self.now, _, what = heapq.heappop(self._events)
            assert self.now < until_done, f"not drained: {self.describe()}"
            what()
        assert len(self.done) == len(self.processed), f"stuck: {self.describe()}"
        counters = [one for machine in self.machines for one in machine.counters(self.now)]
        broken = sum(one.broken for one in counters)
        assert broken <= self.counts.get("flips seen", 0), f"{broken} lanes broke by themselves"
        if all(edge.ordered for edge in self.shape.edges):
            # Whoever is run again sends the same, so a digest that differs was not counted right.
            assert not sum(one.mismatches for one in counters), f"seed {self.seed}: digests differ"

    def describe(self) -> str:
        return "; ".join(
            f"{node.address} {node.machine.stage.value} {node.machine.counters(self.now)}"
            for node in self.current.values()
        )

    # ---- the controller -------------------------------------------------------------------------

    def plan(self, job: JobShape, replica: int, epoch: int, *, replacement: bool) -> AttemptPlan:
        inputs = tuple(
            InputPlan(
                edge.into,
                PortBinding(),
                tuple(
                    self.lane(edge, producer, replica, output=False)
                    for producer in range(self.shape.job(edge.producer).replicas)
                ),
                edge.block_count,
                edge.ordered,
            )
            for edge in self.shape.inputs(job.name)
        )
        outputs = tuple(
            OutputPlan(
                port,
                PortBinding(),
                tuple(
                    self.lane(edge, replica, consumer, output=True)
                    for edge in self.shape.edges
                    if (edge.producer, edge.port) == (job.name, port)
                    for consumer in range(self.shape.job(edge.consumer).replicas)
                ),
            )
            for port in self.shape.ports(job.name)
        )
        return AttemptPlan(epoch, job.resume, replacement, replica, job.replicas, inputs, outputs)

    def lane(self, edge: Edge, producer: int, consumer: int, *, output: bool) -> Lane:
        name = f"{edge.producer}-{producer}.{edge.port}/{edge.consumer}-{consumer}.{edge.into}"
        if output:
            port, peer_port, job, replica = edge.port, edge.into, edge.consumer, consumer
        else:
            port, peer_port, job, replica = edge.into, edge.port, edge.producer, producer
        return Lane(
            name,
            output,
            port,
            replica,
            self.shape.job(job).replicas,
            self.peer(job, replica),
            edge.distribute,
            peer_port,
            job,
            keep=edge.keep,
        )

    def lanes(self, job: str, replica: int) -> tuple[Lane, ...]:
        found: list[Lane] = []
        for edge in self.shape.edges:
            if edge.producer == job:
                others = range(self.shape.job(edge.consumer).replicas)
                found += [self.lane(edge, replica, other, output=True) for other in others]
            if edge.consumer == job:
                others = range(self.shape.job(edge.producer).replicas)
                found += [self.lane(edge, other, replica, output=False) for other in others]
        return tuple(found)

    def peer(self, job: str, replica: int) -> LanePeer:
        node = self.current.get((job, replica))
        done = (job, replica) in self.done
        if node is None:
            return LanePeer(done=done)
        return LanePeer(node.address if node.alive else "", "", node.epoch, done)

    def place(self, job: JobShape, replica: int) -> None:
        before = self.current.get((job.name, replica))
        epoch = 1 if before is None else before.epoch + 1
        node = Node(self, job, replica, epoch, replacement=before is not None)
        self.current[job.name, replica] = node
        self.machines.append(node.machine)
        self.later(lambda: node.post(Attached()))
        self.tell_all()

    def tell_all(self) -> None:
        for (name, replica), node in self.current.items():
            self.tell(node, name, replica)

    def tell(self, node: Node, name: str, replica: int) -> None:
        def say() -> None:
            if node.machine.stage not in {Stage.NEW, Stage.GONE}:
                node.post(LanesChanged(self.lanes(name, replica)))
            elif node.machine.stage is Stage.NEW:
                self.at(self.now + 0.01, say)

        self.at(self.now + self.random.uniform(0.001, 0.05), say)

    def readers(self, job: str, replica: int) -> list[tuple[str, int]]:
        """Return who gets records of a replica."""
        del replica
        return [
            (edge.consumer, consumer)
            for edge in self.shape.edges
            if edge.producer == job
            for consumer in range(self.shape.job(edge.consumer).replicas)
        ]

    def drained(self, node: Node) -> None:
        key = (node.job.name, node.replica)
        if self.current[key] is node:
            for reader in self.readers(*key):
                assert reader in self.done, f"{key} let go before {reader}"

        def commit() -> None:
            if not node.alive or self.current[key] is not node:
                return
            self.done.add(key)
            node.committed = True
            self.tell_all()
            # The agent lets go of the attempt once the controller has its end.
            self.at(self.now + 0.2, lambda: self.remove(node))

        self.at(self.now + self.random.uniform(0.001, 0.1), commit)

    def failed(self, node: Node, code: ReasonCode, message: str) -> None:
        self.counts[str(code)] = self.counts.get(str(code), 0) + 1
        assert code is ReasonCode.REWIND, message
        if self.current[node.job.name, node.replica] is node:
            self.at(self.now + 0.01, lambda: self.replace(node))

    # ---- faults ---------------------------------------------------------------------------------

    def kill(self, key: tuple[str, int]) -> None:
        """End an attempt without warning."""
        node = self.current.get(key)
        if node is None or not node.alive or key in self.done:
            return
        self.counts["killed"] = self.counts.get("killed", 0) + 1
        self.crash(node)
        self.at(self.now + self.random.uniform(0.01, 0.2), lambda: self.replace(node))

    def zombie(self, key: tuple[str, int]) -> None:
        """Replace an attempt that goes on working for a while."""
        node = self.current.get(key)
        if node is None or not node.alive or key in self.done:
            return
        self.counts["zombies"] = self.counts.get("zombies", 0) + 1
        self.replace(node)
        self.at(self.now + self.random.uniform(0.05, 0.5), lambda: self.crash(node))

    def replace(self, node: Node) -> None:
        key = (node.job.name, node.replica)
        if self.current[key] is node and key not in self.done:
            self.place(node.job, node.replica)

    def crash(self, node: Node) -> None:
        node.alive = False
        for call in [*node.calls.values(), *node.dials.values()]:
            self.close(call)

    def remove(self, node: Node) -> None:
        node.post(Detached())
        assert not node.spool, "the spool outlives its attempt"
        node.alive = False

    def cut(self, share_of_calls: float) -> None:
        """Break some of the calls."""
        self.counts["cuts"] = self.counts.get("cuts", 0) + 1
        for call in self._calls:
            if call.open and self.random.random() < share_of_calls:
                self.close(call)

    def lie(self, share_of_calls: float) -> None:
        """Say on some of the calls that their consumers are done, as only a client's may."""
        for call in self._calls:
            if call.open and call.producer is not None and self.random.random() < share_of_calls:
                self.counts["lies"] = self.counts.get("lies", 0) + 1
                call.producer.post(CallDone(call.number, call.lane))

    def isolate(self, seconds: float) -> None:
        """Let no call come through for a while, and break those that there are."""
        self.cut_until = self.now + seconds
        self.cut(1.0)

    # ---- links ----------------------------------------------------------------------------------

    def dial(self, consumer: Node, effect: Dial) -> None:
        producer = next(
            (node for node in self.current.values() if node.address == effect.address), None
        )
        call = Call(next(self._numbers), effect.lane, effect.dial, consumer, producer)
        consumer.dials[effect.lane, effect.dial] = call
        self._calls = [one for one in self._calls if one.open]
        self._calls.append(call)
        opened = CallOpened(
            call.number, effect.lane, effect.consumer_epoch, effect.producer_epoch, effect.want,
            effect.credit_bytes, parts=True, bulk=effect.bulk, released=effect.released,
        )  # fmt: skip

        def arrive() -> None:
            refused = (
                producer is None
                or not producer.alive
                or producer.machine.stage in {Stage.NEW, Stage.GONE}
                or self.now < self.cut_until
                or effect.lane not in producer.machine.output_lanes
            )
            if not call.open:
                return
            if refused or producer is None:
                call.producer = None
                self.close(call)
            else:
                producer.calls[call.number] = call
                producer.post(opened)

        self.at(self.now + self.random.expovariate(1000), arrive)

    def up(self, call: Call, event: Event) -> None:
        producer = call.producer
        if not call.open or producer is None:
            return
        call.last_up = max(call.last_up, self.now + self.random.expovariate(2000))
        self.at(call.last_up, lambda: producer.post(event) if call.open else None)

    def carry(self, call: Call, head: bytes, body: bytes) -> None:
        """Carry a block over a wire that may flip a bit, a large one in parts."""
        if len(body) <= PART_BYTES:
            self.down(call, self.flipped(head + body, len(head)))
            return
        for offset in range(0, len(body), PART_BYTES):
            before = OFFSET.pack(offset) + (b"" if offset else head)
            piece = body[offset : offset + PART_BYTES]
            self.counts["parts"] = self.counts.get("parts", 0) + 1
            self.down(call, self.flipped(before + piece, len(before)), part=True)

    def flipped(self, data: bytes, at: int) -> bytes:
        """Return `data`, sometimes with another bit from `at` on."""
        if self.random.random() >= self.flips:
            return data
        self.counts["flips"] = self.counts.get("flips", 0) + 1
        wrong = bytearray(data)
        wrong[self.random.randrange(at, len(data))] ^= 1 << self.random.randrange(8)
        return bytes(wrong)

    def read(self, call: Call, data: bytes, *, part: bool) -> Event | None:
        """Read what came, as the consumer's worker does."""
        try:
            block = call.assembler.part(data) if part else decode(data)
        except BlockError as error:
            self.close(call, told=False)
            self.counts["flips seen"] = self.counts.get("flips seen", 0) + 1
            return DialBroken(call.lane, call.dial, "BROKEN", str(error))
        return None if block is None else DialBlock(call.lane, call.dial, block)

    def down(
        self, call: Call, event: Event | bytes, *, last: bool = False, part: bool = False
    ) -> None:
        if not call.open:
            return
        call.last_down = max(call.last_down, self.now + self.random.expovariate(2000))

        def arrive() -> None:
            if call.open:
                came = self.read(call, event, part=part) if isinstance(event, bytes) else event
                if came is not None:
                    call.consumer.post(came)
            if last:
                self.close(call)

        self.at(call.last_down, arrive)

    def close(self, call: Call, *, told: bool = True) -> None:
        """End a call; both ends hear of it, each in its own time; the consumer unless it knows."""
        if not call.open:
            return
        call.open = False
        consumer, producer = call.consumer, call.producer
        broken = DialBroken(call.lane, call.dial, "UNAVAILABLE")
        if told:
            self.later(lambda: consumer.post(broken))
        if producer is not None:
            self.later(lambda: producer.post(CallClosed(call.number, call.lane)))
