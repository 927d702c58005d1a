"""Reconcile: what an agent knows against what should be on its node, on every connect.

Nothing is replayed as a command. What both know is kept and goes on; what only the agent knows is
stale, and fenced; what only the controller knows was either never delivered, so that the snapshot tells
it, or it is *missing*: the agent may have worked on it, and has lost it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from shoal.model import JobState
from shoal.names import AttemptRef


def missing(
    desired: Mapping[AttemptRef, JobState],
    observed: Collection[AttemptRef],
    *,
    same_agent: bool,
) -> tuple[AttemptRef, ...]:
    """Return the attempts that were placed on a node and are lost, in the order of `desired`.

    Args:
        desired: The placed attempts with their last known states.
        observed: What the agent's Hello names.
        same_agent: Whether it is the process that had the last session. Another one cannot say
            whether an attempt that it does not know was never delivered or began and was lost
            with the node, and an attempt begins once.
    """
    known = frozenset(observed)
    return tuple(
        ref
        for ref, state in desired.items()
        if ref not in known and not (same_agent and state is JobState.ASSIGNED)
    )
