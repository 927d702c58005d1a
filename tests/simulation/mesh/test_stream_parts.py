"""Two real stream workers in memory with a lane between them, and what the check of promises sees."""

from __future__ import annotations

from functools import partial

import pytest

from tests.simulation.mesh.apart import run_apart
from tests.simulation.mesh.stream_guarantees import Delivery, Expected, missing, violations
from tests.simulation.mesh.stream_shape import Edge, JobShape, Shape
from tests.simulation.mesh.stream_world import StreamWorld

PAIR = Shape(
    (JobShape("source", records=200, pace=0.01), JobShape("sink")),
    (Edge("source", "out", "sink", "in"),),
)
APART = {"source": 0, "sink": 1}


def passed(seed: int, *faults: tuple[float, str]) -> tuple[int, list[tuple[int, int | None]]]:
    """Let records pass among faults; return seconds passed, records and end of each try of the sink."""
    world = StreamWorld(PAIR, seed, boards=2, places=APART)
    doings = {
        "tear": lambda: world.cut(1.0),
        "isolate": lambda: world.isolate(0.0, 4.0),
        "kill the producer's": lambda: world.kill_worker(0.0),
        "kill the consumer's": lambda: world.kill_worker(0.9),
        "unplug": lambda: world.lose_power(0.0),
    }
    for when, fault in faults:
        world.at(when, doings[fault])
    world.run(60)
    sinks = [one.program for one in world.attempts if one.job.spec.name == "sink" and one.program]
    deliveries = [one.deliveries["in"] for one in sinks]
    return int(world.loop.time()), [(len(one.numbered), one.end) for one in deliveries]


def test_records_pass_from_board_to_board() -> None:
    seconds, sinks = run_apart(lambda: passed(1))
    assert sinks == [(200, 200)]
    assert seconds < 5


@pytest.mark.parametrize("fault", ["tear", "isolate"])
def test_a_lane_that_was_cut_goes_on_where_it_was(fault: str) -> None:
    _, sinks = run_apart(lambda: passed(2, (0.8, fault), (1.1, "tear")))
    assert sinks == [(200, 200)]


def test_a_producer_that_dies_with_its_worker_sends_again_and_is_not_heard_twice() -> None:
    _, sinks = run_apart(lambda: passed(3, (0.9, "kill the producer's")))
    assert sinks == [(200, 200)]
    _, sinks = run_apart(lambda: passed(4, (0.9, "unplug")))
    assert sinks == [(200, 200)]


def test_a_consumer_that_dies_with_its_worker_gets_everything_again() -> None:
    _, sinks = run_apart(lambda: passed(5, (0.9, "kill the consumer's")))
    [(first, end), last] = sinks
    assert (0 < first < 200, end) == (True, None)
    assert last == (200, 200)


def test_one_seed_is_one_history() -> None:
    def once() -> tuple[int, str]:
        world = StreamWorld(PAIR, 6, boards=2, places=APART)
        world.at(0.5, partial(world.kill, "sink"))
        world.at(0.7, partial(world.cut, 0.5))
        world.run(60)
        return world.loop.callbacks, f"{world.loop.time()!r} {world.describe()}"

    assert run_apart(once) == run_apart(once)


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
