"""Serf's layer by itself: clocks, intents, events, queries, filters, keys, coordinates."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterable

import pytest

from services.membership.effects import Changed, Dropped, SendPacket
from services.membership.events import Broadcast, PacketReceived
from services.membership.keyring import Keyring
from services.membership.machine import SwimMachine
from services.membership.member import ChangeKind
from services.membership.message import Address, Alive, Dead, SwimState, User, Versions
from services.membership.preset import LAN
from services.membership.profile import Profile
from services.membership.refusal import DropReason, RefusedError
from services.membership.serf import keys
from services.membership.serf.coordinate import (
    Coordinate,
    Coordinates,
    decode_coordinate,
    encode_coordinate,
)
from services.membership.serf.effects import (
    EventHeard,
    KeyringChanged,
    QueryAnswered,
    QueryHeard,
    QueryOver,
    SerfEffect,
)
from services.membership.serf.filter import encode_filters, passes
from services.membership.serf.lamport import LamportClock
from services.membership.serf.machine import SerfMachine
from services.membership.serf.message import (
    JoinIntent,
    LeaveIntent,
    Query,
    QueryResponse,
    Relayed,
    SerfMessage,
    UserEvent,
    UserState,
    decode_serf,
    decode_user_state,
    encode_serf,
    encode_user_state,
    slices,
)
from services.membership.serf.queries import QueryRequest

ASKER = Address("10.0.0.9", 7946)
SERF = Versions(1, 5, 2, 2, 5, 4)


def make(keyring: Keyring | None = None, tags: bytes = b"") -> SerfMachine:
    profile = Profile(name="me", address=Address("10.0.0.1", 7946), meta=tags, versions=SERF)
    swim = SwimMachine(profile, random.Random(1), 0.0)
    node = SerfMachine(swim, keyring or Keyring(), LAN, random.Random(2))
    node.handle(PacketReceived(ASKER, (Alive(1, "b", "10.0.0.2", 7946, b"", SERF),)), 0.0)
    return node


def hear(
    node: SerfMachine, *messages: SerfMessage, now: float = 1.0, sealed: bool = False
) -> list[SerfEffect]:
    packed = tuple(User(encode_serf(message)) for message in messages)
    return node.handle(PacketReceived(ASKER, packed, sealed), now)


def keyring(mode: str) -> Keyring:
    """A ring of one key, as `--gossip-encryption` sets it up."""
    return Keyring([b"o" * 16], verify_incoming=False, verify_outgoing=mode != "hear")


def state(node: SerfMachine, name: str) -> SwimState | None:
    member = node.swim.find(name)
    return None if member is None else member.state


def query(name: str, payload: bytes = b"", *, flags: int = 0, **options: object) -> Query:
    values: dict[str, object] = {
        "time": 5,
        "identity": 77,
        "host": bytes((10, 0, 0, 9)),
        "port": 7946,
        "source": "asker",
        "filters": (),
        "relay_factor": 0,
        "timeout_seconds": 3.0,
    }
    return Query(**(values | options), flags=flags, name=name, payload=payload)  # type: ignore[arg-type]


def responses(effects: Iterable[SerfEffect], to: Address = ASKER) -> list[SerfMessage | None]:
    return [
        decode_serf(message.payload)
        for effect in effects
        if isinstance(effect, SendPacket) and effect.address == to
        for message in effect.messages
        if isinstance(message, User)
    ]


def test_lamport_clock() -> None:
    clock = LamportClock()
    assert clock.time == 1
    clock.witness(41)
    assert clock.time == 42
    clock.witness(41)
    assert clock.time == 42
    assert clock.increment() == 43
    clock.witness(2**64 - 1)
    assert clock.increment() == 2**64 - 1


@pytest.mark.parametrize(
    "message",
    [
        LeaveIntent(2**64 - 1, "a", prune=True),
        JoinIntent(3, "a"),
        UserEvent(4, "deploy", b"\xff", coalesce=True),
        query("uptime", b"x", flags=1, filters=(b"\x00\x91\xa1a",)),
        QueryResponse(5, 2**32 - 1, "a", 1, b"answer"),
        Relayed(bytes((10, 0, 0, 9)), 7946, "a", b"\x05abc"),
    ],
    ids=lambda m: type(m).__name__,
)
def test_messages_round_trip(message: SerfMessage) -> None:
    assert decode_serf(encode_serf(message)) == message


def test_user_state_round_trip_and_slices() -> None:
    whole = UserState(
        9,
        {f"n{index}": index for index in range(50)},
        ("n3", "gone"),
        7,
        (UserEvent(6, "e", b"x"), UserEvent(6, "f", b""), UserEvent(5, "e", b"")),
        4,
    )
    read = decode_user_state(encode_user_state(whole))
    assert read is not None
    assert set(read.events) == set(whole.events)
    first, *rest = slices(whole, 20)
    assert (first.time, first.left, first.query_time) == (9, whole.left, 4)
    assert dict(first.status_times) == {"n3": 3, "gone": 0}
    merged = {name: time for part in rest for name, time in part.status_times.items()}
    assert merged == {n: t for n, t in whole.status_times.items() if n != "n3"}
    assert decode_user_state(b"") is None


class TestIntents:
    def test_a_leave_intent_makes_a_death_a_departure(self) -> None:
        node = make()
        hear(node, LeaveIntent(5, "b"))
        effects = node.handle(PacketReceived(ASKER, (Dead(1, "b", "c"),)), 2.0)
        kinds = [e.change.kind for e in effects if isinstance(e, Changed)]
        assert kinds == [ChangeKind.DIED, ChangeKind.LEFT]
        assert state(node, "b") is SwimState.LEFT

    def test_an_old_intent_changes_nothing(self) -> None:
        node = make()
        hear(node, JoinIntent(9, "b"))
        hear(node, LeaveIntent(8, "b"))
        node.handle(PacketReceived(ASKER, (Dead(1, "b", "c"),)), 2.0)
        assert state(node, "b") is SwimState.DEAD

    def test_a_later_join_takes_a_leave_back(self) -> None:
        node = make()
        hear(node, LeaveIntent(5, "b"), JoinIntent(6, "b"))
        node.handle(PacketReceived(ASKER, (Dead(1, "b", "c"),)), 2.0)
        assert state(node, "b") is SwimState.DEAD

    def test_an_intent_may_come_before_its_member(self) -> None:
        node = make()
        hear(node, LeaveIntent(5, "late"))
        node.handle(
            PacketReceived(
                ASKER, (Alive(1, "late", "10.0.0.3", 1, b"", SERF), Dead(1, "late", "c"))
            ),
            2.0,
        )
        assert state(node, "late") is SwimState.LEFT

    def test_an_intent_is_passed_on_once(self) -> None:
        node = make()
        before = node.swim.queued
        hear(node, JoinIntent(5, "b"))
        assert node.swim.queued == before + 1
        hear(node, JoinIntent(5, "b"))
        assert node.swim.queued == before + 1

    def test_a_leave_about_ourselves_is_refuted(self) -> None:
        node = make()
        hear(node, LeaveIntent(40, "me"))
        assert node.swim.waits("JoinIntent:me:42")

    def test_an_operator_declares_a_failed_member_gone(self) -> None:
        node = make()
        node.handle(PacketReceived(ASKER, (Dead(1, "b", "c"),)), 2.0)
        assert state(node, "b") is SwimState.DEAD
        node.force_leave("b", 3.0)
        assert state(node, "b") is SwimState.LEFT
        node.force_leave("b", 4.0, prune=True)
        assert state(node, "b") is None

    def test_left_members_of_an_exchange(self) -> None:
        node = make()
        node.handle(PacketReceived(ASKER, (Dead(1, "b", "c"),)), 2.0)
        node.merge_user_state(UserState(50, {"b": 7}, ("b",)), 3.0)
        assert state(node, "b") is SwimState.LEFT


class TestEvents:
    def test_are_heard_once_and_passed_on(self) -> None:
        node = make()
        event = UserEvent(8, "deploy", b"v1")
        assert hear(node, event) == [EventHeard(event)]
        assert hear(node, event) == []
        assert node.swim.waits(f"event:8:deploy:{hash(b'v1')}")

    def test_are_replayed_by_an_exchange(self) -> None:
        events = (UserEvent(8, "deploy", b"v1"),)
        assert make().merge_user_state(UserState(1, event_time=9, events=events), 1.0) == [
            EventHeard(events[0])
        ]

    def test_too_old_or_too_big(self) -> None:
        node = make()
        hear(node, UserEvent(10_000, "new", b""))
        assert hear(node, UserEvent(5, "old", b"")) == []
        with pytest.raises(ValueError, match="at most 512"):
            node.send_event("x", b"y" * 600, 1.0)

    def test_garbage_is_dropped(self) -> None:
        node = make()
        effects = node.handle(
            PacketReceived(ASKER, (User(b""), User(b"\x63"), User(b"\x03\xc1"))), 1.0
        )
        assert [type(effect) for effect in effects] == [Dropped] * 3


class TestQueries:
    def test_is_heard_acknowledged_and_answered(self) -> None:
        node = make()
        asked = query("uptime", b"now", flags=1)
        effects = hear(node, asked)
        assert responses(effects) == [QueryResponse(5, 77, "me", 1, b"")]
        assert [e for e in effects if isinstance(e, QueryHeard)] == [QueryHeard(asked, 4.0)]
        assert hear(node, asked) == []
        assert responses(node.respond(asked, b"up")) == [QueryResponse(5, 77, "me", 0, b"up")]
        with pytest.raises(ValueError, match="at most 1024"):
            node.respond(asked, b"x" * 2000)

    def test_collects_answers_once_each_until_the_time_is_up(self) -> None:
        node = make()
        asked, effects = node.send_query(QueryRequest("uptime", request_ack=True), 0.0)
        assert QueryAnswered(asked.identity, "me", b"", ack=True) in effects
        answer = QueryResponse(asked.time, asked.identity, "b", 0, b"up")
        assert hear(node, answer, answer) == [QueryAnswered(asked.identity, "b", b"up", ack=False)]
        deadline = 0.2 * 16
        over = node.tick(deadline + 0.01)
        assert QueryOver(asked.identity) in over
        assert hear(node, QueryResponse(asked.time, asked.identity, "c", 0, b"")) == []

    def test_relays_answers(self) -> None:
        node = make()
        effects = hear(node, query("uptime", flags=1, relay_factor=2))
        relayed = responses(effects, Address("10.0.0.2", 7946))
        assert len(relayed) == 1  # there is one other member
        assert isinstance(relayed[0], Relayed)
        inner = decode_serf(relayed[0].message)
        assert inner == QueryResponse(5, 77, "me", 1, b"")
        assert responses(hear(node, relayed[0])) == [inner]

    def test_without_broadcast_it_is_not_passed_on(self) -> None:
        node = make()
        before = node.swim.queued
        hear(node, query("uptime", flags=2))
        assert node.swim.queued == before

    def test_filters(self) -> None:
        tags = {"role": "edge", "zone": "b2"}
        assert passes(encode_filters(["me"], {"zone": "^b"}), "me", tags)
        assert not passes(encode_filters(["you"], {}), "me", tags)
        assert not passes(encode_filters([], {"zone": "^c"}), "me", tags)
        assert not passes(encode_filters([], {"absent": "x"}), "me", tags)
        for bad in (b"", b"\x00\x01", b"\x07\x90", b"\x01\xc1"):
            with pytest.raises(RefusedError):
                passes((bad,), "me", tags)

    @pytest.mark.parametrize("expression", ["(a+)+$", "(a|a)*b", "a*a*a*b", "(", r"(a)\1"])
    def test_expressions_that_could_run_for_ever_are_not_run(self, expression: str) -> None:
        with pytest.raises(RefusedError):
            passes(encode_filters([], {"role": expression}), "me", {"role": "a" * 100})

    def test_queries_are_bounded(self) -> None:
        node = make()
        for _ in range(256):
            node.send_query(QueryRequest("q"), 0.0)
        with pytest.raises(ValueError, match="256"):
            node.send_query(QueryRequest("q"), 0.0)


class TestKeys:
    def ask(self, node: SerfMachine, name: str, payload: bytes, identity: int) -> keys.KeyAnswer:
        asked = query(name, payload, identity=identity)
        (response,) = responses(hear(node, asked, sealed=True))
        assert isinstance(response, QueryResponse)
        return keys.decode_key_answer(response.payload)

    def test_rotation(self) -> None:
        old, new = b"o" * 16, b"n" * 32
        ring = Keyring([old])
        node = make(ring)
        request = keys.encode_key_request(new)
        assert self.ask(node, keys.INSTALL, request, 1).ok
        assert self.ask(node, keys.USE, request, 2).ok
        assert not self.ask(node, keys.REMOVE, request, 3).ok
        assert self.ask(node, keys.REMOVE, keys.encode_key_request(old), 4).ok
        listed = self.ask(node, keys.LIST, b"", 5)
        assert listed.keys == (base64.b64encode(new).decode(),)
        assert listed.primary == listed.keys[0]
        assert not self.ask(node, keys.INSTALL, keys.encode_key_request(b"short"), 6).ok
        assert not self.ask(node, keys.INSTALL, b"garbage", 7).ok
        assert ring.keys == (new,)

    def test_a_change_is_told(self) -> None:
        node = make(Keyring([b"o" * 16]))
        asked = query(keys.INSTALL, keys.encode_key_request(b"n" * 16))
        assert KeyringChanged() in hear(node, asked, sealed=True)

    @pytest.mark.parametrize("name", sorted(keys.KEY_QUERIES))
    @pytest.mark.parametrize("mode", ["hear", "speak"])
    def test_t5_what_came_plain_is_neither_obeyed_nor_answered_nor_passed_on(
        self, name: str, mode: str
    ) -> None:
        """T5, and the sealed copy of the same query is obeyed after it."""
        ring = keyring(mode)
        node = make(ring)
        waiting = node.swim.queued
        asked = query(name, keys.encode_key_request(b"n" * 16), flags=1, relay_factor=2)
        (dropped,) = hear(node, asked)
        assert isinstance(dropped, Dropped)
        assert dropped.reason is DropReason.NOT_ENCRYPTED
        assert node.swim.queued == waiting
        assert ring.keys == (b"o" * 16,)
        effects = hear(node, asked, sealed=True)
        sent = [effect for effect in effects if isinstance(effect, SendPacket)]
        assert len(sent) == 4  # the acknowledgement and the answer, each straight and by "b"
        assert all(effect.secret for effect in sent)
        # One that sends plain would tell everybody the key that the query carries.
        assert node.swim.queued == waiting + (mode == "speak")

    @pytest.mark.parametrize("mode", ["hear", "speak"])
    def test_t5_a_stranger_cannot_have_it_sealed_on_its_way(self, mode: str) -> None:
        node = make(keyring(mode))
        inner = encode_serf(query(keys.LIST))
        relayed = Relayed(bytes((10, 0, 0, 2)), 7946, "b", inner)
        for effect in hear(node, relayed):
            assert isinstance(effect, SendPacket if mode == "hear" else Dropped)
            assert not isinstance(effect, SendPacket) or not effect.secret
        (passed,) = hear(node, relayed, sealed=True)
        assert isinstance(passed, SendPacket)
        assert passed.secret

    def test_t5_an_answer_about_keys_counts_only_sealed(self) -> None:
        node = make(keyring("speak"))
        asked, _ = node.send_query(QueryRequest(keys.LIST), 0.0)
        said = keys.encode_key_answer(keys.KeyAnswer(ok=True, keys=("evil",)), 900)
        answer = QueryResponse(asked.time, asked.identity, "b", 0, said)
        (dropped,) = hear(node, answer)
        assert isinstance(dropped, Dropped)
        assert hear(node, answer, sealed=True) == [
            QueryAnswered(asked.identity, "b", said, ack=False)
        ]

    def test_t5_who_sends_plain_asks_nobody_about_keys(self) -> None:
        node = make(keyring("hear"))
        with pytest.raises(ValueError, match="gossip-encryption speak"):
            node.send_query(QueryRequest(keys.INSTALL, keys.encode_key_request(b"n" * 16)), 0.0)
        node.send_query(QueryRequest("uptime"), 0.0)

    def test_more_keys_than_an_answer_holds(self) -> None:
        ring = Keyring([bytes((index,)) * 32 for index in range(60)])
        listed = self.ask(make(ring), keys.LIST, b"", 1)
        assert 10 < len(listed.keys) < 60
        assert listed.message.startswith(f"the first {len(listed.keys)} of 60 keys")

    def test_without_encryption_it_says_so(self) -> None:
        answer = self.ask(make(), keys.LIST, b"", 1)
        assert not answer.ok
        assert "not enabled" in answer.message

    def test_a_ping_is_only_acknowledged(self) -> None:
        node = make()
        effects = hear(node, query(keys.PING, flags=1))
        assert responses(effects) == [QueryResponse(5, 77, "me", 1, b"")]
        assert not any(isinstance(effect, QueryHeard) for effect in effects)


class TestCoordinates:
    def test_round_trip_and_rogues(self) -> None:
        place = Coordinate((0.1,) * 8, 0.5, 0.01, 0.002)
        assert decode_coordinate(encode_coordinate(place)) == place
        rogues = [
            b"",
            b"\x02\x80",
            b"\x01\x80",
            encode_coordinate(Coordinate((0.0,) * 7)),
            encode_coordinate(Coordinate((float("nan"),) * 8)),
            encode_coordinate(Coordinate(height=float("inf"))),
        ]
        for rogue in rogues:
            with pytest.raises(RefusedError):
                decode_coordinate(rogue)
        client = Coordinates(random.Random(1))
        client.observe("b", rogues[-1], 0.01)
        client.observe("b", encode_coordinate(place), 99.0)
        assert client.peers == {}

    def test_two_sites_are_told_apart(self) -> None:
        rng = random.Random(1)
        clients = [Coordinates(random.Random(index)) for index in range(10)]

        def truth(one: int, other: int) -> float:
            return 0.002 if (one < 5) == (other < 5) else 0.080

        for _ in range(3000):
            one, other = rng.sample(range(10), 2)
            seconds = truth(one, other) * rng.uniform(0.95, 1.1)
            payload = encode_coordinate(clients[other].own)
            clients[one].observe(str(other), payload, seconds)
        errors = [
            abs(clients[one].own.distance(clients[other].own) - truth(one, other))
            for one in range(10)
            for other in range(10)
            if one != other
        ]
        assert sorted(errors)[len(errors) // 2] < 0.004
        assert max(errors) < 0.03

    def test_an_ack_carries_it_now_and_then(self) -> None:
        node = make()
        payloads = [node._ack_payload() for _ in range(20)]
        assert all(payloads[:8])
        assert sum(map(bool, payloads[8:])) == 3


def test_unused_broadcast_key_is_not_waiting() -> None:
    node = make()
    node.handle(Broadcast("mine", b"x"), 0.0)
    assert node.swim.waits("mine")
    assert not node.swim.waits("other")
