"""Reconcile: what both know, what only one knows."""

from __future__ import annotations

from control.core.reconcile import reconcile
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
    outcome = reconcile(DESIRED, [attempt("running"), attempt("old")], same_agent=True)
    assert outcome.kept == (attempt("running"),)
    assert outcome.stale == (attempt("old"),)
    assert outcome.undelivered == (attempt("assigned"),)
    assert outcome.missing == (attempt("gone"),)


def test_another_agent_cannot_know_what_was_delivered() -> None:
    outcome = reconcile(DESIRED, [attempt("running")], same_agent=False)
    assert outcome.undelivered == ()
    assert outcome.missing == (attempt("assigned"), attempt("gone"))


def test_another_epoch_is_another_attempt() -> None:
    outcome = reconcile({attempt("a", 2): JobState.RUNNING}, [attempt("a", 1)], same_agent=True)
    assert outcome.stale == (attempt("a", 1),)
    assert outcome.missing == (attempt("a", 2),)
