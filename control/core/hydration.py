"""Records of pipelines from their rows.

Rule: of a job with a current attempt, the attempt's row says where the job is, on which node and in which epoch; a row
of its own is only written when it is queued again or ends, or when what it has survived changes. So a job that is
placed, runs and ends well is written once.
"""

from __future__ import annotations

from collections.abc import Sequence

from control.core import lifecycle, scaling
from control.core.rows import PipelineRows, ScaleRow
from control.core.state import AttemptRecord, Cluster, PipelineRecord, take
from control.core.topology import topology
from shoal.names import PipelineRef
from shoal.spec import Placement


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
        take(found[row.ref], row)
    for job_row in rows.jobs:
        take(found[job_row.ref.pipeline_ref].jobs[job_row.ref.job], job_row)
    for seen in rows.attempts:
        job = found[seen.ref.pipeline_ref].jobs[seen.ref.job]
        attempt = AttemptRecord(seen.ref, seen.node, seen.state, seen.create_time)
        take(attempt, seen)
        job.attempts.append(attempt)
        if seen.state in lifecycle.PLACED:
            job.attempt = found[job.pipeline].attempts[seen.ref.job] = attempt
            job.state, job.epoch, job.number = seen.state, seen.ref.epoch, seen.ref.number
            if job.spec.placement is Placement.PINNED:
                job.pinned_node = seen.node
    for manifest in rows.manifests:
        found[manifest.attempt.pipeline_ref].jobs[manifest.attempt.job].manifest = manifest
    for pipeline in found.values():
        pipeline.open_jobs = sum(not job.ended for job in pipeline.jobs.values())
    return tuple(found.values())
