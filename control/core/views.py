"""Pictures of the machine's records for people, as `shoal.view` has them."""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter

from control.core import lifecycle
from control.core.rows import ScaleRow
from control.core.state import AttemptRecord, Cluster, JobRecord, NodeRecord, PipelineRecord
from shoal.model import JobState
from shoal.view import AttemptView, JobView, Manifest, NodeView, PipelineView, ScaleView


def pipeline_view(pipeline: PipelineRecord) -> PipelineView:
    """A pipeline with its jobs; the picture of a job is kept until `job.view` is cleared."""
    return PipelineView(
        id=pipeline.ref.pipeline,
        namespace=pipeline.ref.namespace,
        state=pipeline.state,
        spec=pipeline.spec,
        reason=pipeline.reason,
        create_time=pipeline.create_time,
        end_time=pipeline.end_time,
        jobs=tuple(job.view or _job_view(pipeline, job) for job in pipeline.jobs.values()),
        revision=pipeline.revision,
        final_event_id=pipeline.final_event_id,
        scales=tuple(map(_scale_view, pipeline.scales)),
        finish_time=pipeline.finish_time,
        creator=pipeline.creator,
        dead_letter=pipeline.dead_letter,
        revived_from=pipeline.revived_from,
        revived_by=pipeline.revived_by,
        prefetch=pipeline.prefetched,
    )


def node_view(cluster: Cluster, node: NodeRecord) -> NodeView:
    """A node with what is claimed of it."""
    return NodeView(
        name=node.name,
        connected=bool(node.session_id),
        drained=node.drained,
        move_time=node.move_time,
        refuses=node.condition.refuses,
        kept=node.condition.kept,
        keeper_version=node.condition.keeper_version,
        stream_worker_version=node.condition.stream_worker_version,
        outdated=node.condition.outdated,
        member_state=node.member_state,
        capacity=node.capacity,
        claimed=cluster.snapshot(node).claimed,
        labels=node.labels,
        attempts=tuple(sorted(ref.name for ref in node.attempts)),
        agent_version=node.agent_version,
        architecture=node.architecture,
        stream_address=node.stream_address,
        last_seen_time=node.last_seen_time,
        revision=node.revision,
        quarantine=node.quarantine,
        conflict=node.conflict,
        sandbox=node.sandbox,
    )


def waits_for(pipeline: PipelineRecord, job: JobRecord) -> str:
    """For what a job waits and until when, in the words of the best source; empty if it does not."""
    wait = lifecycle.WAITS.get(job.state)
    if wait is None:
        return ""
    said = "" if job.state is JobState.RUNNING else job.progress
    return (
        job.waiting_for
        or said
        or wait.sentence.format(
            node=job.attempt.node if job.attempt else "",
            neighbours=", ".join(_unfinished(pipeline, job)) or "its consumers",
            time=job.retry_time.strftime("%Y-%m-%d %H:%M:%S UTC") if job.retry_time else "once",
        )
    )


def _unfinished(pipeline: PipelineRecord, job: JobRecord) -> list[str]:
    """The jobs that a job sends to and that have not ended well."""
    ends = pipeline.topology.ends[job.ref.job]
    peers = dict.fromkeys(end.peer for end in ends if end.lane.output)
    return [
        peer or "its client"
        for peer in peers
        if not peer or pipeline.jobs[peer].state is not JobState.SUCCEEDED
    ]


def _job_view(pipeline: PipelineRecord, job: JobRecord) -> JobView:
    manifest = job.manifest
    job.view = JobView(
        name=job.ref.name,
        spec_name=job.spec.name,
        state=job.state,
        replica=job.replica,
        reason=job.reason,
        # Of a job that has ended, people want to know where it was.
        node=job.attempts[-1].node if job.attempts and (job.attempt or job.ended) else "",
        epoch=job.epoch,
        attempts=tuple(map(_attempt_view, job.attempts)),
        streams=job.streams,
        manifest=None
        if manifest is None
        else Manifest(
            key=manifest.key,
            attempt=manifest.attempt.name,
            epoch=manifest.attempt.epoch,
            artifacts=manifest.artifacts,
            commit_time=manifest.commit_time,
        ),
        progress=job.progress,
        waiting_for=waits_for(pipeline, job),
        generation=job.generation,
    )
    return job.view


_SCALE = attrgetter(*(field.name for field in fields(ScaleView)))


def _scale_view(scale: ScaleRow) -> ScaleView:
    return ScaleView(*_SCALE(scale))


def _attempt_view(attempt: AttemptRecord) -> AttemptView:
    return AttemptView(
        name=attempt.ref.name,
        number=attempt.ref.number,
        epoch=attempt.ref.epoch,
        state=attempt.state,
        node=attempt.node,
        reason=attempt.reason,
        create_time=attempt.create_time,
        start_time=attempt.start_time,
        end_time=attempt.end_time,
        manifest=Manifest(
            "", attempt.ref.name, attempt.ref.epoch, attempt.artifacts, attempt.end_time
        )
        if attempt.artifacts
        else None,
    )
