"""The picture of a pipeline as it travels: however much there is of it, it fits into a message."""

from dataclasses import replace

from shoal import limits
from shoal.v1 import pipeline_pb2
from shoal.view import JobView, PipelineView
from shoal.wire.view import encode_pipeline


def picture(view: PipelineView) -> pipeline_pb2.Pipeline:
    """Write a pipeline with its first artifacts and the newest attempts of each job."""
    room = limits.SHOWN_ARTIFACTS_MAX
    jobs: list[JobView] = []
    for job in view.jobs:
        shown = job
        if len(job.attempts) > limits.SHOWN_ATTEMPTS_MAX:
            shown = replace(shown, attempts=job.attempts[-limits.SHOWN_ATTEMPTS_MAX :])
        manifest = job.manifest
        if manifest is not None:
            kept = manifest.artifacts[:room]
            room -= len(kept)
            if len(kept) < len(manifest.artifacts):
                left_out = len(manifest.artifacts) - len(kept)
                manifest = replace(manifest, artifacts=kept, left_out=left_out)
                shown = replace(shown, manifest=manifest)
        jobs.append(shown)
    return encode_pipeline(replace(view, jobs=tuple(jobs)))
