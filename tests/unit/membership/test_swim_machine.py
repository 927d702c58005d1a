"""The state rules, one at a time; scenarios as upstream's own tests name them."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import TypeVar

import pytest

from services.membership.effects import (
    Changed,
    Departed,
    DialPing,
    DialPushPull,
    Dropped,
    Effect,
    NameConflict,
    RoundTripMeasured,
    SendPacket,
    UserReceived,
)
from services.membership.events import (
    Leave,
    PacketReceived,
    RecordsReceived,
    SendFailed,
    SetMeta,
    StreamAnswered,
)
from services.membership.machine import SwimMachine
from services.membership.member import ChangeKind
from services.membership.message import (
    Ack,
    Address,
    Alive,
    Dead,
    IndirectPing,
    Nack,
    PacketMessage,
    Ping,
    PushNodeState,
    Suspect,
    SwimState,
    User,
    Versions,
)
from services.membership.profile import Profile

ME = Address("10.0.0.1", 7946)
T = TypeVar("T")


def where(name: str) -> Address:
    return Address(f"10.0.1.{ord(name[0])}", 7946)


def alive(name: str, incarnation: int = 1, meta: bytes = b"") -> Alive:
    return Alive(incarnation, name, *where(name), meta, Versions())


def pick(effects: list[Effect], kind: type[T]) -> list[T]:
    return [effect for effect in effects if isinstance(effect, kind)]


class Bench:
    """One machine and its clock."""

    def __init__(self, *others: str, **options: object) -> None:
        profile = Profile(name="me", address=ME, heal_interval_seconds=0)
        self.now = 0.0
        self.swim = SwimMachine(replace(profile, **options), random.Random(1), 0.0)  # type: ignore[arg-type]
        for name in others:
            self.hear(alive(name))

    def hear(self, *messages: PacketMessage, source: Address = ME) -> list[Effect]:
        return self.swim.handle(PacketReceived(source, messages), self.now)

    def state(self, name: str) -> SwimState | None:
        member = self.swim.states.table.get(name)
        return None if member is None else member.state

    def until(self, *kinds: type[Effect], seconds: float = 60.0) -> list[Effect]:
        """Tick until an effect of one of the kinds appears."""
        end = self.now + seconds
        while (deadline := self.swim.deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            effects = self.swim.tick(self.now)
            if pick(effects, kinds):  # type: ignore[arg-type]
                return effects
        raise AssertionError(f"no {kinds} within {seconds} s")

    def probe(self) -> tuple[SendPacket, Ping]:
        """Tick until a probe is sent."""
        while True:
            for packet in pick(self.until(SendPacket), SendPacket):
                if isinstance(packet.messages[0], Ping):
                    return packet, packet.messages[0]

    def queued(self, name: str) -> object:
        entries = self.swim.states.queue._entries
        return entries[name].item if name in entries else None


class TestAlive:
    def test_a_new_node_joins(self) -> None:
        bench = Bench()
        effects = bench.hear(alive("b"))

        assert [c.change.kind for c in pick(effects, Changed)] == [ChangeKind.JOINED]
        assert bench.state("b") is SwimState.ALIVE
        assert bench.queued("b") == alive("b")

    def test_is_idempotent(self) -> None:
        bench = Bench("b")
        assert bench.hear(alive("b")) == []

    def test_new_meta_is_an_update(self) -> None:
        bench = Bench("b")
        effects = bench.hear(alive("b", 2, b"x"))
        assert [c.change.kind for c in pick(effects, Changed)] == [ChangeKind.UPDATED]

    def test_clears_a_suspicion(self) -> None:
        bench = Bench("b")
        bench.hear(Suspect(1, "b", "c"))
        assert bench.state("b") is SwimState.SUSPECT
        bench.hear(alive("b", 1))
        assert bench.state("b") is SwimState.SUSPECT
        effects = bench.hear(alive("b", 2))
        assert [c.change.kind for c in pick(effects, Changed)] == [ChangeKind.RECOVERED]
        assert bench.swim.states.suspected == 0

    def test_members_are_bounded(self) -> None:
        bench = Bench("b", "c", members_max=3)
        assert len(pick(bench.hear(alive("d")), Dropped)) == 1
        assert bench.state("d") is None
        bench.hear(alive("c", 2))
        assert bench.state("c") is SwimState.ALIVE

    def test_incompatible_versions_are_refused(self) -> None:
        for versions in (Versions(0, 0, 0), Versions(5, 1, 2)):
            bench = Bench()
            effects = bench.hear(Alive(1, "b", *where("b"), b"", versions))
            assert bench.state("b") is None
            assert len(pick(effects, Dropped)) == 1

    def test_a_second_owner_of_a_name_is_a_conflict(self) -> None:
        bench = Bench("b")
        effects = bench.hear(Alive(9, "b", "10.9.9.9", 1, b"", Versions()))
        assert pick(effects, NameConflict)
        member = bench.swim.states.table.get("b")
        assert member is not None
        assert member.endpoint == where("b")

    def test_the_second_owner_gets_the_name_when_the_first_is_dead(self) -> None:
        bench = Bench("b")
        bench.hear(Alive(9, "b", "10.9.9.9", 1, b"", Versions()))
        effects = bench.hear(Dead(1, "b", "c"))
        kinds = [c.change.kind for c in pick(effects, Changed)]
        assert kinds == [ChangeKind.DIED, ChangeKind.JOINED]
        member = bench.swim.states.table.get("b")
        assert member is not None
        assert member.endpoint == Address("10.9.9.9", 1)

    def test_a_dead_name_is_reclaimed_by_a_newer_claim_only(self) -> None:
        bench = Bench("b")
        bench.hear(Dead(5, "b", "c"))
        assert pick(bench.hear(Alive(4, "b", "10.9.9.9", 1, b"", Versions())), NameConflict)
        bench.hear(Alive(6, "b", "10.9.9.9", 1, b"", Versions()))
        assert bench.state("b") is SwimState.ALIVE

    def test_a_restarted_node_is_told_what_is_remembered_of_it(self) -> None:
        bench = Bench()
        bench.hear(alive("b", 100))
        bench.hear(Dead(100, "b", "c"))
        effects = bench.hear(alive("b", 1))
        assert pick(effects, SendPacket) == [SendPacket(where("b"), (Suspect(100, "b", "me"),))]
        assert pick(bench.hear(alive("b", 1)), SendPacket) == []  # once a probe interval

    def test_about_itself_it_refutes_what_differs(self) -> None:
        bench = Bench()
        bench.hear(Alive(1, "me", *ME, b"", Versions()))
        assert bench.swim.me.incarnation == 1
        bench.hear(Alive(1, "me", *ME, b"other", Versions()))
        assert bench.swim.me.incarnation == 2
        bench.hear(Alive(7, "me", *ME, b"", Versions()))
        assert bench.swim.me.incarnation == 8


class TestSuspect:
    def test_of_an_unknown_node_is_ignored(self) -> None:
        bench = Bench()
        assert bench.hear(Suspect(1, "b", "c")) == []

    def test_old_news_is_ignored(self) -> None:
        bench = Bench()
        bench.hear(alive("b", 5))
        bench.hear(Suspect(4, "b", "c"))
        assert bench.state("b") is SwimState.ALIVE

    def test_is_passed_on_and_ends_in_death(self) -> None:
        bench = Bench("b", "c", "d")
        bench.hear(Suspect(1, "b", "c"))
        assert bench.queued("b") == Suspect(1, "b", "c")
        bench.hear(Suspect(1, "b", "d"), Suspect(1, "b", "me"))
        effects = bench.until(Changed)
        change = pick(effects, Changed)[0].change
        assert (change.kind, change.member.name) == (ChangeKind.DIED, "b")
        assert bench.now == pytest.approx(4.0)  # confirmed twice: the shortest

    def test_confirmations_are_passed_on_once(self) -> None:
        bench = Bench("b", "c", "d", "e")
        bench.hear(Suspect(1, "b", "c"))
        bench.hear(Suspect(1, "b", "d"))
        assert bench.queued("b") == Suspect(1, "b", "d")
        bench.hear(Suspect(1, "b", "d"))
        bench.hear(Suspect(1, "b", "e"))
        assert bench.queued("b") == Suspect(1, "b", "e")
        bench.hear(Suspect(1, "b", "x"))
        assert bench.queued("b") == Suspect(1, "b", "e")

    def test_of_itself_is_refuted(self) -> None:
        bench = Bench("b")
        bench.hear(Suspect(4, "me", "b"))
        assert bench.swim.me.incarnation == 5
        assert bench.swim.awareness == 1
        told = bench.queued("me")
        assert isinstance(told, Alive)
        assert told.incarnation == 5

    def test_one_accuser_cannot_storm(self) -> None:
        names = [chr(c) for c in range(ord("A"), ord("A") + 40)]
        bench = Bench(*names)
        effects = bench.hear(*(Suspect(1, name, "sick") for name in names))
        assert bench.swim.states.suspected == 16
        assert len(pick(effects, Dropped)) == 24


class TestDead:
    def test_of_an_unknown_or_old(self) -> None:
        bench = Bench()
        assert bench.hear(Dead(1, "b", "c")) == []
        bench.hear(alive("b", 5))
        bench.hear(Dead(4, "b", "c"))
        assert bench.state("b") is SwimState.ALIVE

    def test_from_itself_it_left(self) -> None:
        bench = Bench("b", "c")
        assert pick(bench.hear(Dead(1, "b", "b")), Changed)[0].change.kind is ChangeKind.LEFT
        assert pick(bench.hear(Dead(1, "c", "b")), Changed)[0].change.kind is ChangeKind.DIED
        assert bench.hear(Dead(1, "c", "b")) == []

    def test_an_old_alive_does_not_revive(self) -> None:
        bench = Bench("b")
        bench.hear(Dead(1, "b", "c"))
        bench.hear(alive("b", 1))
        assert bench.state("b") is SwimState.DEAD
        bench.hear(alive("b", 2))
        assert bench.state("b") is SwimState.ALIVE

    def test_of_itself_is_refuted(self) -> None:
        bench = Bench()
        bench.hear(Dead(1, "me", "b"))
        assert bench.swim.me.state is SwimState.ALIVE
        assert bench.swim.me.incarnation == 2


class TestMerge:
    def test_dead_is_only_suspected_left_is_left(self) -> None:
        bench = Bench("b", "c", "d")
        nodes = [
            PushNodeState("b", *where("b"), b"", 1, SwimState.DEAD),
            PushNodeState("c", *where("c"), b"", 1, SwimState.LEFT),
            PushNodeState("d", *where("d"), b"", 1, SwimState.SUSPECT),
            PushNodeState("e", *where("e"), b"", 1, SwimState.ALIVE, Versions()),
        ]
        bench.swim.handle(RecordsReceived(nodes), 0.0)
        assert [bench.state(name) for name in "bcde"] == [
            SwimState.SUSPECT,
            SwimState.LEFT,
            SwimState.SUSPECT,
            SwimState.ALIVE,
        ]

    def test_news_of_its_own_death_is_refuted(self) -> None:
        bench = Bench()
        node = PushNodeState("me", *ME, b"", 1, SwimState.DEAD)
        bench.swim.handle(RecordsReceived([node]), 0.0)
        assert bench.swim.me.incarnation == 2


class TestProbe:
    def test_an_ack_ends_it(self) -> None:
        bench = Bench("b")
        bench.swim.states.awareness.apply(2)
        packet, ping = bench.probe()
        assert packet.address == where("b")
        assert ping.node == "b"
        bench.now += 0.01
        effects = bench.hear(Ack(ping.sequence, b"coordinate"))
        (rtt,) = pick(effects, RoundTripMeasured)
        assert (rtt.member.name, rtt.payload) == ("b", b"coordinate")
        assert rtt.seconds == pytest.approx(0.01)
        assert bench.swim.awareness == 1

    def test_silence_goes_through_others_and_a_stream_to_suspicion(self) -> None:
        bench = Bench("b", "c", "d", "e")
        bench.hear(Dead(1, "c", "c"))
        _, ping = bench.probe()
        start = bench.now
        effects = bench.until(DialPing)
        assert bench.now == pytest.approx(start + 0.5)
        asked = [p.messages[0] for p in pick(effects, SendPacket) if len(p.messages) == 1]
        assert len(asked) == 2  # of b, d, e one is the target
        for request in asked:
            assert isinstance(request, IndirectPing)
            assert request.sequence == ping.sequence
            assert request.nack
        (dial,) = pick(effects, DialPing)
        assert dial.node == ping.node
        bench.hear(Nack(ping.sequence), Nack(ping.sequence))
        effects = bench.until(Changed)
        assert bench.now == pytest.approx(start + 1.0)
        assert pick(effects, Changed)[0].change.kind is ChangeKind.SUSPECTED
        assert bench.swim.awareness == 0  # both helpers said that they are well

    def test_missing_nacks_count_against_itself(self) -> None:
        bench = Bench("b", "c", "d", "e")
        bench.probe()
        bench.until(Changed)
        assert bench.swim.awareness == 3

    def test_a_late_nack_is_taken_back(self) -> None:
        bench = Bench("b", "c", "d", "e")
        _, ping = bench.probe()
        bench.until(Changed)
        bench.now += 0.01
        bench.hear(*[Nack(ping.sequence)] * 5)
        assert bench.swim.awareness == 0

    def test_a_late_or_indirect_ack_ends_it(self) -> None:
        bench = Bench("b", "c")
        _, ping = bench.probe()
        bench.until(DialPing)
        bench.now += 0.1
        effects = bench.hear(Ack(ping.sequence))
        assert pick(effects, RoundTripMeasured) == []
        assert bench.state(ping.node) is SwimState.ALIVE
        _, second = bench.probe()
        assert second.sequence != ping.sequence

    def test_a_stream_ack_ends_it(self) -> None:
        bench = Bench("b")
        _, ping = bench.probe()
        bench.until(DialPing)
        bench.swim.handle(StreamAnswered(ping.sequence, ping.node), bench.now)
        bench.probe()
        assert bench.state("b") is SwimState.ALIVE
        assert bench.swim.stream_rescues == 1

    def test_an_unsendable_ping_goes_to_others_at_once(self) -> None:
        bench = Bench("b", "c")
        packet, _ = bench.probe()
        bench.swim.handle(SendFailed(packet.address), bench.now)
        start = bench.now
        bench.until(DialPing)
        assert bench.now == start
        bench.until(Changed)  # an isolated node does suspect (Serf's issue 627)

    def test_a_suspect_is_told_with_the_ping(self) -> None:
        bench = Bench("b")
        bench.hear(Suspect(1, "b", "x"))
        packet, ping = bench.probe()
        assert packet.messages == (ping, Suspect(1, "b", "me"))

    def test_dead_and_left_are_not_probed_and_then_reaped(self) -> None:
        bench = Bench("b", "c", "d")
        bench.hear(Dead(1, "b", "x"), Dead(1, "c", "c"))
        for _ in range(40):
            packet, ping = bench.probe()
            assert packet.address == where("d")
            bench.hear(Ack(ping.sequence))
        assert bench.state("b") is bench.state("c") is None
        listed = {m.name: m.state for m in bench.swim.members(all_states=True)}
        assert listed["b"] is SwimState.DEAD
        assert listed["c"] is SwimState.LEFT

    def test_an_oversleeper_judges_nobody(self) -> None:
        bench = Bench("b", "c", "d")
        bench.hear(Suspect(1, "c", "d"))
        bench.probe()
        bench.now += 100
        assert pick(bench.swim.tick(bench.now), Changed) == []
        assert bench.swim.awareness == 1
        assert bench.state("c") is SwimState.SUSPECT


class TestPingAndRelay:
    def test_answers_to_the_address_in_the_ping_or_its_source(self) -> None:
        bench = Bench()
        source = Address("10.3.3.3", 3)
        told = pick(bench.hear(Ping(4, "me", "10.4.4.4", 4), source=source), SendPacket)
        assert [(p.address, p.messages[0]) for p in told] == [(Address("10.4.4.4", 4), Ack(4))]
        told = pick(bench.hear(Ping(5, ""), source=source), SendPacket)
        assert [(p.address, p.messages[0]) for p in told] == [(source, Ack(5))]

    def test_a_ping_for_another_is_dropped(self) -> None:
        bench = Bench()
        effects = bench.hear(Ping(4, "you"))
        assert pick(effects, SendPacket) == []
        assert len(pick(effects, Dropped)) == 1

    def relay(self, bench: Bench, *, nack: bool) -> Ping:
        request = IndirectPing(77, *where("b"), "b", nack)
        effects = bench.hear(request, source=where("z"))
        (packet,) = pick(effects, SendPacket)
        assert packet.address == where("b")
        ping = packet.messages[0]
        assert isinstance(ping, Ping)
        assert ping.node == "b"
        return ping

    def test_relays_an_ack(self) -> None:
        bench = Bench()
        ping = self.relay(bench, nack=True)
        effects = bench.hear(Ack(ping.sequence, b"x"))
        assert pick(effects, SendPacket) == [SendPacket(where("z"), (Ack(77),))]

    def test_nacks_at_four_fifths_and_still_forwards(self) -> None:
        bench = Bench()
        ping = self.relay(bench, nack=True)
        effects = bench.until(SendPacket)
        assert bench.now == pytest.approx(0.4)
        assert SendPacket(where("z"), (Nack(77),)) in effects
        bench.now += 0.05
        effects = bench.hear(Ack(ping.sequence))
        assert pick(effects, SendPacket) == [SendPacket(where("z"), (Ack(77),))]

    def test_is_silent_without_nack(self) -> None:
        bench = Bench()
        self.relay(bench, nack=False)
        with pytest.raises(AssertionError):
            bench.until(SendPacket, seconds=5)

    def test_relays_are_bounded(self) -> None:
        bench = Bench()
        requests = [IndirectPing(i, *where("b"), "b", nack=True) for i in range(2000)]
        effects = bench.hear(*requests)
        assert len(pick(effects, SendPacket)) == 1024
        assert len(pick(effects, Dropped)) == 976


def test_gossip_leaves_soon_and_as_often_as_the_formula_says() -> None:
    bench = Bench()
    for name in "bcdef":
        bench.hear(alive(name))
    sent = 0
    for _ in range(200):
        effects = bench.until(SendPacket)
        for packet in pick(effects, SendPacket):
            if isinstance(packet.messages[0], Ping):
                bench.hear(Ack(packet.messages[0].sequence))
            sent += sum(isinstance(m, Alive) and m.node == "b" for m in packet.messages)
        if bench.swim.queued == 0:
            break
    assert sent == 4  # 4 * ceil(log10(7))


def test_leave_says_goodbye_and_departs() -> None:
    bench = Bench("b", "c")
    bench.swim.handle(Leave(), bench.now)
    assert bench.swim.me.state is SwimState.LEFT
    goodbye = 0
    while True:
        effects = bench.until(SendPacket, Departed)
        for packet in pick(effects, SendPacket):
            goodbye += sum(m == Dead(1, "me", "me") for m in packet.messages)
        if pick(effects, Departed):
            break
    assert goodbye == 4
    bench.hear(Suspect(9, "me", "b"), Dead(9, "me", "b"), alive("me", 9))
    assert bench.swim.me.state is SwimState.LEFT


def test_leaving_alone_is_done_at_once() -> None:
    bench = Bench()
    assert pick(bench.swim.handle(Leave(), 0.0), Departed)


def test_new_meta_is_announced_under_the_next_incarnation() -> None:
    bench = Bench("b")
    effects = bench.swim.handle(SetMeta(b"new"), 0.0)
    assert pick(effects, Changed)[0].change.member.meta == b"new"
    told = bench.queued("me")
    assert isinstance(told, Alive)
    assert (told.incarnation, told.meta) == (2, b"new")


def test_exchanges_states_now_and_then() -> None:
    bench = Bench()
    bench.hear(alive("b", 100))
    times: list[float] = []
    while len(times) < 9:
        for effect in bench.until(DialPushPull, SendPacket):
            if isinstance(effect, DialPushPull):
                assert effect == DialPushPull(where("b"), join=False)
                times.append(bench.now)
            elif isinstance(effect, SendPacket) and isinstance(effect.messages[0], Ping):
                bench.hear(Ack(effect.messages[0].sequence))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[0] < 2.5
    assert all(27 <= gap <= 33 for gap in gaps[-3:])


def test_a_member_that_nobody_probes_says_so() -> None:
    bench = Bench("b")
    dropped: list[str] = []
    while bench.now < 120:
        for effect in bench.until(SendPacket, DialPushPull):
            if isinstance(effect, SendPacket) and isinstance(effect.messages[0], Ping):
                bench.hear(Ack(effect.messages[0].sequence))
            if isinstance(effect, Dropped):
                dropped.append(effect.reason)
        if bench.now < 30:
            bench.hear(Ping(1, "me"))
            assert dropped == []
    assert set(dropped) == {"unprobed"}


def test_user_messages_pass_through() -> None:
    bench = Bench("b")
    assert bench.hear(User(b"abc")) == [UserReceived(b"abc")]
