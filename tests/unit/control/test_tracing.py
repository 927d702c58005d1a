"""The spans of pipelines: made once, in the transaction that records what they tell of."""

import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from types import FrameType

import pytest

from control.core import events
from control.core.answers import Submission
from control.core.effects import Taken
from control.core.machine_config import MachineConfig
from control.store import statements
from services.traces.span import Span, from_text, shift_into
from shoal.model import JobState, Reason, ReasonCode
from shoal.names import PipelineRef
from shoal.session.observation import Observation
from shoal.session.stage import AttemptStage, StageReached
from shoal.spec import Pipeline, Retry
from shoal.trace_context import TraceContext
from tests.unit.control.desk import Desk
from tests.unit.control.world import BEGAN, artifact, single

CLIENT = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
TRACED = MachineConfig(traces=True)
OF_TRACES = ("core/tracing.py", "services/traces/", "shoal/trace_context.py")


def submit(desk: Desk, spec: Pipeline, traceparent: str = str(CLIENT)) -> PipelineRef:
    submission = Submission("default", "", spec, traceparent=traceparent)
    answer = desk.post(lambda call: events.Submit(call, submission))
    assert isinstance(answer, Taken)
    return answer.ref


def spans(desk: Desk) -> list[Span]:
    rows = statements.spans(desk.connection, 10_000)
    return [span for row in rows for span in from_text(row.data)]


def by_name(found: list[Span]) -> dict[str, Span]:
    named = {one.name: one for one in found}
    assert len(named) == len(found), [one.name for one in found]
    return named


def succeed_in_steps(desk: Desk, ref: PipelineRef, ahead: float = 0.0) -> None:
    """Let the current attempt take a second for each step, by a clock that is ahead by so much."""
    now = BEGAN + timedelta(seconds=desk.now)
    attempt = desk.current(ref, "main")
    desk.pass_time(10.0)

    stages = tuple(
        StageReached(stage, now + timedelta(seconds=second + ahead))
        for stage, second in zip(AttemptStage, (1, 2, 2, 3, 6, 7), strict=True)
    )
    desk.say(
        "n1",
        Observation(
            attempt,
            JobState.SUCCEEDED,
            artifacts=(artifact(attempt),),
            start_time=now + timedelta(seconds=4 + ahead),
            end_time=now + timedelta(seconds=6 + ahead),
            stages=stages,
        ),
    )


def test_the_way_of_a_job_is_a_tree_below_the_span_of_its_client() -> None:
    desk = Desk(TRACED)
    desk.dial_all("n1")
    desk.pass_time(1.0)
    ref = submit(desk, single())
    succeed_in_steps(desk, ref)
    found = by_name(spans(desk))
    parents = {one.context.span_id: one.name for one in found.values()}
    parents[CLIENT.span_id] = "client"
    assert {name: parents[one.parent_id] for name, one in found.items()} == {
        "pipeline": "client",
        "job": "pipeline",
        "wait": "job",
        "attempt": "job",
        "assign": "attempt",
        "fetch": "attempt",
        "install": "attempt",
        "start": "attempt",
        "run": "attempt",
        "collect": "attempt",
        "store": "attempt",
    }
    assert {one.context.trace_id for one in found.values()} == {CLIENT.trace_id}
    seconds = {name: (one.end - one.start).total_seconds() for name, one in found.items()}
    assert seconds == {
        "pipeline": 10,
        "job": 10,
        "wait": 0,
        "attempt": 10,
        "assign": 1,
        "fetch": 1,
        "install": 1,
        "start": 1,
        "run": 2,
        "collect": 1,
        "store": 3,
    }
    assert {name for name, one in found.items() if one.node == "n1"} == {
        *("fetch", "install", "start", "run", "collect", "store")
    }
    assert "shoal.clock_moved_seconds" not in found["attempt"].attributes


def test_a_program_is_told_the_span_that_its_run_will_have() -> None:
    desk = Desk(TRACED)
    desk.dial_all("n1")
    ref = submit(desk, single())
    told = desk.assignment(ref, "main").traceparent
    desk.start()
    desk.dial_all("n1")
    assert desk.assignment(ref, "main").traceparent == told, "also after a restart"
    succeed_in_steps(desk, ref)
    assert told == str(by_name(spans(desk))["run"].context)


def test_events_say_their_span_below_that_of_what_they_tell_of() -> None:
    desk = Desk(TRACED)
    desk.dial_all("n1")
    ref = submit(desk, single())
    desk.succeed(ref, "main")
    told = [row.data for row in desk.events() if '"traceparent":"00-' in row.data]
    assert len(told) == 4, "running and succeeded, of the job and of the pipeline"
    assert len({data.split('"traceparent":"')[1][:55] for data in told}) == 4


@pytest.mark.parametrize("ahead", [-7200.0, -1.5, 86_400.0])
def test_the_clock_of_a_node_that_is_off_is_moved_as_a_whole(ahead: float) -> None:
    desk = Desk(TRACED)
    desk.dial_all("n1")
    desk.pass_time(1.0)
    ref = submit(desk, single())
    succeed_in_steps(desk, ref, ahead)
    found = by_name(spans(desk))
    whole = found["attempt"]
    assert all(
        whole.start <= one.start <= one.end <= whole.end for one in found.values() if one.node
    )
    assert (found["run"].end - found["run"].start).total_seconds() == 2
    moved = whole.attributes["shoal.clock_moved_seconds"]
    assert isinstance(moved, float)
    assert (moved > 0) == (ahead < 0)


def test_a_clock_that_was_set_while_the_program_ran_makes_no_span_end_before_it_began() -> None:
    desk = Desk(TRACED)
    desk.dial_all("n1")
    ref = submit(desk, single())
    attempt = desk.current(ref, "main")
    desk.say(
        "n1",
        Observation(
            attempt, JobState.SUCCEEDED, start_time=BEGAN + timedelta(days=9), end_time=BEGAN
        ),
    )
    assert all(one.start <= one.end for one in spans(desk))


def test_each_try_has_a_span_and_what_failed_says_why() -> None:
    desk = Desk(TRACED)
    desk.dial_all("n1")
    spec = single(retry=Retry(attempts=2, backoff_seconds=3.0, backoff_limit_seconds=3.0))
    ref = submit(desk, spec)
    desk.fail(ref, "main")
    desk.pass_time(5.0)
    desk.fail(ref, "main")
    found = spans(desk)
    tries = [one for one in found if one.name == "attempt"]
    assert [one.attributes["shoal.attempt"] for one in tries] == [1, 2]
    assert {one.failed for one in tries} == {"EXIT 3 it said so"}
    waits = [one for one in found if one.name == "wait"]
    assert (waits[1].end - waits[1].start).total_seconds() > 2, "the wait for the second try"
    assert by_name([one for one in found if one.name == "pipeline"])["pipeline"].failed


def test_a_pipeline_that_is_in_no_trace_leaves_none_and_says_none() -> None:
    for config, traceparent in (
        (MachineConfig(), ""),
        (MachineConfig(), str(CLIENT)),
        (TRACED, ""),
        (TRACED, str(replace(CLIENT, sampled=False))),
    ):
        desk = Desk(config)
        desk.dial_all("n1")
        ref = submit(desk, single(), traceparent)
        assert desk.assignment(ref, "main").traceparent[:35] == traceparent[:35]
        desk.succeed(ref, "main")
        assert spans(desk) == []


def test_a_restart_between_two_ends_leaves_the_trace_whole() -> None:
    desk = Desk(TRACED)
    desk.dial_all("n1")
    ref = submit(desk, single())
    before = desk.pipeline(ref).traceparent
    desk.start()
    desk.dial_all("n1")
    desk.succeed(ref, "main")
    assert desk.pipeline(ref).traceparent == before
    assert {one.name for one in spans(desk)} == {"wait", "attempt", "job", "pipeline"}


def test_a_share_of_those_in_no_trace_gets_one_of_its_own() -> None:
    desk = Desk(MachineConfig(traces=True, traces_share=0.5))
    desk.dial_all("n1")
    traced = 0
    for number in range(64):
        ref = submit(desk, single(f"p{number}"), "")
        traced += bool(desk.pipeline(ref).traceparent)
        desk.succeed(ref, "main")
    found = [one for one in spans(desk) if one.name == "pipeline"]
    assert 8 < len(found) == traced < 56
    assert {one.parent_id for one in found} == {""}
    all_of_them = Desk(MachineConfig(traces=True, traces_share=1.0))
    assert all(
        all_of_them.pipeline(submit(all_of_them, single(f"p{number}"), "")).traceparent
        for number in range(8)
    )


def test_what_was_cancelled_did_not_fail() -> None:
    desk = Desk(TRACED)
    desk.dial_all("n1")
    ref = submit(desk, single())
    desk.cancel(ref)
    desk.observe(ref, "main", JobState.CANCELLED, reason=Reason(ReasonCode.CANCELLED))
    assert {one.failed for one in spans(desk)} == {""}
    assert "pipeline" in {one.name for one in spans(desk)}


def test_rows_of_spans_are_dropped_when_they_have_left_and_the_oldest_beyond_their_room() -> None:
    desk = Desk(TRACED)
    desk.dial_all("n1")
    for number in range(3):
        desk.succeed(submit(desk, single(f"p{number}")), "main")
    rows = statements.spans(desk.connection, 100)
    assert len(rows) == 9
    assert statements.drop_spans(desk.connection, rows[0].sequence, 100) == 0
    left = statements.spans(desk.connection, 100)
    assert [row.sequence for row in left] == [row.sequence for row in rows[1:]]
    lost = sum(len(from_text(row.data)) for row in left[:-2])
    assert statements.drop_spans(desk.connection, 0, 2) == lost
    assert statements.spans(desk.connection, 100) == left[-2:]


def test_moments_of_another_clock_are_moved_by_the_least() -> None:
    start, end = BEGAN, BEGAN + timedelta(seconds=10)

    def moved(*seconds: float) -> float:
        times = [BEGAN + timedelta(seconds=one) for one in seconds]
        return shift_into(times, start, end).total_seconds()

    assert moved() == 0
    assert moved(0, 10) == 0
    assert moved(-3, 2) == 3
    assert moved(8, 14) == -4
    assert moved(5, 16) == -5, "longer than the room: from its beginning"


def test_a_job_without_a_trace_calls_nothing_of_traces_but_to_ask_for_its_share() -> None:
    """What is off costs nothing on the way of each job: counted in calls, which no other load changes."""
    called: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and any(one in frame.f_code.co_filename for one in OF_TRACES):
            called[frame.f_code.co_name] += 1

    for config, traceparent, expected in (
        (MachineConfig(), "", {"begun": 1}),
        (TRACED, "", {"begun": 1}),
    ):
        desk = Desk(config)
        desk.dial_all("n1")
        called.clear()
        sys.setprofile(note)
        try:
            ref = submit(desk, single(), traceparent)
            desk.assignment(ref, "main")
            desk.succeed(ref, "main")
        finally:
            sys.setprofile(None)
        assert called == expected
