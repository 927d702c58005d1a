"""Records of pipelines from their rows."""

from __future__ import annotations

from collections.abc import Sequence

from control.core import lifecycle, scaling
from control.core.rows import PipelineRows, ScaleRow
from control.core.state import AttemptRecord, Cluster, PipelineRecord
from control.core.topology import topology
from shoal.names import PipelineRef


def records(rows: PipelineRows, cluster: Cluster) -> Sequence[PipelineRecord]:
    """Make the records of pipelines, without putting them anywhere; `cluster` shares its topologies."""
    scales: dict[PipelineRef, list[ScaleRow]] = {}
    for scale in rows.scales:
        scales.setdefault(scale.ref, []).append(scale)
    found: dict[PipelineRef, PipelineRecord] = {}
    for added in rows.added:
        pipeline = found[added.ref] = PipelineRecord.begin(added, cluster.topology(added.spec))
        pipeline.revision = cluster.revision
        if added.ref in scales:
            pipeline.scales = scales[added.ref]
            pipeline.grow(topology(added.spec, scaling.grown(pipeline)))
    for row in rows.pipelines:
        pipeline = found[row.ref]
        pipeline.state = row.state
        pipeline.reason = row.reason
        pipeline.stop = row.stop
        pipeline.end_time = row.end_time
        pipeline.final_event_id = row.final_event_id
        pipeline.finish_time = row.finish_time
    for job_row in rows.jobs:
        job = found[job_row.ref.pipeline_ref].jobs[job_row.ref.job]
        job.state = job_row.state
        job.reason = job_row.reason
        job.epoch = job_row.epoch
        job.number = job_row.number
        job.failures = job_row.failures
        job.losses = job_row.losses
        job.retry_time = job_row.retry_time
        job.pinned_node = job_row.pinned_node
        job.avoid = job_row.avoid
        job.ends = job_row.ends
    for seen in rows.attempts:
        job = found[seen.ref.job_ref.pipeline_ref].jobs[seen.ref.job]
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
    for manifest in rows.manifests:
        found[manifest.attempt.job_ref.pipeline_ref].jobs[manifest.attempt.job].manifest = manifest
    for pipeline in found.values():
        pipeline.open_jobs = sum(not job.ended for job in pipeline.jobs.values())
    return tuple(found.values())
