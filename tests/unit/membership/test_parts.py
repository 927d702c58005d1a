"""The small parts: formulas, suspicion, awareness, queue, order, roster, limits."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from services.membership.awareness import Awareness
from services.membership.broadcast import BroadcastQueue
from services.membership.compatibility import incompatibility
from services.membership.departed_members import DepartedMembers
from services.membership.member import Member
from services.membership.member_table import MemberTable, TableBase
from services.membership.message import PushNodeState, SwimState, Versions
from services.membership.preset import LAN, LOCAL, WAN
from services.membership.probe_order import ProbeOrder
from services.membership.suspect_rate_limit import SuspectRateLimit
from services.membership.suspicion import Suspicion

ALIVE, SUSPECT, DEAD, LEFT = SwimState


def member(name: str, state: SwimState = ALIVE, since: float = 0.0) -> Member:
    return Member(name, "10.0.0.1", 7946, b"", 1, state, since, Versions())


def test_formulas() -> None:
    assert LAN.suspicion_min_seconds(1) == LAN.suspicion_min_seconds(10) == 4.0
    assert LAN.suspicion_min_seconds(100) == 8.0
    assert LAN.suspicion_min_seconds(1000) == 12.0
    assert LAN.suspicion_min_seconds(50) == 4 * 1.698
    assert LAN.suspicion_max_seconds(100) == 48.0
    assert WAN.suspicion_min_seconds(100) == 60.0
    assert [LAN.retransmit_limit(n) for n in (9, 10, 99, 100, 999)] == [4, 8, 8, 12, 12]
    assert [LAN.confirmations_wanted(n) for n in (2, 3, 4, 100)] == [0, 0, 2, 2]
    assert LOCAL.confirmations_wanted(100) == 1
    assert [LAN.push_pull_seconds(n) for n in (1, 32, 33, 64, 65)] == [30, 30, 60, 60, 90]
    assert LAN.query_timeout_seconds(9) == pytest.approx(3.2)


def test_a_suspicion_shortens_with_confirmations() -> None:
    suspicion = Suspicion("a", 1, 100.0, wanted=3, least_seconds=2.0, most_seconds=30.0)

    assert suspicion.deadline() == 130.0
    assert not suspicion.confirm("a")
    expected = [30.0, *(30 - 28 * math.log(c + 1) / math.log(4) for c in (1, 2, 3))]
    for count, accuser in enumerate("bcd", 1):
        assert suspicion.confirm(accuser)
        assert not suspicion.confirm(accuser)
        assert suspicion.deadline() - 100 == pytest.approx(expected[count], abs=0.001)
    assert suspicion.deadline() == 102.0
    assert not suspicion.confirm("e")
    suspicion.postpone(5)
    assert suspicion.deadline() == 107.0


def test_a_suspicion_that_nobody_can_confirm_is_short() -> None:
    suspicion = Suspicion("a", 1, 0.0, wanted=0, least_seconds=4.0, most_seconds=24.0)

    assert suspicion.deadline() == 4.0


def test_awareness_stays_in_range() -> None:
    awareness = Awareness(8)
    for delta, score in ((0, 0), (-1, 0), (1, 1), (3, 4), (9, 7), (1, 7), (-2, 5), (-9, 0)):
        awareness.apply(delta)
        assert awareness.score == score
    awareness.apply(2)
    assert awareness.scale(1.0) == 3.0


class TestBroadcastQueue:
    def test_fewest_transmits_then_largest_then_newest(self) -> None:
        queue: BroadcastQueue[str] = BroadcastQueue()
        for key, size in (("s1", 10), ("big", 30), ("s2", 10), ("mid", 20)):
            queue.put(key, key, size)

        assert queue.take(1000, 2, 9) == ["big", "mid", "s2", "s1"]
        queue.put("new", "new", 5)
        assert queue.take(1000, 2, 9) == ["new", "big", "mid", "s2", "s1"]

    def test_fills_a_packet_with_what_fits(self) -> None:
        queue: BroadcastQueue[str] = BroadcastQueue()
        for key, size in (("a", 50), ("b", 30), ("c", 10)):
            queue.put(key, key, size)

        assert queue.take(45, 2, 9) == ["b", "c"]
        assert queue.take(45, 2, 9) == ["b", "c"]
        assert queue.take(52, 2, 9) == ["a"]
        assert queue.take(5, 2, 9) == []

    def test_drops_what_was_sent_often_enough(self) -> None:
        queue: BroadcastQueue[str] = BroadcastQueue()
        queue.put("a", "a", 5)

        assert [queue.take(100, 2, 3) for _ in range(4)] == [["a"], ["a"], ["a"], []]
        assert len(queue) == 0

    def test_a_newer_one_replaces_an_older(self) -> None:
        queue: BroadcastQueue[str] = BroadcastQueue()
        queue.put("a", "old", 5)
        queue.take(100, 2, 9)
        queue.put("a", "new", 7)

        assert queue.take(100, 2, 9) == ["new"]
        assert len(queue) == 1

    def test_a_packet_holds_at_most_127_parts(self) -> None:
        queue: BroadcastQueue[int] = BroadcastQueue()
        for index in range(500):
            queue.put(index, index, 1)

        assert len(queue.take(100_000, 2, 9)) == 127

    def test_is_bounded_and_drops_the_most_sent(self) -> None:
        queue: BroadcastQueue[int] = BroadcastQueue(capacity=10)
        queue.put(0, 0, 5)
        queue.take(100, 2, 9)
        for index in range(1, 11):
            queue.put(index, index, 5)

        assert len(queue) == 10
        assert 0 not in queue
        assert queue.dropped == 1


def test_a_round_visits_each_place_once() -> None:
    order = ProbeOrder(random.Random(1))
    orders: set[tuple[int | str | None, ...]] = set()
    for _ in range(5):
        order.restart(20)
        visited = [order.next() for _ in range(20)]
        assert sorted(visited, key=str) == sorted(range(20), key=str)
        assert order.next() is None
        orders.add(tuple(visited))
    assert len(orders) > 1


def test_a_newcomer_has_its_turn_within_the_round() -> None:
    order = ProbeOrder(random.Random(1))
    order.restart(20)
    first = [order.next() for _ in range(10)]
    order.add("new")
    rest = [order.next() for _ in range(11)]

    assert "new" in rest
    assert {*first, *rest} == {*range(20), "new"}
    assert order.next() is None


def test_roster_over_a_shared_base() -> None:
    base = TableBase([member("a"), member("b"), member("c", DEAD)])
    table, other = MemberTable(base), MemberTable(base)
    table.put(member("d"))
    table.put(member("a", DEAD))
    table.drop("b")

    assert [m.name for m in table] == ["a", "c", "d"]
    assert (len(table), table.reachable) == (3, 1)
    assert (len(other), other.reachable) == (3, 2)
    assert table.get("b") is None
    assert {m.name for m in table.unreachable()} == {"a", "c"}
    table.put(member("b"))
    assert (len(table), table.reachable) == (4, 2)
    table.drop("d")
    table.drop("d")
    assert [m.name for m in table] == ["a", "b", "c"]
    assert {m.name for p in range(table.places) if (m := table.at(p))} == {"a", "b", "c"}


def test_draw_is_fair_and_honours_states() -> None:
    table = MemberTable()
    for index in range(6):
        table.put(member(f"n{index}"))
    table.put(member("suspect", SUSPECT))
    table.put(member("dead", DEAD, since=95.0))
    table.put(member("long dead", DEAD, since=10.0))
    table.put(member("left", LEFT, since=99.0))
    rng = random.Random(3)
    alive = Counter(m.name for _ in range(3000) for m in table.draw(rng, 2, ("n0",), 100.0))
    gossip = {
        m.name for _ in range(500) for m in table.draw(rng, 3, ("n0",), 100.0, dead_within=30)
    }

    assert set(alive) == {f"n{index}" for index in range(1, 6)}
    assert max(alive.values()) < 1.2 * min(alive.values())
    assert gossip == {*alive, "suspect", "dead"}


def test_an_accuser_has_a_burst_and_a_rate() -> None:
    limit = SuspectRateLimit(3, 1.0)

    assert [limit.admit("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert limit.admit("b", 0.0)
    assert limit.admit("a", 1.0)
    assert not limit.admit("a", 1.0)


def test_accusers_are_bounded() -> None:
    limit = SuspectRateLimit(1, 1e9, most=10)
    for index in range(100):
        assert limit.admit(f"a{index}", 0.0)
    assert not limit.admit("a99", 0.0)
    assert limit.admit("a0", 0.0)


def test_the_book_of_the_lost_is_bounded() -> None:
    book = DepartedMembers(3, 100.0)
    for index in range(5):
        book.add(member(f"n{index}", LEFT if index == 4 else DEAD), float(index))

    assert [m.name for m in book] == ["n2", "n3", "n4"]
    assert len(book.dead()) == 2
    book.remove("n3")
    book.expire(103.0)
    assert [m.name for m in book] == ["n4"]


@pytest.mark.parametrize(
    ("remote", "local", "refused"),
    [
        (Versions(), Versions(), False),
        (Versions(1, 5, 2, 2, 5, 5), Versions(1, 5, 2, 2, 5, 4), False),
        (Versions(), Versions(1, 5, 2, 2, 5, 4), True),
        (Versions(3, 5, 3), Versions(1, 2, 2), True),
        (None, Versions(), False),
    ],
)
def test_versions_have_to_overlap(
    remote: Versions | None, local: Versions, *, refused: bool
) -> None:
    node = PushNodeState("n", "10.0.0.1", 1, b"", 1, ALIVE, remote)

    assert (incompatibility([node], [local]) is not None) is refused
