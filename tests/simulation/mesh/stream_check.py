"""Looks at what programs were given on their ports: order, no loss, no repeat, nothing made up.

Every attempt is looked at, committed or not; a sink that is committed has processed everything. What
a port has when nothing goes wrong is reckoned from the shape of its pipeline, from where its source
was told to end, and from where the generations of a scaled job begin and end.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from control.core.state import JobRecord, PipelineRecord
from services.streams.machine import AttemptStreamsMachine
from services.streams.plan import StreamLimits
from shoal.model import StreamCounters
from shoal.names import AttemptRef
from shoal.spec import Distribute
from tests.simulation.mesh.port import ROOM_BYTES
from tests.simulation.mesh.program import Program
from tests.simulation.mesh.story import ENDLESS
from tests.simulation.mesh.stream_guarantees import Expected, missing, violations
from tests.simulation.mesh.stream_shape import Edge, JobShape, Shape, canonical, feeds_of

SLACK = 50
"""Records beyond those that came, of a source whose end is not known."""

Attempts = Sequence[tuple[AttemptRef, Program]]


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of a pipeline that streams.

    `ends` is after how many records its source was told to end, if it was; `counters` are those of
    every attempt that was seen.
    """

    shape: Shape
    record: PipelineRecord
    programs: Mapping[str, Attempts]
    """Every attempt of each job, by the job's id, as they began."""
    committed: Mapping[str, AttemptRef]
    """Which attempt of each job is committed, by the job's id, in that order."""
    ends: int | None
    counters: Sequence[StreamCounters]


def problems(told: Told) -> Iterator[str]:
    """Yield what breaks a promise, in words."""
    shape = told.shape
    order = list(told.committed)
    for job in order:
        for reader in told.record.topology.consumers(job):
            if reader not in order[: order.index(job)]:
                yield f"{job} was let go before {reader} was committed"
    if all(edge.ordered for edge in shape.edges) and any(one.mismatches for one in told.counters):
        # Whoever is run again sends the same, so a digest that differs was not reckoned right.
        yield "digests differ"
    if told.record.scales:
        # What comes out of a job that can be scaled is the same whatever the number of its replicas.
        jobs = (replace(job, replicas=1) if job.plain else job for job in shape.jobs)
        shape = Shape(tuple(jobs), shape.edges)
    due, sent = _Due(told, shape, told.ends), _Due(told, shape, None, endless=True)
    for job, attempts in told.programs.items():
        record = told.record.jobs[job]
        for ref, program in attempts:
            for complaint in program.complaints:
                yield f"{ref.name}: {complaint}"
        for edge in shape.inputs(record.spec.name):
            expected, longer = due.expected(record, edge), sent.expected(record, edge)
            for ref, program in attempts:
                delivery = program.deliveries[edge.into]
                found = list(violations(expected, delivery))
                if found and longer != expected and told.committed.get(job) != ref:
                    # One that was lost may have been given what comes after the end, too; and where
                    # rounds take several records, the last one before it was whole then.
                    found = list(violations(longer, replace(delivery, end=None)))
                for one in found:
                    yield f"{ref.name} of epoch {ref.epoch}, port {edge.into}: {one}"
            # A job in the middle may end once all that read it have what they want.
            if job in told.committed and not shape.ports(record.spec.name):
                yield from _lost(shape, edge, expected, attempts, told.committed[job])


def too_much(machine: AttemptStreamsMachine, shape: Shape, limits: StreamLimits) -> Iterator[str]:
    """Yield what an attempt keeps beyond what it may, and whom it blocks."""
    block = 2 * max(job.burst * (job.record_bytes + 40) for job in shape.jobs) + 400
    for lane, _ in machine._in_lanes.values():
        if sum(chunk.size for chunk in lane.queue) > limits.credit_bytes + block:
            yield f"more than the credit waits on {lane.plan.id}"
    out_ports = machine._outputs.values()
    memory = sum(out_port.memory_bytes for out_port in out_ports)
    # What a look at a port finds comes whole, although the machine stops reading within it.
    tails = 2 * block * max(1, len(machine.output_lanes)) + ROOM_BYTES
    if memory > limits.memory_bytes + limits.spooling_bytes + tails:
        yield f"{memory} bytes are kept in memory"
    for out_port in out_ports:
        if out_port._paused and not (out_port.reliable or out_port.spool_behind):
            yield "a consumer that wants the newest alone blocks its producer"


def _records(told: Told, job: JobShape, ends: int | None) -> int:
    """Return how many records a source sends, if it is told to end after so many."""
    if ends is not None or job.records != ENDLESS:
        return job.records if ends is None else ends
    # A source that was told to end may have sent more before, to attempts that were lost.
    return SLACK + max(
        (
            (delivery.numbered[-1][0] + 1) * 3
            for attempts in told.programs.values()
            for _, program in attempts
            for delivery in program.deliveries.values()
            if delivery.numbered
        ),
        default=0,
    )


class _Due:
    """What the ports of a pipeline have.

    Args:
        told: has the generations of jobs that were scaled.
        shape: the pipeline.
        ends: after how many records its source ends, if it was told to.
        endless: whether generations go on for ever, as one does that hears of no other.
    """

    def __init__(
        self, told: Told, shape: Shape, ends: int | None, *, endless: bool = False
    ) -> None:
        self._told = told
        self._endless = endless
        jobs = (
            job if shape.inputs(job.name) else replace(job, records=_records(told, job, ends))
            for job in shape.jobs
        )
        self._shape = Shape(tuple(jobs), shape.edges)
        self._ins, self._outs = canonical(self._shape)

    def expected(self, job: JobRecord, edge: Edge) -> Expected:
        """Return what an input port of a replica has when nothing goes wrong."""
        if self._told.record.scales:
            return Expected(self._stretch(job, edge), edge.block_count)
        begun = sum(map(len, self._told.programs.values()))
        return Expected(
            self._ins[edge.consumer, job.replica, edge.into],
            edge.block_count,
            () if edge.ordered else feeds_of(self._shape, self._outs, edge, job.replica),
            edge.keep,
            gap_may_be=begun > len(self._told.committed) + 1,
        )

    def _stretch(self, job: JobRecord, edge: Edge) -> list[bytes]:
        """Return the part of the whole stream that belongs to a replica of a generation."""
        parts = [
            self._outs[edge.producer, replica, edge.port]
            for replica in range(self._shape.job(edge.producer).replicas)
        ]
        every = [one for turn in zip_longest(*parts) for one in turn if one is not None]
        stretch = next(
            end.lane.stretch
            for end in self._told.record.topology.ends[job.ref.job]
            if not end.lane.output and end.lane.port == edge.into
        )
        mine = every[stretch.consumer_begin : None if self._endless else stretch.consumer_end]
        if edge.distribute is Distribute.BROADCAST:
            return mine
        return mine[job.replica :: job.spec.replicas]


def _lost(
    shape: Shape, edge: Edge, expected: Expected, attempts: Attempts, committed: AttemptRef
) -> Iterator[str]:
    rounds = [program.processed for ref, program in attempts if ref != committed]
    rounds += [program.processed for ref, program in attempts if ref == committed]
    for one in missing(expected, rounds, resumes=shape.job(edge.consumer).resume):
        yield f"{committed.name}: {one}"
