"""Serf's layer as a machine around the membership machine.

Source: the behaviour of Serf's agents as noted in `docs/membership.md`: intents with Lamport
times say whether a member that fell silent had left, user events reach everybody once, and a
push/pull exchange carries both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from services.membership.event import (
    Broadcast,
    Changed,
    DeclareLeft,
    Dropped,
    Effect,
    Event,
    UserReceived,
)
from services.membership.member import ChangeKind, MemberChange
from services.membership.message import MemberState
from services.membership.refusal import Reason, RefusedError
from services.membership.serf.effect import EventHeard, SerfEffect
from services.membership.serf.events import EventLog
from services.membership.serf.intents import IntentBook
from services.membership.serf.lamport import LamportClock
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
)

if TYPE_CHECKING:
    from services.membership.swim import Swim

EVENT_BYTES_MAX: Final = 512
"""Most bytes of a user event's name and payload together."""


class SerfNode:
    """One member that Serf's agents take for one of their own.

    Args:
        swim: The membership machine; from here on it is driven through this one.
    """

    __slots__ = ("_clock", "_event_clock", "_events", "_intents", "_query_clock", "swim")

    def __init__(self, swim: Swim) -> None:
        self.swim = swim
        self._clock = LamportClock()
        self._event_clock = LamportClock()
        self._query_clock = LamportClock()
        self._intents = IntentBook()
        self._events = EventLog()
        self._intents.known(swim.me.name)

    # ---- machine --------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When `tick` is next wanted."""
        return self.swim.deadline()

    def handle(self, event: Event, now: float) -> list[SerfEffect]:
        """Take one event."""
        return self._absorb(self.swim.handle(event, now), now)

    def tick(self, now: float) -> list[SerfEffect]:
        """Do what fell due."""
        return self._absorb(self.swim.tick(now), now)

    # ---- what the shell asks --------------------------------------------------------------------

    def announce_join(self, now: float) -> list[SerfEffect]:
        """Tell everybody that this member joined."""
        intent = JoinIntent(self._clock.increment(), self.swim.me.name)
        self._intents.note(intent)
        return self._broadcast(intent, now)

    def announce_leave(self, now: float) -> tuple[str, list[SerfEffect]]:
        """Tell everybody that this member is about to leave; first its broadcast's key."""
        intent = LeaveIntent(self._clock.increment(), self.swim.me.name)
        self._intents.note(intent)
        return _key(intent), self._broadcast(intent, now)

    def force_leave(self, name: str, now: float, *, prune: bool = False) -> list[SerfEffect]:
        """Declare a failed member gone, on an operator's word."""
        intent = LeaveIntent(self._clock.increment(), name, prune)
        out: list[SerfEffect] = []
        if self._leave(intent, now, out):
            out.extend(self._broadcast(intent, now))
        return out

    def send_event(
        self, name: str, payload: bytes, now: float, *, coalesce: bool = False
    ) -> list[SerfEffect]:
        """Send a user event to everybody, this member included.

        Raises:
            ValueError: Name and payload exceed 512 bytes together.
        """
        if len(name.encode()) + len(payload) > EVENT_BYTES_MAX:
            raise ValueError(
                f"event {name!r} has {len(name.encode()) + len(payload)} bytes with its name; "
                f"use at most {EVENT_BYTES_MAX}"
            )
        event = UserEvent(self._event_clock.time, name, payload, coalesce)
        self._event_clock.increment()
        self._events.note(event, self._event_clock.time)
        return [EventHeard(event), *self._broadcast(event, now)]

    def user_state(self) -> bytes:
        """Serf's part of a push/pull exchange."""
        gone = (*self.swim.belief.roster.unreachable(), *self.swim.belief.lost)
        left = tuple(member.name for member in gone if member.state is MemberState.LEFT)
        return encode_user_state(
            UserState(
                self._clock.time,
                self._intents.times,
                left,
                self._event_clock.time,
                self._events.recent,
                self._query_clock.time,
            )
        )

    def merge_user_state(
        self, data: bytes, now: float, *, ignore_events: bool = False
    ) -> list[SerfEffect]:
        """Take a remote's part of a push/pull exchange."""
        out: list[SerfEffect] = []
        try:
            state = decode_user_state(data)
        except RefusedError as error:
            return [Dropped(error.reason, error.detail)]
        if state is None:
            return out
        if state.time:
            self._clock.witness(state.time - 1)
        if state.event_time:
            self._event_clock.witness(state.event_time - 1)
        if state.query_time:
            self._query_clock.witness(state.query_time - 1)
        left = set(state.left)
        for name in left:
            # Later than its status time, so that it counts over the join that set that.
            intent = LeaveIntent(state.status_times.get(name, 0) + 1, name)
            self._leave(intent, now, out)
        for name, time in state.status_times.items():
            if name not in left:
                self._intents.note(JoinIntent(time, name))
        if ignore_events:
            self._events.oldest = max(self._events.oldest, state.event_time)
        for event in state.events:
            self._event(event, out)
        return out

    # ---- inside ---------------------------------------------------------------------------------

    def _absorb(self, effects: Sequence[Effect], now: float) -> list[SerfEffect]:
        out: list[SerfEffect] = []
        for effect in effects:
            if isinstance(effect, UserReceived):
                self._received(effect.payload, now, out)
            elif isinstance(effect, Changed):
                out.append(effect)
                self._changed(effect.change, now, out)
            else:
                out.append(effect)
        return out

    def _changed(self, change: MemberChange, now: float, out: list[SerfEffect]) -> None:
        name = change.member.name
        if change.kind is ChangeKind.JOINED:
            self._intents.known(name)
        elif change.kind is ChangeKind.REAPED:
            self._intents.forget(name)
        elif change.kind is ChangeKind.DIED and name in self._intents.leaving:
            # It had said that it would go; only its last word was lost.
            out.extend(self.handle(DeclareLeft(name), now))

    def _received(self, payload: bytes, now: float, out: list[SerfEffect]) -> None:
        try:
            message = decode_serf(payload)
        except RefusedError as error:
            out.append(Dropped(error.reason, error.detail))
            return
        match message:
            case JoinIntent():
                self._clock.witness(message.time)
                if self._intents.note(message):
                    out.extend(self._broadcast(message, now))
            case LeaveIntent():
                self._clock.witness(message.time)
                if self._leave(message, now, out):
                    out.extend(self._broadcast(message, now))
            case UserEvent():
                if self._event(message, out):
                    out.extend(self._broadcast(message, now))
            case Query() | QueryResponse() | Relayed():
                pass
            case None:
                detail = f"Serf message type {payload[0]}"
                out.append(Dropped(Reason.UNKNOWN_TYPE, detail))

    def _leave(self, intent: LeaveIntent, now: float, out: list[SerfEffect]) -> bool:
        """Take a leave intent; True if it has to be passed on."""
        swim = self.swim
        name = intent.node
        if name == swim.me.name and not swim.belief.leaving:
            if intent.time > self._intents.times.get(name, 0):
                # Somebody says that we left: say that we are here, later than that.
                self._clock.witness(intent.time)
                out.extend(self.announce_join(now))
            return False
        if not self._intents.note(intent):
            return False
        member = swim.find(name)
        if member is not None and (member.state is MemberState.DEAD or intent.prune):
            out.extend(self.handle(DeclareLeft(name, intent.prune), now))
        return True

    def _event(self, event: UserEvent, out: list[SerfEffect]) -> bool:
        self._event_clock.witness(event.time)
        if not self._events.note(event, self._event_clock.time):
            return False
        out.append(EventHeard(event))
        return True

    def _broadcast(self, message: SerfMessage, now: float) -> list[SerfEffect]:
        return self.handle(Broadcast(_key(message), encode_serf(message)), now)


def _key(message: SerfMessage) -> str:
    """Under which a broadcast waits: one for each message, since none replaces another."""
    match message:
        case JoinIntent() | LeaveIntent():
            return f"{type(message).__name__}:{message.node}:{message.time}"
        case UserEvent():
            return f"event:{message.time}:{message.name}:{hash(message.payload)}"
        case Query():
            return f"query:{message.time}:{message.identity}"
        case QueryResponse() | Relayed():
            raise TypeError(f"{type(message).__name__} is sent to one member, never broadcast")
