"""Reconcile: what both know, what only one knows."""

from __future__ import annotations

from control.core.reconcile import missing
from shoal.model import JobState
from shoal.names import AttemptRef


def attempt(job: str, epoch: int = 1) -> AttemptRef:
    return AttemptRef("default", "p", job, epoch, epoch)


DESIRED = {
    attempt("assigned"): JobState.ASSIGNED,
    attempt("running"): JobState.RUNNING,
    attempt("gone"): JobState.DRAINING,
}


def test_the_same_agent_says_what_was_never_delivered() -> None:
    observed = [attempt("running"), attempt("old")]
    assert missing(DESIRED, observed, same_agent=True) == (attempt("gone"),)


def test_another_agent_cannot_know_what_was_delivered() -> None:
    found = missing(DESIRED, [attempt("running")], same_agent=False)
    assert found == (attempt("assigned"), attempt("gone"))


def test_another_epoch_is_another_attempt() -> None:
    desired = {attempt("a", 2): JobState.RUNNING}
    assert missing(desired, [attempt("a", 1)], same_agent=True) == (attempt("a", 2),)
