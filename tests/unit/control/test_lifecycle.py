"""The tables of lifecycle.py, cell by cell."""

from __future__ import annotations

import pytest

from control.core import lifecycle
from control.core.lifecycle import ATTEMPT, JOB, IllegalTransitionError, check, grows
from shoal.model import JobState

S = JobState

_ATTEMPT = {
    S.ASSIGNED: "PREPARING RUNNING DRAINING ARCHIVING SUCCEEDED FAILED CANCELLED LOST",
    S.PREPARING: "RUNNING DRAINING ARCHIVING SUCCEEDED FAILED CANCELLED LOST",
    S.RUNNING: "DRAINING ARCHIVING SUCCEEDED FAILED CANCELLED LOST",
    S.DRAINING: "ARCHIVING SUCCEEDED FAILED CANCELLED LOST",
    S.ARCHIVING: "SUCCEEDED FAILED CANCELLED LOST",
}

_JOB = {
    S.QUEUED: "ASSIGNED CANCELLED",
    S.RETRY_WAIT: "QUEUED CANCELLED",
    S.ASSIGNED: "PREPARING RUNNING DRAINING ARCHIVING SUCCEEDED FAILED CANCELLED QUEUED RETRY_WAIT",
    S.PREPARING: "RUNNING DRAINING ARCHIVING SUCCEEDED FAILED CANCELLED QUEUED RETRY_WAIT",
    S.RUNNING: "DRAINING ARCHIVING SUCCEEDED FAILED CANCELLED QUEUED RETRY_WAIT",
    S.DRAINING: "ARCHIVING SUCCEEDED FAILED CANCELLED QUEUED RETRY_WAIT",
    S.ARCHIVING: "SUCCEEDED FAILED CANCELLED QUEUED RETRY_WAIT",
}


@pytest.mark.parametrize("before", S)
@pytest.mark.parametrize("after", S)
def test_an_attempt_moves_by_its_table(before: JobState, after: JobState) -> None:
    allowed = after.name in _ATTEMPT.get(before, "").split()
    assert grows(before, after) == allowed
    if allowed:
        assert check("attempt", "a", ATTEMPT, before, after) is after
    else:
        with pytest.raises(IllegalTransitionError, match=f"{before.name} to {after.name}"):
            check("attempt", "a", ATTEMPT, before, after)


@pytest.mark.parametrize("before", S)
@pytest.mark.parametrize("after", S)
def test_a_job_moves_by_its_table(before: JobState, after: JobState) -> None:
    if after.name in _JOB.get(before, "").split():
        assert check("job", "j", JOB, before, after) is after
    else:
        with pytest.raises(IllegalTransitionError, match=f"{before.name} to {after.name}"):
            check("job", "j", JOB, before, after)


def test_every_state_of_a_job_that_waits_has_an_owner_and_a_deadline() -> None:
    waiting = {state for state, after in lifecycle.JOB.items() if after}
    assert waiting == set(lifecycle.WAITS)
    assert all(wait.deadline for wait in lifecycle.WAITS.values())


def test_k17_every_state_that_waits_has_words_for_what_and_until_when() -> None:
    """A program that runs waits for nobody; every other state says its piece."""
    for state, wait in lifecycle.WAITS.items():
        said = "until" in wait.sentence or "at {time}" in wait.sentence
        assert said == (state is not S.RUNNING), (state, wait.sentence)
