"""Generations: how the replicas of a job that was scaled share its streams, in numbers alone.

A job that is scaled gets a new generation of replicas. Those before it have `rounds` rounds each,
and it has what comes after. Since a job that may be scaled sends one record on each output in each
round, that one number cuts its inputs and its outputs (docs/adr/0007-generations.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from control.core.rows import ScaleRow
from shoal.model import ScaleState
from shoal.spec import Distribute, Job, StreamInput


@dataclass(frozen=True, slots=True)
class Generation:
    """Replicas of a job that were begun together.

    Attributes:
        replicas: how many there are.
        rounds: how many rounds each of them has; None for the newest, which has all that come.
        opened: number of the scale that began it; 0 for the submission.
        closed: number of the scale that began the next one, if there is one.
    """

    replicas: int
    rounds: int | None = None
    opened: int = 0
    closed: int | None = None


def generations(job: Job, scales: Iterable[ScaleRow]) -> tuple[Generation, ...]:
    """Return the generations of a job, given the scales of its pipeline in their order."""
    found: list[Generation] = []
    replicas, opened = job.replicas, 0
    for scale in scales:
        if scale.job == job.name and scale.state is ScaleState.SETTLED:
            found.append(Generation(replicas, scale.rounds, opened, scale.number))
            replicas, opened = scale.replicas, scale.number
    return (*found, Generation(replicas, None, opened))


def first_number(before: Sequence[Generation]) -> int:
    """Return the number in the id of the first replica after these generations."""
    return sum(one.replicas for one in before)


def replica_id(name: str, number: int) -> str:
    """Return the id of a replica that was not there from the beginning."""
    return f"{name}-{number}"


def sent_by(before: Sequence[Generation]) -> int:
    """Return how many records these generations send on each output."""
    return sum(one.replicas * (one.rounds or 0) for one in before)


def taken_by(before: Sequence[Generation], stream: StreamInput, distribute: Distribute) -> int:
    """Return how many records of a stream these generations take, as a global index."""
    return sum((one.rounds or 0) * unit(one.replicas, stream, distribute) for one in before)


def unit(replicas: int, stream: StreamInput, distribute: Distribute) -> int:
    """Return how many records of a stream all replicas together take in one round each."""
    shared = distribute is Distribute.BROADCAST
    return stream.block_count * (1 if shared else replicas)


def apart(closed: Generation, end: int | None, begun: Generation, begin: int) -> bool:
    """Whether one generation was closed before another was begun, with no record in common.

    Then there are no lanes between them, and there never were.

    Args:
        closed: a generation at one end of a stream.
        end: global index at which it was closed, if it was.
        begun: a generation at the other end.
        begin: global index at which that one begins.
    """
    return closed.closed is not None and closed.closed <= begun.opened and (end or 0) <= begin
