"""Pages of artifacts: each artifact once, though jobs commit and go in between."""

from dataclasses import replace

import pytest

from control.core.errors import PageTokenError, UnknownJobError
from control.front.api.artifact_page import (
    ArtifactQuery,
    PageArtifact,
    page_of_job,
    page_of_pipeline,
)
from shoal.limits import BATCH_BYTES_MAX
from shoal.model import Artifact, JobState, PipelineState
from shoal.spec import Job, Pipeline
from shoal.view import AttemptView, JobView, Manifest, PipelineView

P = "pipelines/p-1"


def manifest(job: str, count: int, attempt: int = 1, width: int = 0) -> Manifest:
    name = f"{P}/jobs/{job}/attempts/{attempt}"
    paths = [f"{number:05}{'x' * width}" for number in range(count)]
    return Manifest(
        f"default/{name}/manifest.json",
        name,
        attempt,
        tuple(Artifact(path, 1, "0" * 64, f"default/{name}/out/{path}") for path in paths),
    )


def job(job_id: str, count: int | None) -> JobView:
    committed = None if count is None else manifest(job_id, count)
    return JobView(f"{P}/jobs/{job_id}", job_id, JobState.SUCCEEDED, manifest=committed)


def pipeline(*jobs: JobView) -> PipelineView:
    spec = Pipeline("p", (Job("a", ("true",)),))
    return PipelineView("p-1", "default", PipelineState.RUNNING, spec, jobs=jobs)


def all_of(view: PipelineView, size: int) -> list[PageArtifact]:
    found: list[PageArtifact] = []
    token = ""
    while True:
        page = page_of_pipeline(view, ArtifactQuery(token, size, urls=False))
        assert len(page.artifacts) <= size
        found += page.artifacts
        token = page.next_page_token
        if not token:
            return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_pages_have_each_artifact_of_each_job_once_and_in_order(size: int) -> None:
    view = pipeline(job("c", 3), job("a", 4), job("b-2", 0), job("b-10", None), job("d", 1))
    found = [(one.job, one.artifact.path) for one in all_of(view, size)]
    expected = [("a", number) for number in range(4)] + [("c", number) for number in range(3)]
    assert found == [(name, f"{number:05}") for name, number in [*expected, ("d", 0)]]


def test_what_was_there_all_along_is_read_once_though_jobs_commit_and_go() -> None:
    first = page_of_pipeline(pipeline(job("a", 2), job("c", 3)), ArtifactQuery("", 3, urls=False))
    assert [one.job for one in first.artifacts] == ["a", "a", "c"]
    later = pipeline(job("b", 5), job("c", 3), job("d", 1))
    rest = page_of_pipeline(later, ArtifactQuery(first.next_page_token, 9, urls=False))
    assert [(one.job, one.artifact.path) for one in rest.artifacts] == [
        ("c", "00001"),
        ("c", "00002"),
        ("d", "00000"),
    ]
    assert rest.next_page_token == ""
    without = page_of_pipeline(
        pipeline(job("d", 1)), ArtifactQuery(first.next_page_token, 9, urls=False)
    )
    assert [one.job for one in without.artifacts] == ["d"]


def test_a_page_has_no_more_than_a_message_takes_and_at_least_one() -> None:
    wide = replace(job("a", None), manifest=manifest("a", 3000, width=900))
    for urls, most in ((False, 1100), (True, 600)):
        page = page_of_pipeline(pipeline(wide), ArtifactQuery("", 5000, urls=urls))
        said = sum(len(one.artifact.path + one.artifact.key) for one in page.artifacts)
        assert said < BATCH_BYTES_MAX
        assert 100 < len(page.artifacts) <= most
    huge = replace(job("a", None), manifest=manifest("a", 2, width=BATCH_BYTES_MAX))
    page = page_of_pipeline(pipeline(huge), ArtifactQuery("", 9, urls=False))
    assert (len(page.artifacts), page.next_page_token) == (1, "p-1/a/1")


@pytest.mark.parametrize("token", ["5", "p-2/a/1", "p-1/a", "p-1//1", "p-1/a/x", "p-1/a/-1", "/"])
def test_a_token_of_another_list_is_refused(token: str) -> None:
    with pytest.raises(PageTokenError, match="use the one of the last answer"):
        page_of_pipeline(pipeline(job("a", 2)), ArtifactQuery(token, 9, urls=False))


def test_a_job_has_what_it_committed_and_what_an_attempt_left() -> None:
    failed = AttemptView(f"{P}/jobs/a/attempts/1", 1, 1, JobState.FAILED, "n")
    failed = replace(failed, manifest=manifest("a", 1))
    won = AttemptView(f"{P}/jobs/a/attempts/2", 2, 2, JobState.SUCCEEDED, "n")
    one = replace(job("a", None), attempts=(failed, won), manifest=manifest("a", 3, attempt=2))
    view = pipeline(one)

    def paged(attempt: int, token: str) -> tuple[list[str], str]:
        page = page_of_job(view, "a", attempt, ArtifactQuery(token, 2, urls=False))
        return [f"{one.attempt[-1]}/{one.artifact.path}" for one in page.artifacts], (
            page.next_page_token
        )

    assert paged(0, "") == (["2/00000", "2/00001"], "2")
    assert paged(0, "2") == (["2/00002"], "")
    assert paged(1, "") == (["1/00000"], "")
    assert paged(2, "2") == (["2/00002"], "")
    with pytest.raises(UnknownJobError, match="no attempt 7: the last ones are 1, 2"):
        paged(7, "")
    with pytest.raises(UnknownJobError, match="'b'"):
        page_of_job(view, "b", 0, ArtifactQuery("", 2, urls=False))
