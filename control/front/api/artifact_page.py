"""A page of the artifacts of a job, or of all jobs of a pipeline.

Rule: artifacts stand by the id of their job, and within it by path. A token of a pipeline's list names the pipeline,
the job where the page goes on, and how many artifacts of that job are known; one of a job's list is that number alone.
A job commits its list once, so what was there at the first page is read exactly once, whatever is committed or scaled
meanwhile; what a later job commits is read if its turn has not been.

Example: jobs `a` with 1,300 artifacts and `b` with 1,200, pages of 2,000. The first page has all of `a` and 700 of
`b`, and its token is `pipeline/b/700`.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from control.core.errors import PageTokenError, UnknownJobError
from control.front.read_model import token
from shoal.limits import BATCH_BYTES_MAX
from shoal.model import Artifact
from shoal.view import JobView, Manifest, PipelineView

_FRAME_BYTES = 160
"""About what an artifact takes in a message beside its texts: its digest, its size, what its fields cost."""
_URL_BYTES = 1024
"""About what its address takes beside its key, of which each byte may be written as three."""


@dataclass(frozen=True, slots=True)
class PageArtifact:
    """An artifact of a page, the id of its job, and the name of the attempt that wrote it."""

    artifact: Artifact
    job: str
    attempt: str


@dataclass(frozen=True, slots=True)
class ArtifactPage:
    """Some artifacts, in order, and where the next page begins; empty after the last one."""

    artifacts: Sequence[PageArtifact]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class ArtifactQuery:
    """How much of a list is asked for: from where, at most how many, and whether with addresses."""

    page_token: str
    size: int
    urls: bool


def page_of_job(
    view: PipelineView, job_id: str, attempt: int, query: ArtifactQuery
) -> ArtifactPage:
    """Return a page of what a job has committed, or of what one of its attempts has.

    Args:
        view: the pipeline.
        job_id: of the job.
        attempt: number of the attempt; 0 for the one that has committed.
        query: how much; its token is a number.

    Raises:
        UnknownJobError: the pipeline has no such job, or the job no such attempt.
        PageTokenError: the token is none.
    """
    job = next((one for one in view.jobs if one.id == job_id), None)
    if job is None:
        raise UnknownJobError(f"{view.name} has no job {job_id!r}")
    manifest = _manifest_of(view, job, attempt) if attempt else job.manifest
    begin = token(query.page_token)
    found: list[PageArtifact] = []
    if manifest is not None:
        _take(found, job, manifest, begin, query, BATCH_BYTES_MAX)
        if begin + len(found) < len(manifest.artifacts):
            return ArtifactPage(found, str(begin + len(found)))
    return ArtifactPage(found, "")


def _manifest_of(view: PipelineView, job: JobView, number: int) -> Manifest | None:
    attempt = next((one for one in job.attempts if one.number == number), None)
    if attempt is None:
        known = ", ".join(str(one.number) for one in job.attempts[-5:]) or "none yet"
        raise UnknownJobError(
            f"job {job.id!r} of {view.name} has no attempt {number}: the last ones are {known}"
        )
    if job.manifest is not None and job.manifest.attempt == attempt.name:
        return job.manifest
    return attempt.manifest


def page_of_pipeline(view: PipelineView, query: ArtifactQuery) -> ArtifactPage:
    """Return a page of what all jobs of a pipeline have committed.

    Args:
        view: the pipeline.
        query: how much.

    Raises:
        PageTokenError: the token is not of this list.
    """
    first, begin = _place(view, query.page_token)
    jobs = sorted((job for job in view.jobs if job.manifest is not None), key=lambda job: job.id)
    found: list[PageArtifact] = []
    room = BATCH_BYTES_MAX
    for job in jobs[bisect_left(jobs, first, key=lambda job: job.id) :]:
        manifest = job.manifest
        if manifest is None:
            continue
        skipped = begin if job.id == first else 0
        before = len(found)
        room = _take(found, job, manifest, skipped, query, room)
        known = skipped + len(found) - before
        if known < len(manifest.artifacts):
            return ArtifactPage(found, f"{view.id}/{job.id}/{known}")
    return ArtifactPage(found, "")


def _take(
    found: list[PageArtifact],
    job: JobView,
    manifest: Manifest,
    begin: int,
    query: ArtifactQuery,
    room: int,
) -> int:
    """Add what is left of a manifest while there is room, at least one to an empty page; returns the room left."""
    for artifact in manifest.artifacts[begin : begin + query.size - len(found)]:
        key = len(artifact.key.encode())
        room -= _FRAME_BYTES + len(artifact.path.encode()) + key + len(manifest.attempt)
        if query.urls:
            room -= _URL_BYTES + 3 * key
        if room < 0 and found:
            break
        found.append(PageArtifact(artifact, job.id, manifest.attempt))
    return room


def _place(view: PipelineView, page_token: str) -> tuple[str, int]:
    if not page_token:
        return "", 0
    pipeline, _, rest = page_token.partition("/")
    job, _, number = rest.partition("/")
    if pipeline != view.id or not job or not number:
        raise PageTokenError(
            f"page token {page_token[:200]!r} is not of the artifacts of {view.name}: use the one of the last answer, "
            "unchanged, or none to begin anew"
        )
    return job, token(number)
