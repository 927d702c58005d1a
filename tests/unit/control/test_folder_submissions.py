"""Folder inputs in the control machine: what was found is pinned, and old agents do not get such jobs."""

from dataclasses import replace

from control.core import events
from control.core.answers import Refusal, RefusalCode, Submission
from control.core.effects import Taken
from shoal.model import JobState
from shoal.spec import FolderInput, Job, Pipeline
from tests.unit.control.desk import Desk
from tests.unit.control.world import hello

DIGEST = "ab" * 32
TASK = Pipeline(
    "p", (Job("task", ("run",), folders=(FolderInput("in", prefix="s3://bucket/task/"),)),)
)
AWAY = Refusal(RefusalCode.UNAVAILABLE, "SOURCE_UNAVAILABLE", "the bucket is away")


def submit(desk: Desk, submission: Submission) -> object:
    return desk.post(lambda call: events.Submit(call, submission))


def test_what_was_found_is_told_with_each_attempt_also_after_a_start() -> None:
    desk = Desk()
    taken = submit(desk, Submission("default", "", TASK, listings={"task/in": DIGEST}))
    assert isinstance(taken, Taken)
    desk.start()
    desk.dial(hello("a"))
    job = desk.pipeline(taken.ref).jobs["task"]
    assert job.attempt is not None
    assert desk.machine.cluster.assignment(job.attempt).listings == {"in": DIGEST}
    desk.start()
    job = desk.pipeline(taken.ref).jobs["task"]
    assert job.attempt is not None
    assert desk.machine.cluster.assignment(job.attempt).listings == {"in": DIGEST}


def test_an_agent_that_does_not_fetch_folders_gets_no_such_job() -> None:
    desk = Desk()
    desk.dial(replace(hello("old"), features=frozenset[str]()))
    taken = submit(desk, Submission("default", "", TASK, listings={"task/in": DIGEST}))
    assert isinstance(taken, Taken)
    job = desk.pipeline(taken.ref).jobs["task"]
    assert job.state is JobState.QUEUED
    (verdict,) = desk.machine.explain(job.ref)
    assert "cannot do folder-inputs, which the job needs: update it" in str(verdict)
    desk.dial(hello("new"))
    assert desk.pipeline(taken.ref).jobs["task"].state is JobState.ASSIGNED


def test_a_request_that_was_made_before_is_answered_although_its_bucket_is_away() -> None:
    desk = Desk()
    first = submit(desk, Submission("default", "key", TASK, listings={"task/in": DIGEST}))
    assert isinstance(first, Taken)
    again = submit(desk, Submission("default", "key", TASK, refused=AWAY))
    assert isinstance(again, Taken)
    assert (again.ref, again.repeated) == (first.ref, True)
    assert submit(desk, Submission("default", "other", TASK, refused=AWAY)) == AWAY
