"""Faults as people write them."""

import dataclasses
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from compose.simulate_fault import (
    AfterRecords,
    AfterSeconds,
    Drop,
    FaultError,
    Kill,
    KillAgent,
    Stop,
    check_boards,
    check_fault,
    due,
    parse_fault,
    targets,
)
from shoal import spec
from shoal.cli.main import cli
from shoal.model import JobState, PipelineState, StreamCounters
from shoal.view import JobView, PipelineView

_PIPELINE = spec.Pipeline(
    "people", (spec.Job("camera", ("a",)), spec.Job("detector", ("a",), replicas=2))
)


def _view(*jobs: JobView) -> PipelineView:
    return PipelineView("people-1", "default", PipelineState.RUNNING, _PIPELINE, jobs=jobs)


def _job(name: str, **known: object) -> JobView:
    view = JobView(f"pipelines/people-1/jobs/{name}", name, JobState.RUNNING, node="node-1")
    return dataclasses.replace(view, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sentence", "fault"),
    [
        ("kill camera@3s", Kill("camera", AfterSeconds(3), "kill camera@3s")),
        ("  kill  camera @ 1m30s ", Kill("camera", AfterSeconds(90), "  kill  camera @ 1m30s ")),
        (
            "kill-agent detector-1@250ms",
            KillAgent("detector-1", AfterSeconds(0.25), "kill-agent detector-1@250ms"),
        ),
        (
            "stop camera@100 records+1s",
            Stop("camera", AfterRecords(100), "stop camera@100 records+1s", 1),
        ),
        (
            "drop camera-detector 2s",
            Drop("camera-detector", AfterSeconds(0), "drop camera-detector 2s", 2),
        ),
        (
            "drop a-b-c@5 records+1s",
            Drop("a-b-c", AfterRecords(5), "drop a-b-c@5 records+1s", 1),
        ),
        ("kill camera@1 record", Kill("camera", AfterRecords(1), "kill camera@1 record")),
    ],
)
def test_a_fault_says_what_which_job_and_when(sentence: str, fault: object) -> None:
    assert parse_fault(sentence) == fault


@pytest.mark.parametrize(
    ("sentence", "remedy"),
    [
        ("", "kill JOB@3s"),
        ("kill", "kill JOB@3s"),
        ("kil camera@3s", "did you mean 'kill'?"),
        ("cut camera@3s", "known are drop, kill, kill-agent, stop"),
        ("drop camera-detector", "drop JOB-JOB@3s+2s"),
        ("drop camera-detector long", "write for example 90s"),
        ("drop camera-detector 0s", "for example +1s"),
        ("drop camera-detector@3s", "'drop camera-detector@3s+1s'"),
        ("kill camera", "kill JOB@3s"),
        ("stop camera", "'stop camera@100 records+1s'"),
        ("kill camera@", "kill JOB@3s"),
        ("kill camera@soon", "write for example 90s"),
        ("kill camera@-3s", "write for example 90s"),
        ("kill camera@3s+1s", "leave out '+1s'"),
        ("stop camera@3s", "'stop camera@3s+1s'"),
        ("stop camera@3s+", "'stop camera@3s+1s'"),
        ("stop camera@3s+long", "write for example 90s"),
        ("stop camera@3s+0s", "for example +1s"),
    ],
)
def test_what_is_no_fault_is_refused_with_a_remedy(sentence: str, remedy: str) -> None:
    with pytest.raises(FaultError) as caught:
        parse_fault(sentence)
    assert remedy in str(caught.value)


@given(
    st.text(max_size=60)
    | st.from_regex(r"(kill|stop|kill-agent|drop) \S+@.*(\+.*)?", fullmatch=True)
)
def test_any_text_is_a_fault_or_refused(sentence: str) -> None:
    try:
        fault = parse_fault(sentence)
    except FaultError as error:
        assert "\n" not in str(error) or "\n" in sentence  # noqa: PT017  # either is right here
    else:
        assert fault.sentence == sentence


@given(st.integers(0, 10**17), st.floats(0.001, 1e6))
def test_numbers_are_read_as_written(records: int, seconds: float) -> None:
    assert parse_fault(f"kill a@{records} records").when == AfterRecords(records)
    assert parse_fault(f"kill a@{seconds:f}s").when == AfterSeconds(float(f"{seconds:f}"))


def test_a_job_that_does_not_exist_is_named_with_the_one_that_was_meant() -> None:
    check_fault(parse_fault("kill detector@3s"), _PIPELINE)
    check_fault(parse_fault("kill detector-1@3s"), _PIPELINE)
    for wrong, right in (("camra", "'camera'"), ("detector-2", "'detector-")):
        with pytest.raises(FaultError, match=f"did you mean {right}"):
            check_fault(parse_fault(f"kill {wrong}@3s"), _PIPELINE)


def test_a_board_has_to_be_left() -> None:
    faults = (parse_fault("kill camera@1s"), parse_fault("kill detector@2s"))
    check_boards(faults, 3)
    check_boards((parse_fault("stop camera@1s+1s"), parse_fault("kill-agent camera@1s")), 1)
    with pytest.raises(FaultError, match="--agents 3"):
        check_boards(faults, 2)


def test_a_name_with_replicas_means_the_first_and_an_id_means_itself() -> None:
    first = _job("detector-0", spec_name="detector")
    second = _job("detector-1", spec_name="detector", replica=1)
    view = _view(second, first)
    assert targets(parse_fault("kill detector@1s"), view) == (first,)
    assert targets(parse_fault("kill detector-1@1s"), view) == (second,)
    assert targets(parse_fault("kill camera@1s"), view) == ()
    assert targets(parse_fault("drop detector-detector-1 1s"), view) == (first, second)
    assert targets(parse_fault("drop camera-detector 1s"), view) == ()


@pytest.mark.parametrize(
    ("pair", "remedy"),
    [
        ("camera-detector", ""),
        ("detector-1-camera", ""),
        ("camera-table", "no stream joins 'camera' and 'table'"),
        ("camera-camera", "no stream joins"),
        ("camera-detektor", "its jobs are camera, detector, detector-0, detector-1, table"),
        ("camera", "is not two jobs"),
    ],
)
def test_what_is_dropped_is_between_two_jobs_that_a_stream_joins(pair: str, remedy: str) -> None:
    """Case F2: `drop a-b 2s`; names may have hyphens, too."""
    stream = spec.StreamInput("frames", "camera", "frames")
    pipeline = spec.Pipeline(
        "people",
        (
            spec.Job("camera", ("a",), outputs=(spec.Output("frames"),)),
            spec.Job("detector", ("a",), replicas=2, streams=(stream,)),
            spec.Job("table", ("a",)),
        ),
    )
    fault = parse_fault(f"drop {pair} 2s")
    if remedy:
        with pytest.raises(FaultError, match=remedy):
            check_fault(fault, pipeline)
    else:
        check_fault(fault, pipeline)


def test_a_fault_waits_until_its_job_runs_and_its_records_have_passed() -> None:
    sent = StreamCounters("frames", output=True, records=9)
    taken = StreamCounters("raw", output=False, records=500)
    at_ten = parse_fault("kill camera@10 records")
    assert not due(at_ten, _job("camera", streams=(sent, taken)))
    assert due(at_ten, _job("camera", streams=(dataclasses.replace(sent, records=10), taken)))
    assert due(at_ten, _job("camera", streams=(taken,)))
    at_once = parse_fault("kill camera@0s")
    assert due(at_once, _job("camera"))
    assert not due(at_once, _job("camera", state=JobState.PREPARING))
    assert not due(at_once, _job("camera", state=JobState.SUCCEEDED))


def test_the_command_refuses_wrong_faults_before_it_starts_anything(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("{name: p, jobs: {job: {run: 'true'}}}")
    for words, said in (
        (["--fault", "kill jb@3s"], "did you mean 'job'"),
        (["--fault", "kill job"], "does not say when"),
        (["--fault", "kill job@3s", "--agents", "1"], "--agents 2"),
    ):
        result = CliRunner().invoke(cli, ["simulate", *words, str(path)])
        assert result.exit_code == 2
        assert said in result.output
