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
    """The agent may have worked on it and knows nothing of it any more: it is lost."""


def reconcile(
    desired: Mapping[AttemptRef, JobState],
    observed: Collection[AttemptRef],
    *,
    same_agent: bool,
) -> Reconciled:
    """Compare the attempts placed on a node with those that its agent knows.

    Args:
        desired: The placed attempts with their last known states.
        observed: What the agent's Hello names.
        same_agent: Whether it is the process that had the last session. Another one cannot say
            whether an attempt that it does not know was never delivered or began and was lost
            with the node, and an attempt begins once.
    """
    known = frozenset(observed)
    absent = [ref for ref in desired if ref not in known]
    fresh = [ref for ref in absent if same_agent and desired[ref] is JobState.ASSIGNED]
    return Reconciled(
        kept=tuple(ref for ref in observed if ref in desired),
        stale=tuple(ref for ref in observed if ref not in desired),
        undelivered=tuple(fresh),
        missing=tuple(ref for ref in absent if ref not in fresh),
    )
