"""The picture of a pipeline fits into a message, and what did not change is not written again."""

from dataclasses import replace

import pytest

from control.front.api.picture import picture
from shoal import limits
from shoal.channel import MESSAGE_BYTES_MAX
from shoal.model import Artifact, JobState, PipelineState, Reason, ReasonCode
from shoal.spec import Job, Pipeline
from shoal.v1 import pipeline_pb2
from shoal.view import AttemptView, JobView, Manifest, PipelineView
from shoal.wire import view as wire
from shoal.wire.fields import WireError
from shoal.wire.known_jobs import JOBS_MIN, PIPELINES_KEPT, KnownJobs
from shoal.wire.view import decode_job, decode_pipeline, encode_job, encode_pipeline

SPEC = Pipeline("many", (Job("say", ("echo", "hello"), replicas=3),))


def job(number: int, *, attempts: int = 1, artifacts: int = 0, message: str = "") -> JobView:
    name = f"pipelines/many-1/jobs/say-{number}"
    reason = Reason(ReasonCode.EXIT, 3, message)
    found = tuple(Artifact(f"{n}", n, f"{n:064x}", f"key-{n}") for n in range(artifacts))
    return JobView(
        name,
        "say",
        JobState.RUNNING,
        number,
        reason=reason,
        attempts=tuple(
            AttemptView(f"{name}/attempts/{n}", n, n, JobState.FAILED, reason=reason)
            for n in range(1, attempts + 1)
        ),
        manifest=Manifest("key", f"{name}/attempts/{attempts}", 1, found) if artifacts else None,
    )


def pipeline(*jobs: JobView) -> PipelineView:
    return PipelineView("many-1", "default", PipelineState.RUNNING, SPEC, jobs=jobs)


def test_what_fits_is_shown_as_it_is() -> None:
    view = pipeline(*(job(n, attempts=3, artifacts=2, message="why") for n in range(40)))
    assert decode_pipeline(picture(view)) == view
    few = pipeline(*view.jobs[: JOBS_MIN - 1])
    assert decode_pipeline(picture(few)) == few


def test_artifacts_have_room_in_the_order_of_the_jobs() -> None:
    view = pipeline(*(job(n, artifacts=900) for n in range(20)))
    for _ in range(2):
        shown = decode_pipeline(picture(view)).jobs
        assert [len(one.artifacts) for one in shown] == [900, 900, 200] + [0] * 17
        assert [one.manifest.left_out for one in shown if one.manifest] == [0, 0, 700] + [900] * 17


def test_the_newest_attempts_are_shown_and_of_very_many_the_last_of_each_job() -> None:
    view = pipeline(*(job(n, attempts=60) for n in range(1_010)))
    shown = decode_pipeline(picture(view)).jobs
    whole = limits.SHOWN_ATTEMPTS_ALL_MAX // limits.SHOWN_ATTEMPTS_MAX
    assert {len(one.attempts) for one in shown[:whole]} == {limits.SHOWN_ATTEMPTS_MAX}
    assert {len(one.attempts) for one in shown[whole:]} == {1}
    assert {one.attempts[-1].number for one in shown} == {60}


def test_as_many_jobs_as_there_may_be_with_long_reasons_fit_into_a_message() -> None:
    long = "é" * limits.SENTENCE_CHARACTERS_MAX
    first = job(0, attempts=3, message=long)
    others = [replace(first, name=f"{first.name[:-1]}{n}") for n in range(limits.JOBS_MAX)]
    message = picture(pipeline(*others))
    assert message.ByteSize() < MESSAGE_BYTES_MAX
    assert message.jobs[0].reason.message == long
    last = message.jobs[-1].reason.message
    assert last.startswith("é")
    assert "characters left out" in last
    assert len(last) <= limits.SHORT_CHARACTERS_MAX


def test_a_job_that_did_not_change_is_neither_written_nor_read_again() -> None:
    written: list[str] = []
    read: list[str] = []

    def write(view: JobView) -> pipeline_pb2.Job:
        written.append(view.id)
        return encode_job(view)

    def take(message: pipeline_pb2.Job, path: str) -> JobView:
        read.append(message.name)
        return decode_job(message, path)

    known = KnownJobs(write, take)
    views = [job(n) for n in range(JOBS_MIN)]
    messages = known.write(views)
    assert known.read("many-1", messages, "jobs") == tuple(views)
    views[3] = replace(views[3], state=JobState.SUCCEEDED)
    views[5] = replace(views[5])  # equal, and another one
    messages = known.write(views)
    assert [int(message.state) for message in messages] == [int(view.state) for view in views]
    shown = known.read("many-1", messages, "jobs")
    assert shown == tuple(views)
    assert written[JOBS_MIN:] == ["say-3", "say-5"]
    assert read[JOBS_MIN:] == [views[3].name]
    assert known.read("many-1", [*messages, messages[0]], "jobs") == (*shown, shown[0])
    messages[2].state = 99  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(WireError, match=r"^jobs\[2\]\.state: 99 is not a job state"):
        known.read("many-1", messages, "jobs")


def test_pipelines_do_not_take_jobs_of_each_other_and_a_few_are_kept() -> None:
    known = KnownJobs(encode_job, decode_job)
    first = [job(n) for n in range(JOBS_MIN)]
    kept = known.write(first)
    for number in range(PIPELINES_KEPT):
        others = [
            replace(one, name=one.name.replace("many-1", f"other-{number}"), node=f"n-{number}")
            for one in first
        ]
        messages = known.write(others)
        assert known.read(f"other-{number}", messages, "jobs") == tuple(others)
        assert known.write(others)[0] is messages[0]
    again = known.write(first)
    assert again == kept
    assert again[0] is not kept[0]


def test_a_large_pipeline_is_written_as_a_small_one_is() -> None:
    jobs = [job(n, attempts=2, artifacts=1) for n in range(2 * JOBS_MIN)]
    large = encode_pipeline(pipeline(*jobs))
    assert list(large.jobs) == [wire.encode_job(one) for one in jobs]
    assert large == encode_pipeline(pipeline(*jobs))
