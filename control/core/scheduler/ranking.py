"""Ranking: which of several feasible nodes is best, as one number.

From strong to weak: not where the job was lost before; preferred by the spec, in its order; not
suspected; not hot, that is with thermal headroom; apart from (or close to) replicas of the job and jobs of
the pipeline; not warm; the bundle is there already; the fewest (or most) cores claimed. The steps are so
far apart that a weaker one never outweighs a stronger one.
"""

from __future__ import annotations

from control.core.scheduler.room import NodeRoom
from control.core.scheduler.snapshot import Pending
from shoal.node_facts import Heat
from shoal.spec import Strategy

AVOIDED = -1e8
PREFERRED = 1e5
SUSPECTED = -5e4
HOT = -2e4
REPLICA = 100.0
NEIGHBOUR = 10.0
WARM = -5.0
CACHED = 2.0

_REPLICAS_MAX = 99
_NEIGHBOURS_MAX = 9
_PREFERRED_MAX = 500


def base_score(job: Pending, room: NodeRoom) -> float:
    """Return the part of the score that is equal for jobs of one shape."""
    share = room.claimed_share
    score = share if job.place.strategy is Strategy.PACK else -share
    if job.bundle_digest and job.bundle_digest in room.node.bundles:
        score += CACHED
    if room.node.suspected:
        score += SUSPECTED
    if room.node.heat is Heat.HOT:
        score += HOT
    elif room.node.heat is Heat.WARM:
        score += WARM
    return score


def own_score(job: Pending, node: str, replicas: int, neighbours: int) -> float:
    """Return the part that belongs to this job.

    Args:
        job: The job.
        node: Name of the node.
        replicas: Attempts there of the same job of the spec.
        neighbours: Attempts there of other jobs of the same pipeline.
    """
    near = REPLICA * min(replicas, _REPLICAS_MAX) + NEIGHBOUR * min(neighbours, _NEIGHBOURS_MAX)
    score = near if job.place.strategy is Strategy.PACK else -near
    if node in job.avoid:
        score += AVOIDED
    prefer = job.place.prefer
    if node in prefer:
        score += PREFERRED * (_PREFERRED_MAX - min(prefer.index(node), _PREFERRED_MAX - 1))
    return score
