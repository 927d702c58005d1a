"""Codecs read and write a noun once where messages carry it alike, and refuse what is wrong each time."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal import spec
from shoal.model import JobState, Reason, ReasonCode
from shoal.names import AttemptRef, InvalidNameError, parse_attempt
from shoal.session.assignment import Assignment
from shoal.session.observation import Observation
from shoal.v1 import pipeline_pb2, session_service_pb2, spec_pb2
from shoal.view import Event
from shoal.wire.assignment import decode_assignment, encode_assignment
from shoal.wire.attempt import encode_attempt_ref
from shoal.wire.fields import WireError, decode_time, relative_path_problem
from shoal.wire.observation import decode_observation, encode_observation
from shoal.wire.spec import decode_pipeline_spec, encode_job_spec, encode_pipeline_spec
from shoal.wire.view import encode_event

REF = AttemptRef("default", "p", "j", 1, 7)


def job(*words: str) -> spec.Job:
    return spec.Job("j", ("echo", *words), resources=spec.Resources(cpus=0.5))


def test_assignments_with_equal_jobs_share_what_was_read() -> None:
    first = encode_assignment(Assignment(REF, job("a")))
    again = encode_assignment(Assignment(AttemptRef("default", "p", "j", 1, 8), job("a")))
    other = encode_assignment(Assignment(REF, job("b")))
    read = decode_assignment(first).job
    assert read == job("a")
    assert decode_assignment(again).job is read
    assert decode_assignment(other).job == job("b")
    assert decode_assignment(other).job.resources is read.resources


def test_a_job_that_is_written_again_is_not_changed_by_what_carries_it() -> None:
    one = job("a")
    written = encode_assignment(Assignment(REF, one))
    written.job.name = "changed"
    written.job.resources.cpus = 7.0
    assert encode_assignment(Assignment(REF, one)).job == encode_job_spec(one)


def test_what_is_refused_is_refused_again_with_its_own_path() -> None:
    broken = spec_pb2.PipelineSpec(
        name="p", jobs=[encode_job_spec(job("a")), spec_pb2.JobSpec(name="j", run=["a", "b\0"])]
    )
    for _ in range(2):
        with pytest.raises(WireError) as caught:
            decode_pipeline_spec(broken)
        assert caught.value.path == "jobs[1].run[1]"
    assignment = session_service_pb2.Assignment(ref=encode_attempt_ref(REF), job=broken.jobs[1])
    with pytest.raises(WireError) as caught:
        decode_assignment(assignment)
    assert caught.value.path == "assignment.job.run[1]"
    with pytest.raises(WireError) as caught:
        decode_assignment(assignment, "desired.assignments[3]")
    assert caught.value.path == "desired.assignments[3].job.run[1]"


def test_a_large_job_is_read_and_written_like_any_other() -> None:
    large = job("x" * 100_000)
    written = encode_assignment(Assignment(REF, large))
    assert decode_assignment(written).job == large
    assert decode_assignment(written).job is not decode_assignment(written).job


def test_more_jobs_than_are_remembered_are_read_and_written() -> None:
    jobs = tuple(job(str(number)) for number in range(600))
    for _ in range(2):
        written = [encode_assignment(Assignment(REF, one)) for one in jobs]
        assert tuple(decode_assignment(one).job for one in written) == jobs


def test_what_says_nothing_is_not_written_and_an_empty_message_is_there() -> None:
    written = encode_observation(Observation(REF, JobState.RUNNING))
    assert [field.name for field, _ in written.ListFields()] == [
        *("attempt", "namespace", "epoch", "state", "reason")
    ]
    assert written.reason == pipeline_pb2.Reason()
    told = Observation(
        REF,
        JobState.FAILED,
        Reason(ReasonCode.EXIT, 3, "no"),
        start_time=datetime(2026, 1, 1, 1, 2, 3, 456_789, UTC),
    )
    assert decode_observation(encode_observation(told)) == told


def test_a_pipeline_is_the_same_after_the_wire() -> None:
    pipeline = spec.Pipeline(
        "p",
        (
            job("a"),
            spec.Job(
                "k",
                ("k",),
                streams=(spec.StreamInput("frames", "j", "frames"),),
                files=(spec.FileInput("model", "s3://b/k", "model.bin"),),
                variables={"A": "1"},
            ),
        ),
    )
    assert decode_pipeline_spec(encode_pipeline_spec(pipeline)) == pipeline


@given(st.datetimes(datetime(1970, 1, 1), datetime(9990, 1, 1)), st.integers(-12, 12))  # noqa: DTZ001 -- made aware below
def test_a_moment_is_the_same_after_the_wire(naive: datetime, hours: int) -> None:
    moment = naive.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=hours)))
    event = encode_event(Event("x", "type", "subject", moment))
    expected = pipeline_pb2.Event(id="x", type="type", subject="subject", data_json="{}")
    expected.time.FromDatetime(moment)
    assert event == expected
    assert decode_time(event.time) == moment


@pytest.mark.parametrize("nanos", [-1, 1_000_000_000])
def test_a_part_of_a_second_that_is_none_is_refused(nanos: int) -> None:
    event = pipeline_pb2.Event()
    event.time.seconds, event.time.nanos = 1, nanos
    with pytest.raises(WireError, match="is not a moment"):
        decode_time(event.time)


@given(st.text(st.sampled_from("a./"), max_size=8))
def test_a_path_is_inside_where_posix_says_so(value: str) -> None:
    pure = PurePosixPath(value)
    inside = bool(value and pure.parts) and not pure.is_absolute() and ".." not in pure.parts
    assert (not relative_path_problem(value)) == inside


@pytest.mark.parametrize(
    ("name", "namespace"),
    [
        ("pipelines/p/jobs/j/attempts/99999999999", "default"),
        ("pipelines/p/jobs/j/attempts/9999999999", "default"),
        ("pipelines/p/jobs/j/attempts/\N{ARABIC-INDIC DIGIT ONE}", "default"),
        ("pipelines/P/jobs/j/attempts/1", "default"),
        ("pipelines/p/jobs/j/attempts/1", "Default"),
        ("pipelines/p/jobs/j/attempts/1\n", "default"),
        ("pipelines/p/jobs/j", "default"),
    ],
)
def test_a_malformed_attempt_is_refused(name: str, namespace: str) -> None:
    with pytest.raises(InvalidNameError):
        parse_attempt(name, namespace, 1)
