"""What the control machine counts of what has ended, for figures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shoal.model import JobState, PipelineState, ReasonCode
from shoal.session.observation import Observation
from shoal.spec import Retry
from tests.unit.control.desk import Desk
from tests.unit.control.world import BEGAN, hello, single


def ran(desk: Desk, start: datetime | None, end: datetime | None) -> None:
    """Let a job run between two moments of its board's clock."""
    pipeline = desk.submit(single())
    ref = desk.current(pipeline, "main")
    desk.report("a", ref, JobState.RUNNING)
    desk.say("a", Observation(ref, JobState.SUCCEEDED, start_time=start, end_time=end))


def test_ends_are_counted_by_how_and_why() -> None:
    desk = Desk()
    desk.dial_all("a")
    desk.succeed(desk.submit(single()), "main")
    failing = desk.submit(single(retry=Retry(attempts=2)))
    desk.fail(failing, "main", ReasonCode.OOM)
    desk.pass_time(5)
    desk.fail(failing, "main")
    ended = desk.machine.situation.end_counts
    assert ended.attempts == {
        (JobState.SUCCEEDED, ReasonCode.NONE): 1,
        (JobState.FAILED, ReasonCode.OOM): 1,
        (JobState.FAILED, ReasonCode.EXIT): 1,
    }
    assert ended.pipelines == {PipelineState.SUCCEEDED: 1, PipelineState.FAILED: 1}
    assert sum(ended.waits.counts) == 2, "a second attempt waited for the first one"
    desk.start()
    assert not desk.machine.situation.end_counts.attempts, "a new machine counts from 0"


def test_what_waited_for_a_node_waited_so_long() -> None:
    desk = Desk()
    pipeline = desk.submit(single())
    desk.pass_time(40)
    desk.dial(hello("a"))
    desk.succeed(pipeline, "main")
    waits = desk.machine.situation.end_counts.waits
    assert waits.sum == pytest.approx(40, abs=0.5)
    assert waits.counts[waits.bounds.index(120.0)] == 1


@pytest.mark.parametrize(
    ("start", "end", "odd"),
    [
        (BEGAN, BEGAN + timedelta(seconds=7), 0),
        (BEGAN, BEGAN - timedelta(hours=1), 1),  # set back while it ran
        (datetime(1970, 1, 1, tzinfo=UTC), BEGAN, 1),  # set for the first time while it ran
        (datetime(1970, 1, 1, tzinfo=UTC), None, 1),  # started by the board's clock, ended by ours
        (None, BEGAN, 0),  # it never began
    ],
)
def test_a_clock_that_jumps_is_no_duration(
    start: datetime | None, end: datetime | None, odd: int
) -> None:
    desk = Desk()
    desk.dial_all("a")
    ran(desk, start, end)
    runs = desk.machine.situation.end_counts.runs
    assert runs.odd == odd
    assert runs.sum == (7.0 if sum(runs.counts) else 0.0)
    assert sum(runs.counts) == (1 if start == BEGAN and not odd else 0)
