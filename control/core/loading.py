"""The control machine begins with what the store remembers."""

from __future__ import annotations

from control.core import lifecycle, scaling
from control.core.gossip import GossipVerdicts
from control.core.outcomes import Outcomes
from control.core.placement import Placer
from control.core.rows import Loaded, ScaleRow
from control.core.scales import Scales
from control.core.situation import Situation
from control.core.sources import Sources
from control.core.state import AttemptRecord, JobRecord, NodeRecord, PipelineRecord
from control.core.submissions import Submissions
from control.core.topology import Topology, topology
from shoal.model import JobState
from shoal.names import PipelineRef


class Loading:
    """Builds records, leases, queue and retries from rows; every node's lease begins anew."""

    def __init__(
        self,
        situation: Situation,
        sources: Sources,
        placement: Placer,
        scales: Scales,
        outcomes: Outcomes,
        gossip: GossipVerdicts,
        submissions: Submissions,
    ) -> None:
        self._situation = situation
        self._sources = sources
        self._placement = placement
        self._scales = scales
        self._outcomes = outcomes
        self._gossip = gossip
        self._submissions = submissions

    def load(self, loaded: Loaded) -> None:
        """Take everything that was recorded."""
        cluster = self._situation.cluster
        for node_row in loaded.nodes:
            node = cluster.nodes[node_row.name] = NodeRecord.load(node_row)
            self._gossip.load(node)
            self._situation.leases.renew(node.name, self._situation.now)
        rows = {row.ref: row for row in loaded.pipelines}
        topologies: dict[int, Topology] = {}
        scales: dict[PipelineRef, list[ScaleRow]] = {}
        for scale in loaded.scales:
            scales.setdefault(scale.ref, []).append(scale)
        for added in loaded.added:
            shared = topologies.get(id(added.spec))  # equal specs are one object
            if shared is None:
                shared = topologies[id(added.spec)] = topology(added.spec)
            pipeline = PipelineRecord.begin(added, shared)
            if added.ref in scales:
                pipeline.scales = scales[added.ref]
                pipeline.grow(topology(added.spec, scaling.grown(pipeline)))
                if pipeline.holding is not None:
                    self._scales.hold(pipeline)
            row = rows.get(added.ref)
            if row is not None:
                pipeline.state = row.state
                pipeline.reason = row.reason
                pipeline.stop = row.stop
                pipeline.end_time = row.end_time
                pipeline.final_event_id = row.final_event_id
                pipeline.finish_time = row.finish_time
            pipeline.revision = self._situation.change.revision
            self._submissions.remember(pipeline)
        self._load_jobs(loaded)
        ended = [one for one in cluster.pipelines.values() if one.state.terminal]
        ended.sort(key=lambda one: (one.end_time or one.create_time, one.position))
        self._situation.ended.extend(one.ref for one in ended)
        for pipeline in cluster.pipelines.values():
            pipeline.open_jobs = sum(not job.ended for job in pipeline.jobs.values())
            self._sources.end(pipeline)
            for job in pipeline.jobs.values():
                if job.state is JobState.QUEUED:
                    self._situation.backlog.add(job, pipeline.kind(job))
                if job.state in {JobState.QUEUED, JobState.RETRY_WAIT}:
                    self._situation.kept_rooms.keep(pipeline, job)

    def _load_jobs(self, loaded: Loaded) -> None:
        cluster = self._situation.cluster
        for row in loaded.jobs:
            job = self._situation.pipeline_of(row.ref).jobs[row.ref.job]
            job.state = row.state
            job.reason = row.reason
            job.epoch = row.epoch
            job.number = row.number
            job.failures = row.failures
            job.losses = row.losses
            job.retry_time = row.retry_time
            job.pinned_node = row.pinned_node
            job.avoid = row.avoid
            job.ends = row.ends
            if row.state is JobState.RETRY_WAIT:
                self.load_retry(job)
        for seen in loaded.attempts:
            job = self._situation.pipeline_of(seen.ref.job_ref).jobs[seen.ref.job]
            attempt = AttemptRecord(
                ref=seen.ref,
                node=seen.node,
                state=seen.state,
                create_time=seen.create_time,
                reason=seen.reason,
                start_time=seen.start_time,
                end_time=seen.end_time,
                holds=seen.holds,
                ended_inputs=seen.ended_inputs,
            )
            job.attempts.append(attempt)
            if seen.state in lifecycle.PLACED:
                job.attempt = attempt
                cluster.nodes[seen.node].attempts[seen.ref] = attempt
                if seen.state is JobState.ASSIGNED:
                    self._placement.chase(attempt)
        for manifest in loaded.manifests:
            self._situation.pipeline_of(manifest.attempt.job_ref).jobs[
                manifest.attempt.job
            ].manifest = manifest

    def load_retry(self, job: JobRecord) -> None:
        """Let a job go on to wait for its next attempt."""
        # The wall clock may have been set meanwhile, so it may shorten the wait but not stretch it.
        left = (
            (job.retry_time - self._situation.wall_time).total_seconds() if job.retry_time else 0.0
        )
        longest = max(
            job.spec.retry.backoff_limit_seconds,
            self._situation.config.loss_backoff.maximum_seconds,
        )
        self._outcomes.retry_at(job, self._situation.now + min(max(left, 0.0), longest))
