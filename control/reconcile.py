"""Reconcile: what an agent knows against what should be on its node, on every connect.

Nothing is replayed as a command. What both know is kept and goes on; what only the agent knows is
stale; what only the controller knows was either never delivered, or the agent has lost it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from shoal.model import JobState
from shoal.names import AttemptRef


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The outcome, each in the order of the input."""

    kept: tuple[AttemptRef, ...]
    """Both know it."""
    stale: tuple[AttemptRef, ...]
    """Only the agent knows it."""
    undelivered: tuple[AttemptRef, ...]
    """The agent never said anything about it: the snapshot tells it."""
    missing: tuple[AttemptRef, ...]
    """The agent worked on it and knows nothing of it any more: it is lost."""


def reconcile(
    desired: Mapping[AttemptRef, JobState], observed: Collection[AttemptRef]
) -> Reconciled:
    """Compare the attempts placed on a node, with their last known states, with the agent's."""
    known = frozenset(observed)
    absent = [ref for ref in desired if ref not in known]
    return Reconciled(
        kept=tuple(ref for ref in observed if ref in desired),
        stale=tuple(ref for ref in observed if ref not in desired),
        undelivered=tuple(ref for ref in absent if desired[ref] is JobState.ASSIGNED),
        missing=tuple(ref for ref in absent if desired[ref] is not JobState.ASSIGNED),
    )
