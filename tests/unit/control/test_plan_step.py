"""One look at a long queue: it costs what finds room and not what waits, and all are told why they do."""

from __future__ import annotations

from control.core.plan_step import PLACED_MAX
from control.core.scheduler.snapshot import Pending
from shoal.model import Capacity
from shoal.names import PipelineRef
from shoal.spec import Place, Resources
from tests.unit.control.desk import Desk
from tests.unit.control.world import hello, single


def counting(desk: Desk) -> list[Pending]:
    """Every job that a plan looks at from now on."""
    placer = desk.machine._placement
    looked_at: list[Pending] = []
    told = placer.told

    def look(job: Pending) -> Pending:
        looked_at.append(job)
        return told(job)

    setattr(placer, "told", look)  # noqa: B010 - of this one machine
    return looked_at


def full(waiting: int) -> tuple[Desk, list[PipelineRef]]:
    """A node with room for four, of which all have some, and so many jobs behind them."""
    desk = Desk()
    desk.dial(hello("n1"))
    return desk, [desk.submit(single(f"p{number}")) for number in range(4 + waiting)]


def test_an_end_costs_a_look_at_those_that_find_room_and_at_one_more() -> None:
    desk, refs = full(600)
    looked_at = counting(desk)
    desk.succeed(refs[0], "main")
    assert desk.nodes(refs[4]) == {"main": "n1"}
    assert {job.ref.pipeline_ref for job in looked_at} == {refs[4], refs[5]}


def test_what_comes_behind_equals_that_find_no_room_is_told_so_without_a_plan() -> None:
    desk, refs = full(3)
    looked_at = counting(desk)
    late = desk.submit(single("late"))
    assert looked_at == []
    assert desk.job(late, "main").waiting_for == desk.job(refs[4], "main").waiting_for != ""
    other = desk.submit(single("other", place=Place(require={"role": "camera"})))
    assert [job.ref.pipeline_ref for job in looked_at] == [other]


def test_another_kind_finds_the_room_that_the_first_of_the_queue_is_too_large_for() -> None:
    desk = Desk()
    desk.dial(hello("n1"))
    large = [desk.submit(single("large", resources=Resources(cpus=3))) for _ in range(3)]
    small = [desk.submit(single("small")) for _ in range(2)]
    assert [bool(desk.nodes(ref)) for ref in [*large, *small]] == [True, False, False, True, False]
    desk.succeed(large[0], "main")
    assert [bool(desk.nodes(ref)) for ref in [*large[1:], *small]] == [True, False, True, False]


def test_those_behind_the_first_are_told_of_another_reason_once_a_second() -> None:
    desk, refs = full(3)

    def told() -> list[bool]:
        return ["drained" in desk.job(ref, "main").waiting_for for ref in refs[4:]]

    desk.pass_time(2.0)
    desk.drain("n1")
    assert told() == [True] * 3
    desk.drain("n1", drained=False)
    assert told() == [False, True, True], "the others are told later"
    desk.pass_time(1.5)
    assert told() == [False] * 3


def test_the_first_is_told_within_a_second_of_what_is_free_now() -> None:
    desk = Desk()
    desk.dial(hello("n1"))
    small = [desk.submit(single("small")) for _ in range(3)]
    large = desk.submit(single("large", resources=Resources(cpus=4)))
    assert "4 cpus are needed, 1 of 4 free" in desk.job(large, "main").waiting_for
    desk.pass_time(2.0)
    desk.succeed(small[0], "main")
    assert "2 of 4 free" in desk.job(large, "main").waiting_for
    desk.succeed(small[1], "main")
    assert "2 of 4 free" in desk.job(large, "main").waiting_for
    desk.pass_time(1.0)
    assert "3 of 4 free" in desk.job(large, "main").waiting_for
    desk.succeed(small[2], "main")
    assert desk.nodes(large) == {"main": "n1"}


def test_more_than_one_step_places_are_placed_by_the_next_ones_in_their_order() -> None:
    desk = Desk()
    count = 2 * PLACED_MAX + 7
    refs = [desk.submit(single()) for _ in range(count)]
    desk.dial(hello("n1", capacity=Capacity(float(count - 1))))
    assert [bool(desk.nodes(ref)) for ref in refs] == [True] * (count - 1) + [False]
    epochs = [list(desk.machine.cluster.nodes["n1"].attempts)[number] for number in (0, -1)]
    assert [ref.pipeline_ref for ref in epochs] == [refs[0], refs[-2]]
