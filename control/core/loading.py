"""The control machine begins with what the store remembers."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from control.core.gossip import GossipVerdicts
from control.core.hydration import records
from control.core.machine_part import MachinePart
from control.core.memory import Memory
from control.core.nodes import Nodes
from control.core.outcomes import Outcomes
from control.core.placement import Placer
from control.core.rows import Loaded
from control.core.scales import Scales
from control.core.sources import Sources
from control.core.state import JobRecord, NodeRecord
from shoal.model import JobState


@dataclass(eq=False)
class Loading(MachinePart):
    """Builds records, leases, queue and retries from rows; every node's lease begins anew.

    It costs what is under way. Of what waits for its first node only names are put in line.
    """

    _sources: Sources
    _placement: Placer
    _scales: Scales
    _outcomes: Outcomes
    _nodes: Nodes
    _gossip: GossipVerdicts
    _memory: Memory

    def load(self, loaded: Loaded) -> None:
        """Take what was recorded."""
        situation = self._situation
        for node_row in loaded.nodes:
            node = situation.cluster.nodes[node_row.name] = NodeRecord.load(node_row)
            self._gossip.load(node)
            self._nodes.load(node)
            situation.leases.renew(node.name, situation.now)
        situation.ended = OrderedDict.fromkeys(loaded.ended)
        situation.dead = dict(loaded.dead)
        for creator, count in loaded.open_of.items():
            situation.count_of(creator, count)
        found = records(loaded.rows, situation.cluster)
        for pipeline in found:
            self._memory.remember(pipeline)
            for job in pipeline.jobs.values():
                self._load_job(job)
        for pipeline in found:
            if pipeline.holding is not None:
                self._scales.hold(pipeline)
            self._sources.end(pipeline)
            for job in pipeline.jobs.values():
                if job.state is JobState.QUEUED:
                    situation.backlog.add(job, pipeline.kind(job), early=True)
                if job.state in {JobState.QUEUED, JobState.RETRY_WAIT}:
                    situation.kept_rooms.keep(pipeline, job)
        self._memory.line_up(loaded.queued)

    def _load_job(self, job: JobRecord) -> None:
        if job.state is JobState.RETRY_WAIT:
            self.load_retry(job)
        attempt = job.attempt
        if attempt is not None:
            self._cluster.nodes[attempt.node].attempts[attempt.ref] = attempt
            if attempt.state is JobState.ASSIGNED:
                self._placement.chase(attempt)

    def load_retry(self, job: JobRecord) -> None:
        """Let a job go on to wait for its next attempt."""
        # The wall clock may have been set meanwhile, so it may shorten the wait but not stretch it.
        left = (
            (job.retry_time - self._situation.wall_time).total_seconds() if job.retry_time else 0.0
        )
        longest = max(
            job.spec.retry.backoff_limit_seconds, self._config.loss_backoff.maximum_seconds
        )
        self._outcomes.retry_at(job, self._situation.now + min(max(left, 0.0), longest))
