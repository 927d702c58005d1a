"""U10: what is told of nodes, and that what flaps is told less and less often."""

from __future__ import annotations

import json

from control.core import events
from control.core.machine_config import NEWS_PAUSE, MachineConfig
from control.core.news import News
from control.core.presence import Presence
from shoal.model import MemberState
from tests.unit.control.desk import Desk

NODE = "nodes/n1"


def told(desk: Desk) -> list[str]:
    """What was told of the node since it was asked last, when all of it arrives."""
    found = [one.removeprefix("shoal.node.") for one in desk.waiting(NODE)]
    desk.leave()
    return found


def test_u10_a_silence_within_the_lease_is_no_event() -> None:
    desk = Desk()
    desk.dial_all("n1")
    assert told(desk) == ["up"]
    for seconds in (0.0, 2.0, 5.0):
        desk.hang_up("n1")
        desk.verdict("n1", MemberState.SUSPECT)
        desk.pass_time(seconds)
        desk.verdict("n1", MemberState.ALIVE)
        desk.dial_all("n1")
    desk.pass_time(60)
    assert told(desk) == []


def test_u10_a_node_is_down_once_its_lease_is_over_and_back_when_it_dials() -> None:
    desk = Desk()
    desk.dial_all("n1")
    told(desk)
    desk.hang_up("n1")
    desk.pass_time(7)
    (row,) = [one for one in desk.outbox() if one.subject == NODE]
    assert (row.namespace, row.type, row.id) == (
        "",
        "shoal.node.down",
        f"{NODE}/down/{row.sequence}",
    )
    assert json.loads(row.data) == {
        "node": "n1",
        "state": "down",
        "presence": "down",
        "drained": False,
        "quarantine": "",
        "reason": {"code": "LOST", "number": 0, "message": "node n1 was silent for 6 s"},
    }
    told(desk)
    desk.pass_time(60)
    assert told(desk) == []
    desk.dial_all("n1")
    assert told(desk) == ["back"]


def test_u10_a_restart_of_the_controller_repeats_nothing_and_leaves_nothing_out() -> None:
    desk = Desk()
    desk.dial_all("n1", "n2")
    desk.hang_up("n1")
    desk.pass_time(7)
    desk.leave()
    desk.start()
    desk.pass_time(10)
    assert desk.waiting(NODE) == [], "it was down before, and that is known"
    assert desk.waiting("nodes/n2") == ["shoal.node.down"], "this one did not come back"
    desk.dial_all("n1", "n2")
    assert (desk.waiting(NODE), desk.waiting("nodes/n2")) == (
        ["shoal.node.back"],
        ["shoal.node.back"],
    )


def test_u10_a_node_that_said_good_bye_has_left_and_not_gone_down() -> None:
    desk = Desk()
    desk.dial_all("n1")
    told(desk)
    desk.verdict("n1", MemberState.LEFT)
    desk.hang_up("n1")
    desk.pass_time(7)
    assert told(desk) == ["left"]
    desk.verdict("n1", MemberState.UNKNOWN)
    desk.start()
    desk.pass_time(7)
    assert told(desk) == [], "gossip forgets those that left"
    desk.dial_all("n1")
    assert told(desk) == ["back"]


def test_u10_what_a_person_does_to_a_node_is_told_at_once() -> None:
    desk = Desk()
    desk.dial_all("n1")
    told(desk)
    for drained in (True, True, False):
        desk.drain("n1", drained=drained)
    assert desk.waiting(NODE) == ["shoal.node.undrained"], (
        "the newest has taken the place of the first"
    )
    data = json.loads(desk.outbox()[-1].data)
    assert (data["drained"], data["presence"]) == (False, "up")


def test_u10_a_node_that_is_forgotten_is_told_of_and_is_new_when_it_comes_again() -> None:
    desk = Desk()
    desk.dial_all("n1")
    desk.verdict("n1", MemberState.LEFT)
    desk.hang_up("n1")
    desk.pass_time(7)
    told(desk)
    assert desk.post(lambda call: events.ForgetNode(call, "n1")) is None
    assert told(desk) == ["forgotten"]
    desk.verdict("n1", MemberState.ALIVE)
    desk.dial_all("n1")
    assert told(desk) == ["up"]


def test_u10_a_node_that_is_forgotten_within_its_lease_is_no_longer_told_to_be_up() -> None:
    desk = Desk()
    desk.dial_all("n1")
    desk.hang_up("n1")
    desk.verdict("n1", MemberState.DEAD)
    told(desk)
    assert desk.post(lambda call: events.ForgetNode(call, "n1")) is None
    (row,) = desk.outbox()[-1:]
    data = json.loads(row.data)
    assert (data["state"], data["presence"]) == ("forgotten", "down")


def test_u10_of_nodes_that_flap_while_the_broker_is_away_only_the_newest_state_waits() -> None:
    """A thousand nodes swamp neither the store nor, later, the broker."""
    desk = Desk()
    names = [f"n{number}" for number in range(1000)]
    for _ in range(3):
        desk.dial_all(*names)
        for name in names:
            desk.hang_up(name)
        desk.pass_time(7)
    rows = desk.outbox()
    assert len(rows) == len(names)
    assert {row.type for row in rows} == {"shoal.node.down"}
    assert len({row.subject for row in rows}) == len(names)


def test_u10_a_node_that_flaps_is_told_of_less_and_less_often_and_in_the_end_as_it_is() -> None:
    desk = Desk(MachineConfig(lease_seconds=1.0))
    told_in_an_hour: list[str] = []
    while desk.now < 3600:
        desk.dial_all("n1")
        told_in_an_hour += told(desk)
        desk.pass_time(2)
        told_in_an_hour += told(desk)
        desk.hang_up("n1")
        desk.pass_time(8)
        told_in_an_hour += told(desk)
    assert told_in_an_hour[:3] == ["up", "down", "back"]
    assert 10 <= len(told_in_an_hour) <= 22, told_in_an_hour
    desk.dial_all("n1")
    desk.pass_time(2 * NEWS_PAUSE.maximum_seconds)
    assert desk.machine.cluster.nodes["n1"].presence is Presence.UP
    assert (told_in_an_hour + told(desk))[-1] in {"up", "back"}


def test_a_spell_of_news_ends_with_calm() -> None:
    news: News[str] = News(NEWS_PAUSE)
    pauses: list[float] = []
    now = 0.0
    for _ in range(9):
        news.told("a", now)
        until = now if news.may_tell("a", now) else news.deadline()
        assert until is not None
        pauses.append(until - now)
        now = until
        news.take(now)
    assert pauses == [0, 0, 10, 20, 40, 80, 160, 300, 300]
    assert news.may_tell("a", now)
    now += 2 * NEWS_PAUSE.maximum_seconds + 1
    news.told("a", now)
    assert news.may_tell("a", now)


def test_the_earlier_of_two_moments_counts_and_what_is_dropped_is_not_looked_at() -> None:
    news: News[str] = News(NEWS_PAUSE)
    for key, at in (("a", 5.0), ("a", 3.0), ("a", 9.0), ("b", 4.0), ("c", 1.0)):
        news.expect(key, at)
    news.drop("c")
    assert news.deadline() == 3.0
    assert news.take(2.0) == []
    assert news.take(5.0) == ["a", "b"]
    assert news.deadline() is None
