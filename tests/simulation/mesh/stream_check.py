"""Looks at what programs were given on their ports: order, no loss, no repeat, nothing made up.

Every attempt is looked at, committed or not; a sink that is committed has processed everything. What
a port has when nothing goes wrong is reckoned from the shape of its pipeline, and from where its
source was told to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from shoal.names import AttemptRef
from tests.simulation.mesh.program import Program
from tests.simulation.mesh.story import ENDLESS
from tests.simulation.mesh.stream_guarantees import Expected, missing, violations
from tests.simulation.mesh.stream_shape import Canon, Edge, Shape, canonical

SLACK = 50
"""Records beyond those that came, of a source whose end is not known."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of a pipeline that streams.

    `ends` is after how many records its source was told to end, if it was; `scaled` whether the
    replicas of its job in the middle were changed.
    """

    shape: Shape
    programs: Mapping[str, Sequence[tuple[AttemptRef, Program]]]
    """Every attempt of each job, by the job's id, as they began."""
    committed: Mapping[str, AttemptRef]
    """Which attempt of each job is committed, by the job's id."""
    ends: int | None
    scaled: bool


def problems(told: Told) -> Iterator[str]:
    """Yield what breaks a promise, in words."""
    shape = told.shape
    source = shape.job("source")
    most = max(
        (
            (delivery.numbered[-1][0] + 1) * 3
            for attempts in told.programs.values()
            for _, program in attempts
            for edge in shape.inputs(program.shape.name)
            if (delivery := program.deliveries.get(edge.into)) is not None and delivery.numbered
        ),
        default=0,
    )
    # A source that was told to end may have sent more before, to attempts that were lost.
    whole = most + SLACK if source.records == ENDLESS else source.records
    if told.scaled:
        # What comes out of the middle is the same whatever the number of its replicas.
        shape = Shape(
            tuple(replace(job, replicas=1) if job.name == "map" else job for job in shape.jobs),
            shape.edges,
        )
    ins = _inputs(shape, whole if told.ends is None else told.ends)
    sent = _inputs(shape, whole)
    for job, attempts in told.programs.items():
        for ref, program in attempts:
            for complaint in program.complaints:
                yield f"{ref.name}: {complaint}"
        name = attempts[0][1].shape.name
        edges = shape.inputs(name)
        if told.scaled and name == "map":
            continue
        for edge in edges:
            key = name, attempts[0][1].replica, edge.into
            expected = Expected(ins[key], edge.block_count)
            for ref, program in attempts:
                found = list(violations(expected, program.deliveries[edge.into]))
                if found and told.ends is not None and told.committed.get(job) != ref:
                    # One that was lost may have been given what comes after the end, too; and where
                    # rounds take several records, the last one before it was whole then.
                    program.deliveries[edge.into].end = None
                    longer = Expected(sent[key], edge.block_count)
                    found = list(violations(longer, program.deliveries[edge.into]))
                for one in found:
                    yield f"{ref.name} of epoch {ref.epoch}, port {edge.into}: {one}"
            # A job in the middle may end once all that read it have what they want.
            if job in told.committed and not shape.ports(name):
                yield from _whole(shape, edge, expected, attempts, told.committed[job])


def _inputs(shape: Shape, records: int) -> Canon:
    jobs = (replace(job, records=records) if job.name == "source" else job for job in shape.jobs)
    return canonical(Shape(tuple(jobs), shape.edges))[0]


def _whole(
    shape: Shape,
    edge: Edge,
    expected: Expected,
    attempts: Sequence[tuple[AttemptRef, Program]],
    committed: AttemptRef,
) -> Iterator[str]:
    rounds = [program.processed for ref, program in attempts if ref != committed]
    rounds += [program.processed for ref, program in attempts if ref == committed]
    for one in missing(expected, rounds, resumes=shape.job(edge.consumer).resume):
        yield f"{committed.name}: {one}"
