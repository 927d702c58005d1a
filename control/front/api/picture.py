"""The picture of a pipeline as it travels: however much there is of it, it fits into a message."""

from dataclasses import replace
from typing import Final

from shoal import limits
from shoal.v1 import pipeline_pb2
from shoal.view import JobView, Manifest, PipelineView
from shoal.wire.known_jobs import LastPictures
from shoal.wire.view import encode_pipeline


def picture(view: PipelineView) -> pipeline_pb2.Pipeline:
    """Write a pipeline with its first artifacts and the newest attempts of each job."""
    return encode_pipeline(view if _fits(view) else _cut(view))


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


_EMPTIED: Final[LastPictures[int, tuple[JobView, JobView]]] = LastPictures()
"""Jobs of which no artifact had room, each with how it was shown, so that it is the same the next time."""


def _cut(view: PipelineView) -> PipelineView:
    room = _Room()
    known = _EMPTIED.of(view.name)
    emptied: dict[int, tuple[JobView, JobView]] = {}
    jobs: list[JobView] = []
    for job in view.jobs:
        had_room = room.left > 0
        before = None if had_room else known.get(id(job))
        shown = before[1] if before is not None else _cut_job(job, room)
        if not had_room:
            emptied[id(job)] = (job, shown)
        jobs.append(shown)
    _EMPTIED.keep(view.name, emptied)
    return replace(view, jobs=tuple(jobs))


def _cut_job(job: JobView, room: "_Room") -> JobView:
    manifest = room.take(job.manifest)
    attempts = job.attempts[-limits.SHOWN_ATTEMPTS_MAX :]
    if any(one.manifest for one in attempts):
        attempts = tuple(
            replace(one, manifest=room.take(one.manifest)) if one.manifest else one
            for one in attempts
        )
    if manifest is job.manifest and attempts == job.attempts:
        return job
    return replace(job, manifest=manifest, attempts=attempts)


class _Room:
    """How many more artifacts fit."""

    def __init__(self) -> None:
        self.left = limits.SHOWN_ARTIFACTS_MAX

    def take(self, manifest: Manifest | None) -> Manifest | None:
        """Return as much of a manifest as fits."""
        if manifest is None:
            return None
        kept = manifest.artifacts[: self.left]
        self.left -= len(kept)
        if len(kept) == len(manifest.artifacts):
            return manifest
        return replace(manifest, artifacts=kept, left_out=len(manifest.artifacts) - len(kept))
