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
    # By position, which takes half as long as by name; the order is that of the fields, and mypy knows their types.
    return PipelineView(
        pipeline.ref.pipeline,
        pipeline.ref.namespace,
        pipeline.state,
        pipeline.spec,
        pipeline.reason,
        pipeline.create_time,
        pipeline.end_time,
        tuple([job.view or _job_view(pipeline, job) for job in pipeline.jobs.values()]),
        pipeline.revision,
        pipeline.final_event_id,
        tuple([_scale_view(scale) for scale in pipeline.scales]) if pipeline.scales else (),
        pipeline.finish_time,
        pipeline.creator,
        pipeline.dead_letter,
        pipeline.revived_from,
        pipeline.revived_by,
        pipeline.prefetched,
        str(pipeline.span(pipeline.ref)) if pipeline.traceparent else "",
        pipeline.stored,
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
    if job.waiting_for or said or not wait.sentence:
        return job.waiting_for or said
    if "{" not in wait.sentence:
        return wait.sentence
    waits_for_others = "{neighbours}" in wait.sentence
    return wait.sentence.format(
        node=job.attempt.node if job.attempt else "",
        neighbours=(", ".join(_unfinished(pipeline, job)) if waits_for_others else "")
        or "its consumers",
        time=job.retry_time.strftime("%Y-%m-%d %H:%M:%S UTC") if job.retry_time else "once",
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
    # Of a job that has ended, people want to know where it was.
    node = job.attempts[-1].node if job.attempts and (job.attempt or job.ended) else ""
    view = JobView(
        job.ref.name,
        job.spec.name,
        job.state,
        job.replica,
        job.reason,
        node,
        job.epoch,
        tuple([_attempt_view(attempt) for attempt in job.attempts]),
        job.streams,
        None
        if manifest is None
        else Manifest(
            manifest.key,
            manifest.attempt.name,
            manifest.attempt.epoch,
            manifest.artifacts,
            manifest.commit_time,
        ),
        job.progress,
        waits_for(pipeline, job),
        job.generation,
    )
    job.view = view
    return view


_SCALE = attrgetter(*(field.name for field in fields(ScaleView)))


def _scale_view(scale: ScaleRow) -> ScaleView:
    return ScaleView(*_SCALE(scale))


def _attempt_view(attempt: AttemptRecord) -> AttemptView:
    ref = attempt.ref
    name = ref.name
    return AttemptView(
        name,
        ref.number,
        ref.epoch,
        attempt.state,
        attempt.node,
        attempt.reason,
        attempt.create_time,
        attempt.start_time,
        attempt.end_time,
        Manifest("", name, ref.epoch, attempt.artifacts, attempt.end_time)
        if attempt.artifacts
        else None,
    )
