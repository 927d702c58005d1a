"""Two real stream workers in memory with a lane between them, and what the check of promises sees."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from shoal.model import PipelineState
from tests.simulation.mesh.play import Play, run
from tests.simulation.mesh.stream_guarantees import Delivery, Expected, missing, violations
from tests.simulation.mesh.stream_shape import Shape

PAIR = Shape.parse("source records=200 pace=0.01", "sink in<source.out").pipeline("pair").jobs


@dataclass(frozen=True, slots=True)
class Passed:
    """How long it took, records and end of each try of the sink, and how often each job was tried."""

    seconds: float
    sinks: list[tuple[int, int | None]]
    attempts: list[int]


def passed(seed: int, *faults: Callable[[Play], object]) -> Passed:
    """Let records pass from board to board, and do something in their midst."""

    async def play(world: Play) -> Passed:
        await world.begin(*PAIR)
        await world.until(lambda: len(world.programs) == len(PAIR))
        assert all(len(board.programs) == 1 for board in world.boards)
        began = world.loop.time()
        for fault in faults:
            await asyncio.sleep(0.9)
            fault(world)
        state, attempts = await world.end()
        assert state is PipelineState.SUCCEEDED
        sinks = [program for ref, program in world.programs if ref.job == "sink"]
        came = [(len(one.numbered), one.end) for one in (sink.deliveries["in"] for sink in sinks)]
        return Passed(world.loop.time() - began, came, attempts)

    found: Passed = run(play, seed, boards=2)
    return found


def tear(world: Play) -> None:
    """Break the calls between both boards."""
    world.network.tear("node-1", "node-2")


def isolate(world: Play) -> None:
    """Let nothing pass between both boards for a while."""
    world.user(world.apart("node-1", "node-2", 4.0))


def test_records_pass_from_board_to_board() -> None:
    found = passed(1)
    assert found.sinks == [(200, 200)]
    assert found.seconds < 5


@pytest.mark.parametrize("fault", [tear, isolate])
def test_a_lane_that_was_cut_goes_on_where_it_was(fault: Callable[[Play], object]) -> None:
    assert passed(2, fault, tear).sinks == [(200, 200)]


def test_u11_a_lane_that_is_cut_is_told_of_and_a_controller_that_starts_again_says_when_it_flows() -> (
    None
):
    async def play(world: Play) -> list[str]:
        def told() -> list[str]:
            rows = world.ledger.events.values()
            sink = [row.type for row in rows if row.subject.endswith("/jobs/sink")]
            return [one.removeprefix("shoal.job.") for one in sink]

        await world.begin(*PAIR)
        await world.until(lambda: "running" in told())
        await asyncio.sleep(0.5)
        isolate(world)
        await world.until(lambda: "still" in told())
        world.controller.kill()
        await asyncio.sleep(0.5)
        world.controller.start()
        assert (await world.end())[0] is PipelineState.SUCCEEDED
        return told()

    assert run(play, 6, boards=2) == ["running", "still", "flows", "succeeded"]


def test_a_producer_that_dies_with_its_worker_sends_again_and_is_not_heard_twice() -> None:
    assert passed(3, lambda world: world.boards[0].kill_worker()).sinks == [(200, 200)]
    assert passed(4, lambda world: world.user(world.powerless(world.boards[0], 2.0))).sinks == [
        (200, 200)
    ]


def test_a_consumer_that_dies_with_its_worker_gets_everything_again() -> None:
    [(first, end), last] = passed(5, lambda world: world.boards[1].kill_worker()).sinks
    assert (0 < first < 200, end) == (True, None)
    assert last == (200, 200)


def told(*numbered: tuple[int, bytes], start: int = 0, end: int | None = None) -> Delivery:
    """Return a delivery of these records."""
    delivery = Delivery(start, list(numbered), end, most=1)
    due = start
    for number, _ in numbered:
        if number != due:
            delivery.gaps.append((due, number))
        due = number + 1
    return delivery


FEED = Expected([b"a", b"b", b"c", b"d"])


@pytest.mark.parametrize(
    ("delivery", "words"),
    [
        (told((0, b"a"), (2, b"c")), "came when 1 was due"),
        (told((0, b"a"), (1, b"b"), (1, b"b")), "record 1 came after 1"),
        (told((0, b"a"), (1, b"c")), "was never sent as that"),
        (told((3, b"d"), (4, b"e"), start=3), "was never sent as that"),
        (told((0, b"a"), end=1), "the end came after 1 of 4 records"),
        (told((0, b"a"), (1, b"b"), end=4), "the end came at 4, after record 1"),
    ],
)
def test_a_broken_promise_is_seen(delivery: Delivery, words: str) -> None:
    assert any(words in one for one in violations(FEED, delivery))


def test_what_was_promised_is_no_violation() -> None:
    whole = told((0, b"a"), (1, b"b"), (2, b"c"), (3, b"d"), end=4)
    assert list(violations(FEED, whole)) == []
    assert list(violations(FEED, told((2, b"c"), start=2))) == []
    rounds = Expected(FEED.feed, block_count=3)
    assert list(violations(rounds, told(start=6, end=6))) == [], "begun after a short last round"


def test_the_order_between_producers_is_free_and_that_of_each_is_not() -> None:
    both = Expected(FEED.feed, feeds=([b"a", b"c"], [b"b", b"d"]))
    mixed = told((0, b"b"), (1, b"a"), (2, b"d"), (3, b"c"), end=4)
    assert list(violations(both, mixed)) == []
    assert any("sent next" in one for one in violations(both, told((0, b"c"), (1, b"a"))))


def test_the_newest_alone_may_leave_gaps_and_keep_the_last() -> None:
    newest = Expected(FEED.feed, keep=1)
    assert list(violations(newest, told((1, b"b"), (3, b"d"), end=4))) == []
    assert any("newest" in one for one in violations(newest, told((1, b"b"), end=4)))


def test_a_sink_that_lost_or_repeated_a_round_is_seen() -> None:
    assert list(missing(FEED, [[0, 1], [0, 1, 2, 3]], resumes=False)) == []
    assert list(missing(FEED, [[0, 1], [1, 2, 3]], resumes=True)) == []
    assert any("lost" in one for one in missing(FEED, [[0, 1], [3]], resumes=True))
    assert any("committed" in one for one in missing(FEED, [[0, 1], [1, 2, 3]], resumes=False))
