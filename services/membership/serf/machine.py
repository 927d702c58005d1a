"""Serf's layer as a machine around the membership machine.

Source: the behaviour of Serf's agents as noted in `docs/membership.md`: intents with Lamport
times say whether a member that fell silent had left, user events reach each member once, and a
push/pull exchange carries both.

Keys travel sealed or not at all. A cluster that moves to encryption hears plain traffic for a while
(`hear`, `speak`), and any machine can send that; so where there are keys
- a query about keys is taken only if it reached us sealed: otherwise it is neither answered, nor
  obeyed, nor passed on, since passing it on would seal a stranger's words with our key;
- for the same reason nothing that came plain is relayed by a member that seals;
- a member that does not seal yet asks no member about keys and passes no such query on, for both may
  carry a key; its answers are sealed all the same;
- an answer about keys counts only if it came sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, assert_never

from services.membership import effects, events
from services.membership.fields import host_to_octets, octets_to_host
from services.membership.member import ChangeKind, MemberChange
from services.membership.message import Address, SwimState, User
from services.membership.refusal import DropReason, RefusedError
from services.membership.serf import keys
from services.membership.serf import message as wire
from services.membership.serf.coordinate import Coordinates, encode_coordinate
from services.membership.serf.effects import (
    EventHeard,
    KeyringChanged,
    QueryAnswered,
    QueryHeard,
    QueryOver,
    SerfEffect,
)
from services.membership.serf.filter import encode_filters, passes
from services.membership.serf.intents import IntentLog
from services.membership.serf.lamport import LamportClock
from services.membership.serf.queries import OpenQueries, QueryRequest
from services.membership.serf.recent_log import RecentLog

if TYPE_CHECKING:
    from random import Random

    from services.membership.keyring import Keyring
    from services.membership.machine import SwimMachine
    from services.membership.preset import Preset

QUERY_BYTES_MAX: Final = 1024
"""Most bytes of a query, and of an answer."""
_KEY_ANSWER_BYTES_MAX: Final = QUERY_BYTES_MAX - 256
"""Room for the list of keys; the name of the member, and what surrounds it, take the rest."""
_FLAG_ACK: Final = 1
_FLAG_NO_BROADCAST: Final = 2
_ACKS_EAGER: Final = 8
_ACKS_A_COORDINATE: Final = 4
EVENT_BYTES_MAX: Final = 512
"""Most bytes of a user event's name and payload together."""


class SerfMachine:
    """One member that Serf's agents take for one of their own.

    Args:
        swim: The membership machine; from here on it is driven through this one.
        keyring: The cluster's keys, which key queries change.
        preset: Timing, for how long queries wait.
        rng: The source of chance.
    """

    def __init__(self, swim: SwimMachine, keyring: Keyring, preset: Preset, rng: Random) -> None:
        self.swim = swim
        swim.carry(self._ack_payload)
        self._keyring = keyring
        self._preset = preset
        self._rng = rng
        self.coordinates = Coordinates(rng)
        self._acks = 0
        self._queries: RecentLog[None] = RecentLog()
        self._open = OpenQueries()
        self._clock = LamportClock()
        self._event_clock = LamportClock()
        self._query_clock = LamportClock()
        self._intents = IntentLog()
        self._events: RecentLog[wire.UserEvent] = RecentLog()
        self._intents.known(swim.me.name)

    # ---- machine --------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When `tick` is next wanted."""
        deadline = self.swim.deadline()
        over = self._open.deadline()
        if over is None or deadline is None:
            return deadline if over is None else over
        return min(deadline, over)

    def handle(self, event: events.Event, now: float) -> list[SerfEffect]:
        """Take one event."""
        return self._absorb(self.swim.handle(event, now), now)

    def tick(self, now: float) -> list[SerfEffect]:
        """Do what fell due."""
        out = self._absorb(self.swim.tick(now), now)
        out.extend(QueryOver(query.identity) for query in self._open.expire(now))
        return out

    # ---- what the shell asks --------------------------------------------------------------------

    def announce_join(self, now: float) -> list[SerfEffect]:
        """Broadcast that this member joined."""
        intent = wire.JoinIntent(self._clock.increment(), self.swim.me.name)
        self._intents.note(intent)
        return self._broadcast(intent, now)

    def announce_leave(self, now: float) -> tuple[str, list[SerfEffect]]:
        """Broadcast that this member is about to leave; return the broadcast's key first."""
        intent = wire.LeaveIntent(self._clock.increment(), self.swim.me.name)
        self._intents.note(intent)
        return _key(intent), self._broadcast(intent, now)

    def force_leave(self, name: str, now: float, *, prune: bool = False) -> list[SerfEffect]:
        """Declare a failed member gone, on an operator's word."""
        intent = wire.LeaveIntent(self._clock.increment(), name, prune)
        out: list[SerfEffect] = []
        if self._leave(intent, now, out):
            out.extend(self._broadcast(intent, now))
        return out

    def send_event(
        self, name: str, payload: bytes, now: float, *, coalesce: bool = False
    ) -> list[SerfEffect]:
        """Send a user event to all members, this one included.

        Raises:
            ValueError: Name and payload exceed 512 bytes together.
        """
        if len(name.encode()) + len(payload) > EVENT_BYTES_MAX:
            raise ValueError(
                f"event {name!r} has {len(name.encode()) + len(payload)} bytes with its name; "
                f"use at most {EVENT_BYTES_MAX}"
            )
        event = wire.UserEvent(self._event_clock.time, name, payload, coalesce)
        self._event_clock.increment()
        self._note_event(event)
        return [EventHeard(event), *self._broadcast(event, now)]

    def send_query(self, request: QueryRequest, now: float) -> tuple[wire.Query, list[SerfEffect]]:
        """Ask members; answers come as effects until `QueryOver`.

        Raises:
            ValueError: It exceeds 1024 bytes, too many queries are open, or it is about keys and
                this member, which has some, does not seal what it sends.
        """
        me = self.swim.me
        timeout = request.timeout_seconds or self._preset.query_timeout_seconds(
            len(self.swim.states.table)
        )
        query = wire.Query(
            self._query_clock.time,
            self._rng.randrange(1 << 32),
            host_to_octets(me.address),
            me.port,
            me.name,
            encode_filters(request.nodes, request.tags),
            _FLAG_ACK if request.request_ack else 0,
            request.relay_factor,
            timeout,
            request.name,
            request.payload,
        )
        if request.name in keys.KEY_QUERIES and self._keyring.keys and not self._keyring.seals:
            raise ValueError(
                "this member does not seal what it sends, so it asks no member about keys; "
                "let it speak sealed first (--gossip-encryption speak)"
            )
        size = len(wire.encode_serf(query))
        if size > QUERY_BYTES_MAX:
            raise ValueError(
                f"query {request.name!r} needs {size} bytes; use at most {QUERY_BYTES_MAX}"
            )
        self._open.add(query, now + timeout)
        self._query_clock.increment()
        out = self._broadcast(query, now)
        self._asked(query, now, out, sealed=True)
        return query, out

    def respond(self, query: wire.Query, payload: bytes) -> list[SerfEffect]:
        """Answer a query that was received.

        Raises:
            ValueError: The answer exceeds 1024 bytes.
        """
        me = self.swim.me
        response = wire.QueryResponse(query.time, query.identity, me.name, 0, payload)
        size = len(wire.encode_serf(response))
        if size > QUERY_BYTES_MAX:
            raise ValueError(
                f"answer to query {query.name!r} needs {size} bytes; use at most {QUERY_BYTES_MAX}"
            )
        return self._answer(query, response)

    def user_state(self) -> bytes:
        """Serf's part of a push/pull exchange."""
        gone = (*self.swim.states.table.unreachable(), *self.swim.states.departed)
        left = tuple(member.name for member in gone if member.state is SwimState.LEFT)
        return wire.encode_user_state(
            wire.UserState(
                self._clock.time,
                self._intents.times,
                left,
                self._event_clock.time,
                self._events.recent,
                self._query_clock.time,
            )
        )

    def merge_user_state(self, state: wire.UserState, now: float) -> list[SerfEffect]:
        """Take a remote's part of a push/pull exchange, or a slice of it."""
        out: list[SerfEffect] = []
        if state.time:
            self._clock.witness(state.time - 1)
        if state.event_time:
            self._event_clock.witness(state.event_time - 1)
        if state.query_time:
            self._query_clock.witness(state.query_time - 1)
        left = set(state.left)
        for name in left:
            # Later than its status time, so that it counts over the join that set that.
            intent = wire.LeaveIntent(state.status_times.get(name, 0) + 1, name)
            self._leave(intent, now, out)
        for name, time in state.status_times.items():
            if name not in left:
                self._intents.note(wire.JoinIntent(time, name))
        for event in state.events:
            self._event(event, out)
        return out

    # ---- inside ---------------------------------------------------------------------------------

    def _absorb(self, done: Sequence[effects.Effect], now: float) -> list[SerfEffect]:
        out: list[SerfEffect] = []
        for effect in done:
            if isinstance(effect, effects.UserReceived):
                self._received(effect, now, out)
                continue
            out.append(effect)
            if isinstance(effect, effects.Changed):
                self._changed(effect.change, now, out)
            elif isinstance(effect, effects.RoundTripMeasured):
                self.coordinates.observe(effect.member.name, effect.payload, effect.seconds)
        return out

    def _changed(self, change: MemberChange, now: float, out: list[SerfEffect]) -> None:
        name = change.member.name
        if change.kind is ChangeKind.JOINED:
            self._intents.known(name)
        elif change.kind is ChangeKind.REAPED:
            self._intents.forget(name)
            self.coordinates.forget(name)
        elif change.kind is ChangeKind.DIED and name in self._intents.leaving:
            # It had said that it would go; only its last word was lost.
            out.extend(self.handle(events.DeclareLeft(name), now))

    def _received(self, user: effects.UserReceived, now: float, out: list[SerfEffect]) -> None:
        try:
            message = wire.decode_serf(user.payload)
            if message is None:
                detail = f"Serf message type {user.payload[0]}"
                raise RefusedError(DropReason.UNKNOWN_TYPE, detail)
            self._take(message, now, out, sealed=user.sealed)
        except RefusedError as error:
            out.append(effects.Dropped(error.reason, error.detail))

    def _take(
        self, message: wire.SerfMessage, now: float, out: list[SerfEffect], *, sealed: bool
    ) -> None:
        match message:
            case wire.JoinIntent():
                self._clock.witness(message.time)
                if self._intents.note(message):
                    out.extend(self._broadcast(message, now))
            case wire.LeaveIntent():
                self._clock.witness(message.time)
                if self._leave(message, now, out):
                    out.extend(self._broadcast(message, now))
            case wire.UserEvent():
                if self._event(message, out):
                    out.extend(self._broadcast(message, now))
            case wire.Query():
                self._query_clock.witness(message.time)
                self._asked(message, now, out, sealed=sealed)
            case wire.QueryResponse():
                self._answered(message, out, sealed=sealed)
            case wire.Relayed():
                self._relay(message, out, sealed=sealed)
            case _:
                assert_never(message)

    def _leave(self, intent: wire.LeaveIntent, now: float, out: list[SerfEffect]) -> bool:
        """Take a leave intent; True if it has to be passed on."""
        swim = self.swim
        name = intent.node
        if name == swim.me.name and not swim.states.leaving:
            if intent.time > self._intents.times.get(name, 0):
                # Another member says that we left: say that we are here, later than that.
                self._clock.witness(intent.time)
                out.extend(self.announce_join(now))
            return False
        if not self._intents.note(intent):
            return False
        member = swim.find(name)
        if member is not None and (member.state is SwimState.DEAD or intent.prune):
            out.extend(self.handle(events.DeclareLeft(name, intent.prune), now))
        return True

    def _note_event(self, event: wire.UserEvent) -> bool:
        key = (event.name, event.payload)
        return self._events.note(event.time, key, event, self._event_clock.time)

    def _event(self, event: wire.UserEvent, out: list[SerfEffect]) -> bool:
        self._event_clock.witness(event.time)
        if not self._note_event(event):
            return False
        out.append(EventHeard(event))
        return True

    def _asked(self, query: wire.Query, now: float, out: list[SerfEffect], *, sealed: bool) -> None:
        """Take a query: pass it on, and answer it if it asks us."""
        about_keys = query.name in keys.KEY_QUERIES and bool(self._keyring.keys)
        if about_keys and not sealed:
            # Before it is noted: a plain copy must not take the place of the sealed one.
            detail = f"{query.name!r}, in the name of {query.source!r}, is obeyed sealed only"
            raise RefusedError(DropReason.NOT_ENCRYPTED, detail)
        if not self._queries.note(query.time, query.identity, None, self._query_clock.time):
            return
        me = self.swim.me
        kept = query.flags & _FLAG_NO_BROADCAST or (about_keys and not self._keyring.seals)
        if query.source != me.name and not kept:
            out.extend(self._broadcast(query, now))
        try:
            if not passes(query.filters, me.name, me.tags):
                return
        except RefusedError as error:
            out.append(effects.Dropped(error.reason, error.detail))
            return
        if query.flags & _FLAG_ACK:
            ack = wire.QueryResponse(query.time, query.identity, me.name, _FLAG_ACK, b"")
            out.extend(self._answer(query, ack))
        if not query.name.startswith(keys.PREFIX):
            out.append(QueryHeard(query, now + query.timeout_seconds))
            return
        answer = keys.answer_key_query(self._keyring, query.name, query.payload)
        if answer is not None:
            out.extend(self.respond(query, keys.encode_key_answer(answer, _KEY_ANSWER_BYTES_MAX)))
            if answer.ok and query.name != keys.LIST:
                out.append(KeyringChanged())

    def _answer(self, query: wire.Query, response: wire.QueryResponse) -> list[SerfEffect]:
        """Send a response straight to the member that asked, and through others if it wants that."""
        me = self.swim.me
        if query.source == me.name:
            out: list[SerfEffect] = []
            self._answered(response, out, sealed=True)
            return out
        payload = wire.encode_serf(response)
        host = octets_to_host(query.host)
        if not host or not query.port:
            return [
                effects.Dropped(
                    DropReason.MALFORMED, f"query {query.name!r} has no address to answer"
                )
            ]
        secret = query.name in keys.KEY_QUERIES
        sent: list[SerfEffect] = [
            effects.SendPacket(Address(host, query.port), (User(payload),), secret=secret)
        ]
        if query.relay_factor:
            relayed = wire.encode_serf(wire.Relayed(query.host, query.port, query.source, payload))
            helpers = self.swim.states.table.draw(
                self._rng, query.relay_factor, (me.name, query.source), 0.0
            )
            sent.extend(
                effects.SendPacket(helper.endpoint, (User(relayed),), secret=secret)
                for helper in helpers
            )
        return sent

    def _answered(
        self, response: wire.QueryResponse, out: list[SerfEffect], *, sealed: bool
    ) -> None:
        opened = self._open.find(response.time, response.identity)
        if opened is None:
            return
        if opened.query.name in keys.KEY_QUERIES and self._keyring.keys and not sealed:
            detail = f"answer to {opened.query.name!r}, in the name of {response.sender!r}"
            raise RefusedError(DropReason.NOT_ENCRYPTED, detail)
        ack = bool(response.flags & _FLAG_ACK)
        # Relayed answers come more than once.
        seen = opened.acked if ack else opened.answered
        if response.sender in seen:
            return
        seen.add(response.sender)
        out.append(QueryAnswered(response.identity, response.sender, response.payload, ack))

    def _relay(self, message: wire.Relayed, out: list[SerfEffect], *, sealed: bool) -> None:
        if self._keyring.seals and not sealed:
            detail = f"what is to be relayed to {message.name!r} would be sealed on its way"
            raise RefusedError(DropReason.NOT_ENCRYPTED, detail)
        host = octets_to_host(message.host)
        if host and message.port:
            answer = (User(message.message),)
            out.append(effects.SendPacket(Address(host, message.port), answer, secret=sealed))

    def _ack_payload(self) -> bytes:
        """Our coordinate, on every fourth acknowledgement.

        130 bytes on each would be most of what an idle member sends. The first few all carry it,
        so that newcomers find their place.
        """
        self._acks += 1
        if self._acks > _ACKS_EAGER and self._acks % _ACKS_A_COORDINATE:
            return b""
        return encode_coordinate(self.coordinates.own)

    def _broadcast(self, message: wire.SerfMessage, now: float) -> list[SerfEffect]:
        return self.handle(events.Broadcast(_key(message), wire.encode_serf(message)), now)


def _key(message: wire.SerfMessage) -> str:
    """Under which a broadcast waits: one for each message, since none replaces another."""
    match message:
        case wire.JoinIntent() | wire.LeaveIntent():
            return f"{type(message).__name__}:{message.node}:{message.time}"
        case wire.UserEvent():
            return f"event:{message.time}:{message.name}:{hash(message.payload)}"
        case wire.Query():
            return f"query:{message.time}:{message.identity}"
        case wire.QueryResponse() | wire.Relayed():
            raise TypeError(f"{type(message).__name__} is sent to one member, never broadcast")
