"""Which record goes where, as the contract has it."""

from __future__ import annotations

import pytest

from services.streams.lane_slice import lane_slice
from services.streams.merge_order import MergeOrder


def test_record_k_of_one_producer_goes_to_consumer_k_modulo_their_number() -> None:
    for consumer in range(3):
        part = lane_slice(0, 1, consumer, 3, broadcast=False)
        assert [part.record(sequence) for sequence in range(3)] == [
            consumer,
            consumer + 3,
            consumer + 6,
        ]
        assert part.sequence(6) == 2
        assert part.sequence(consumer + 6) == 2


def test_with_as_many_producers_as_consumers_they_stand_in_pairs() -> None:
    assert lane_slice(1, 2, 1, 2, broadcast=False).step == 1
    assert lane_slice(0, 2, 1, 2, broadcast=False).empty
    assert lane_slice(0, 2, 1, 2, broadcast=False).sequence(1000) == 0


def test_broadcast_sends_everything_everywhere() -> None:
    part = lane_slice(1, 2, 2, 3, broadcast=True)
    assert (part.first, part.step, part.empty) == (0, 1, False)


def test_a_replica_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="producer 2 of 2"):
        lane_slice(2, 2, 0, 1, broadcast=False)


def test_a_lane_that_has_ended_is_left_out() -> None:
    order = MergeOrder(3, 0, 1, broadcast=False)
    order.end(1, 1)
    lanes: list[int] = []
    for _ in range(7):
        lane = order.lane()
        assert lane is not None
        lanes.append(lane)
        order.take()
    assert lanes == [0, 1, 2, 0, 2, 0, 2]
    order.end(0, 3)
    order.end(2, 3)
    assert order.lane() is None


def test_a_large_jump_takes_whole_turns() -> None:
    order = MergeOrder(3, 0, 1, broadcast=False)
    known = [10**9] * 3
    assert order.advance(10**8 + 1, known)
    assert order.taken == [33333334, 33333334, 33333333]
    assert not order.advance(10**12, known)
    assert min(order.taken) == 10**9


def test_only_a_lone_lane_gives_several_in_a_row() -> None:
    with pytest.raises(ValueError, match="2 lanes take turns"):
        MergeOrder(2, 0, 1, broadcast=False).take_many(3)
