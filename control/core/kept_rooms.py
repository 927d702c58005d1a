"""Which jobs find their room again when they are tried again.

Rule: a job that waits for its next attempt keeps its room on the node where it can go, against every
other job. Its neighbours run, hold theirs, and wait for it. Example: a pinned source has failed and
waits for 3 s; a sink is lost meanwhile, and would fit where the source was. Then the source would wait
for room and the sink for the source, for ever.

A pinned job can go nowhere else, so its room is kept until it is placed or ends. Any other can, so its
room is kept until the first plan that looks at it, and only if it has neighbours. A job that was lost
with its node, and is not pinned, has no room there.
"""

from __future__ import annotations

from collections.abc import Iterator

from control.core.scheduler.snapshot import Kept
from control.core.state import JobRecord, PipelineRecord
from shoal.model import JobState
from shoal.names import JobRef


class KeptRooms:
    """The rooms that are kept, by job."""

    def __init__(self) -> None:
        self._kept: dict[JobRef, Kept] = {}

    def __contains__(self, ref: JobRef) -> bool:
        return ref in self._kept

    def __iter__(self) -> Iterator[JobRef]:
        """The jobs that have any."""
        return iter(self._kept)

    def keep(self, pipeline: PipelineRecord, job: JobRecord) -> None:
        """Keep the room of a job that is tried again, if it has any."""
        node = job.pinned_node or _last_node(pipeline, job)
        if node:
            pinned = bool(job.pinned_node)
            self._kept[job.ref] = Kept(job.ref, node, job.spec.resources, pinned)

    def release(self, ref: JobRef) -> Kept | None:
        """Keep nothing for a job any more; return what was kept."""
        return self._kept.pop(ref, None)

    def tried(self, ref: JobRef) -> bool:
        """A plan found no node for a job; return whether its room is free for others now."""
        kept = self._kept.get(ref)
        if kept is None or kept.pinned:
            return False
        del self._kept[ref]
        return True

    def all(self) -> tuple[Kept, ...]:
        """All of them, as the scheduler wants to know them."""
        return tuple(self._kept.values())


def _last_node(pipeline: PipelineRecord, job: JobRecord) -> str:
    """The node of the last attempt of a job, if its neighbours wait for it to be tried again there."""
    if job.state is not JobState.RETRY_WAIT or not job.attempts:
        return ""
    topology = pipeline.topology
    alone = len(topology.members[topology.gangs[job.ref.job]]) == 1
    last = job.attempts[-1].node
    return "" if alone or last in job.avoid else last
