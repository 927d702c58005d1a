"""What an agent is told next of what should run on its node: a snapshot, then what changed.

Of an attempt of which nothing changed but lanes, its lanes travel alone: peers move often, and the
rest of an assignment is long and carries addresses that are signed anew each time. An agent that
does not take that (`Hello.takes_lanes`) is told the whole assignment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.session.attempt_lanes import AttemptLanes, lanes_between
from shoal.session.lane import Lane
from shoal.session.messages import Desired

Wanted = Mapping[AttemptRef, Assignment]
"""What should run on a node."""


def delta(
    sent: Wanted | None, wanted: Wanted, *, revision: int, commit: int, takes_lanes: bool
) -> Desired | None:
    """Return what leads from what was sent before, in this session, to what is wanted now.

    Args:
        sent: What was sent, or None before the snapshot.
        wanted: What should run.
        revision: The revision of what is wanted.
        commit: By which commit it was recorded.
        takes_lanes: Whether the agent takes lanes without their assignment.

    Returns:
        None where nothing changed.
    """
    if sent is None:
        return Desired(revision, snapshot=True, assignments=tuple(wanted.values()), commit=commit)
    assignments: list[Assignment] = []
    lanes: list[AttemptLanes] = []
    for ref, one in wanted.items():
        known = sent.get(ref)
        if known is one or known == one:  # most are the same object
            continue
        moved = _moved(known, one) if takes_lanes and known is not None else None
        if moved is None:
            assignments.append(one)
        else:
            lanes.append(AttemptLanes(ref, moved))
    removed = tuple(ref for ref in sent if ref not in wanted)
    if not assignments and not lanes and not removed:
        return None
    return Desired(
        revision,
        snapshot=False,
        assignments=tuple(assignments),
        removed=removed,
        commit=commit,
        lanes=tuple(lanes),
    )


def _moved(known: Assignment, one: Assignment) -> tuple[Lane, ...] | None:
    """The lanes that changed, if nothing else did."""
    if replace(known, lanes=one.lanes) != one:
        return None
    return lanes_between(known.lanes, one.lanes)
