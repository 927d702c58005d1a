"""What changed of the lanes of an attempt: all that travels when a peer moved.

Theory: a lane has an id, unique in its pipeline, and an attempt's lanes have an order, which the
stream worker keeps. A change lists lanes; each takes the place of the one with its id, and those
with a new id come behind all others, in their order. So `merged` makes one list from a list and a
change, and `lanes_between` finds the change that makes `after` from `before`, if there is one. There
is none where a lane is gone or a new one comes between others: then the whole list has to travel.

Example: peers of `a` and `b` are known, `b` moves: `[a, b, c]` and `[b']` make `[a, b', c]`. A
replica is added at the end: `[a, b]` and `[c]` make `[a, b, c]`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shoal.names import AttemptRef
from shoal.session.lane import Lane


@dataclass(frozen=True, slots=True)
class AttemptLanes:
    """The lanes of an attempt that are not what they were, or are new."""

    ref: AttemptRef
    lanes: tuple[Lane, ...]


def merged(before: Iterable[Lane], changed: Iterable[Lane]) -> tuple[Lane, ...]:
    """Return the lanes after a change."""
    lanes = {lane.id: lane for lane in before}
    lanes.update((lane.id, lane) for lane in changed)
    return tuple(lanes.values())


def lanes_between(before: Sequence[Lane], after: Sequence[Lane]) -> tuple[Lane, ...] | None:
    """Return what changed; None where no change makes `after` from `before`."""
    known = {lane.id: lane for lane in before}
    changed = tuple(lane for lane in after if known.get(lane.id) != lane)
    return changed if merged(before, changed) == tuple(after) else None
