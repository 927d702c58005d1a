"""The picture of a pipeline as it travels: however much there is of it, it fits into a message.

Rules. Of all jobs together so many artifacts, attempts and characters of sentences have room, in the order of the
jobs. A job for which there is none left shows its last attempt, and the beginning and the end of each sentence.

A job of which something is left out is the same object the next time, so that it is not written again
(`shoal.wire.known_jobs`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from shoal import limits
from shoal.model import Reason
from shoal.v1 import pipeline_pb2
from shoal.view import AttemptView, JobView, Manifest, PipelineView
from shoal.wire.codec import given_of
from shoal.wire.known_jobs import LastPictures
from shoal.wire.view import encode_pipeline

_Cut = tuple[int, int, int, bool]
"""A job by its identity; how many of its artifacts and attempts are shown, and whether its sentences are cut."""

_CUT: Final[LastPictures[_Cut, tuple[JobView, JobView]]] = LastPictures()
"""Jobs of which something is left out, each with how it is shown."""


_GIVEN: Final = given_of(encode_pipeline)


def picture(view: PipelineView) -> pipeline_pb2.Pipeline:
    """Write a pipeline with its first artifacts and the newest attempts of each job."""
    return pipeline_pb2.Pipeline(**picture_given(view))


def picture_given(view: PipelineView) -> Any:
    """Return what a message is given that carries the picture of a pipeline, so that it is not copied into it."""
    if _fits(view.jobs):  # as it nearly always does
        return _GIVEN(view)
    room = _Room()
    known = _CUT.of(view.name)
    cut: dict[_Cut, tuple[JobView, JobView]] = {}
    jobs: list[JobView] = []
    for job in view.jobs:
        if room.has(job):
            jobs.append(job)
            continue
        artifacts, attempts, short = room.rest(job)
        key = (id(job), artifacts, attempts, short)
        cut[key] = known.get(key) or (job, _cut(job, artifacts, attempts, short=short))
        jobs.append(cut[key][1])
    _CUT.keep(view.name, cut)
    return _GIVEN(replace(view, jobs=tuple(jobs)))


def _fits(jobs: Iterable[JobView]) -> bool:
    """Whether nothing has to be left out of any of the jobs."""
    artifacts = attempts = characters = 0
    for job in jobs:
        count = len(job.attempts)
        of_job, sentences = _size(job, count)
        artifacts += of_job
        attempts += count
        characters += sentences
        if count > limits.SHOWN_ATTEMPTS_MAX:
            return False
    return (
        artifacts <= limits.SHOWN_ARTIFACTS_MAX
        and attempts <= limits.SHOWN_ATTEMPTS_ALL_MAX
        and characters <= limits.SHOWN_CHARACTERS_MAX
    )


@dataclass(slots=True)
class _Room:
    """How much more fits."""

    artifacts: int = limits.SHOWN_ARTIFACTS_MAX
    attempts: int = limits.SHOWN_ATTEMPTS_ALL_MAX
    characters: int = limits.SHOWN_CHARACTERS_MAX

    def has(self, job: JobView) -> bool:
        """Take the room for all of a job, if there is as much."""
        attempts = len(job.attempts)
        artifacts, characters = _size(job, attempts)
        if (
            attempts > min(limits.SHOWN_ATTEMPTS_MAX, self.attempts)
            or artifacts > self.artifacts
            or characters > self.characters
        ):
            return False
        self._take(artifacts, attempts, characters)
        return True

    def rest(self, job: JobView) -> tuple[int, int, bool]:
        """Take the room there is for a job; returns how many artifacts and attempts, and if it is to be short."""
        attempts = min(len(job.attempts), limits.SHOWN_ATTEMPTS_MAX, max(1, self.attempts))
        artifacts, characters = _size(job, attempts)
        artifacts, short = min(artifacts, self.artifacts), characters > self.characters
        self._take(artifacts, attempts, 0 if short else characters)
        return artifacts, attempts, short

    def _take(self, artifacts: int, attempts: int, characters: int) -> None:
        self.artifacts -= artifacts
        self.attempts -= attempts
        self.characters -= characters


def _size(job: JobView, attempts: int) -> tuple[int, int]:
    """Count the artifacts, and the characters of the sentences, of a job with its newest attempts."""
    artifacts = 0 if job.manifest is None else len(job.manifest.artifacts)
    characters = len(job.reason.message) + len(job.progress)
    for one in job.attempts[-attempts:]:
        characters += len(one.reason.message)
        if one.manifest is not None:
            artifacts += len(one.manifest.artifacts)
    return artifacts, characters


def _cut(job: JobView, artifacts: int, attempts: int, *, short: bool) -> JobView:
    manifest, artifacts = _first(job.manifest, artifacts)
    shown: list[AttemptView] = []
    for one in job.attempts[-attempts:]:
        of_attempt, artifacts = _first(one.manifest, artifacts)
        reason = _short(one.reason) if short else one.reason
        shown.append(replace(one, manifest=of_attempt, reason=reason))
    return replace(
        job,
        manifest=manifest,
        attempts=tuple(shown),
        reason=_short(job.reason) if short else job.reason,
        progress=limits.cut(job.progress, limits.SHORT_CHARACTERS_MAX) if short else job.progress,
    )


def short_job(job: JobView) -> JobView:
    """Return a job as one of many: with its newest attempt alone, without artifacts, and with short sentences."""
    return _cut(job, 0, 1, short=True)


def _first(manifest: Manifest | None, most: int) -> tuple[Manifest | None, int]:
    """Return the first artifacts of a manifest, and how many more there may be."""
    if manifest is None:
        return None, most
    kept = manifest.artifacts[:most]
    left_out = len(manifest.artifacts) - len(kept)
    return replace(manifest, artifacts=kept, left_out=left_out), most - len(kept)


def _short(reason: Reason) -> Reason:
    return replace(reason, message=limits.cut(reason.message, limits.SHORT_CHARACTERS_MAX))
