"""The queue: order, heads, removal."""

from __future__ import annotations

from itertools import islice

from control.core.backlog import Backlog
from control.core.state import JobRecord
from shoal.names import JobRef, PipelineRef
from shoal.spec import Job


def job(name: str, number: int = 0) -> JobRecord:
    return JobRecord(JobRef("default", name, "main"), Job("main", ("true",)), 0, number=number)


def heads(backlog: Backlog, width: int) -> list[str]:
    """The first so many of each kind, in the order of the queue."""
    found = [waiting for equals in backlog.kinds() for waiting in islice(equals, width)]
    return [one.job.ref.pipeline for one in sorted(found, key=lambda one: one.ticket)]


def test_jobs_stand_in_their_order_and_those_that_were_placed_before_go_first() -> None:
    backlog = Backlog()
    for one in (job("a"), job("b"), job("c", number=1), job("d", number=2)):
        backlog.add(one, "kind")
    assert heads(backlog, 10) == ["c", "d", "a", "b"]
    assert heads(backlog, 3) == ["c", "d", "a"]
    assert heads(backlog, 1) == ["c"]


def test_each_kind_has_a_queue_of_its_own() -> None:
    backlog = Backlog()
    for number in range(6):
        backlog.add(job(f"p{number}"), number % 2)
    assert heads(backlog, 2) == ["p0", "p1", "p2", "p3"]


def test_what_is_removed_is_gone_and_may_come_back_at_the_end() -> None:
    backlog = Backlog()
    first, second = job("a"), job("b")
    backlog.add(first, "kind")
    backlog.add(second, "kind")
    backlog.remove(first.ref)
    backlog.remove(first.ref)
    assert first.ref not in backlog
    assert len(backlog) == 1
    backlog.add(first, "kind")
    assert heads(backlog, 10) == ["b", "a"]
    backlog.remove(first.ref)
    backlog.remove(second.ref)
    assert heads(backlog, 10) == []
    assert len(backlog) == 0


def test_lines_enter_a_window_in_their_order_and_go_before_what_came_since() -> None:
    backlog = Backlog()
    for number in range(5):
        backlog.line_up(PipelineRef("default", f"p{number}"), "shape")
    backlog.add(job("since"), "kind")
    assert len(backlog) == 6

    def enter(width: int) -> list[str]:
        entered = list[str]()
        for ref in backlog.entering(width):
            entered.append(ref.pipeline)
            if ref.pipeline == "p1":
                backlog.leave(ref)  # it was cancelled meanwhile
            else:
                backlog.add(job(ref.pipeline), "kind", early=True)
        return entered

    assert enter(2) == ["p0", "p1", "p2"]
    assert enter(2) == []
    assert heads(backlog, 2) == ["p0", "p2"]
    backlog.remove(job("p0").ref)
    assert enter(2) == ["p3"]
    assert heads(backlog, 10) == ["p2", "p3", "since"]
    backlog.add(job("again", number=1), "kind")
    assert heads(backlog, 2) == ["again", "p2"]
    backlog.remove(job("p2").ref)
    backlog.remove(job("p3").ref)
    assert enter(2) == ["p4"]
    assert len(backlog) == 3
