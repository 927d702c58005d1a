"""The picture of a pipeline as it travels: however much there is of it, it fits into a message."""

from dataclasses import replace

from shoal import limits
from shoal.v1 import pipeline_pb2
from shoal.view import JobView, Manifest, PipelineView
from shoal.wire.view import encode_pipeline


def picture(view: PipelineView) -> pipeline_pb2.Pipeline:
    """Write a pipeline with its first artifacts and the newest attempts of each job."""
    if not _fits(view):
        room = _Room()
        view = replace(view, jobs=tuple([_job(job, room) for job in view.jobs]))
    return encode_pipeline(view)


def _fits(view: PipelineView) -> bool:
    """Whether all of it fits, as it nearly always does."""
    artifacts = 0
    for job in view.jobs:
        if len(job.attempts) > limits.SHOWN_ATTEMPTS_MAX:
            return False
        if job.manifest is not None:
            artifacts += len(job.manifest.artifacts)
        for attempt in job.attempts:
            if attempt.manifest is not None:
                artifacts += len(attempt.manifest.artifacts)
    return artifacts <= limits.SHOWN_ARTIFACTS_MAX


def _job(job: JobView, room: "_Room") -> JobView:
    return replace(
        job,
        manifest=room.take(job.manifest),
        attempts=tuple(
            replace(one, manifest=room.take(one.manifest)) if one.manifest else one
            for one in job.attempts[-limits.SHOWN_ATTEMPTS_MAX :]
        ),
    )


class _Room:
    """How many more artifacts fit."""

    def __init__(self) -> None:
        self._left = limits.SHOWN_ARTIFACTS_MAX

    def take(self, manifest: Manifest | None) -> Manifest | None:
        """Return as much of a manifest as fits."""
        if manifest is None:
            return None
        kept = manifest.artifacts[: self._left]
        self._left -= len(kept)
        return replace(manifest, artifacts=kept, left_out=len(manifest.artifacts) - len(kept))
