"""The session of an agent with a controller: whom to dial, when to speak, what has arrived.

Both sides number their messages from 1 and acknowledge cumulatively. Nothing is sent twice by the
session itself: a new session begins with a Hello that says everything anew, and whoever waits for
a confirmation hears of the end of the session (docs/architecture.md §5).
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from edge_agent.assignment import (
    Desired,
    FromAgent,
    FromController,
    Heartbeat,
    Hello,
    Progress,
    Refused,
    UploadsGranted,
    Welcome,
)
from services.runtime.backoff import Backoff
from shoal.names import AttemptRef


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """How an agent keeps its session; times in seconds."""

    flush_messages: int = 64
    flush_seconds: float = 0.001
    in_flight_batches: int = 64
    """How many unacknowledged batches there may be; what comes meanwhile travels in the next one."""
    open_seconds: float = 5.0
    """How long dialling and the controller's welcome may take, each."""
    heartbeat_seconds: float = 1.0
    """Until the controller says something else."""
    backoff: Backoff = Backoff(0.05, 2.0)  # noqa: RUF009 - frozen and slotted, as any value


class SessionState(enum.StrEnum):
    """Where the session stands."""

    IDLE = "idle"
    """Nobody to dial, or not yet again."""
    DIALLING = "dialling"
    OPENING = "opening"
    """Hello is sent, and Welcome is awaited."""
    OPEN = "open"


# ---- events


@dataclass(frozen=True, slots=True)
class ControllersKnown:
    """These controllers may be dialled, `host:port`, best first."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LinkOpened:
    """A stream was opened; `hello` says who the agent is and what it knows."""

    link: int
    hello: Hello


@dataclass(frozen=True, slots=True)
class LinkClosed:
    """The stream has ended, or could not be had."""

    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    """A batch of the controller has arrived."""

    link: int
    sequence: int
    acknowledged: int
    messages: tuple[FromController, ...]


@dataclass(frozen=True, slots=True)
class Say:
    """Something that the controller should hear, if there is a session."""

    message: FromAgent


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was delivered under this number is durable."""

    delivery: int


SessionEvent = ControllersKnown | LinkOpened | LinkClosed | Received | Say | Recorded


# ---- effects


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a stream to a controller; its events carry the number of the link."""

    link: int
    address: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the stream; no outcome is awaited."""

    reason: str


@dataclass(frozen=True, slots=True)
class Write:
    """Send a batch."""

    sequence: int
    acknowledged: int
    messages: tuple[FromAgent, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """The session stands."""

    welcome: Welcome


@dataclass(frozen=True, slots=True)
class Closed:
    """The session is over: what was not confirmed may or may not have arrived."""

    reason: str


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The controller has committed these messages."""

    messages: tuple[FromAgent, ...]


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """The controller heard the agent, so the node is not replaced before `until` (on our clock).

    It is said only once the agent knows all that is wanted of it: before, an attempt of an earlier
    session may have been replaced already.
    """

    until: float


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand over what the controller said; `Recorded` with the number answers a `Desired`."""

    message: Desired | UploadsGranted | Refused
    delivery: int


SessionEffect = Dial | HangUp | Write | Opened | Closed | Confirmed | LeaseRenewed | Deliver


@dataclass(slots=True)
class SessionCounts:
    """What a controller did wrong, and how often the session began anew."""

    opened: int = 0
    broken_rules: int = 0


@dataclass(slots=True)
class Session:
    """Keeps one session; `chance` draws from [0, 1) for the jitter of its waits."""

    config: SessionConfig
    chance: Callable[[], float]
    counts: SessionCounts = field(default_factory=SessionCounts)
    state: SessionState = SessionState.IDLE
    _addresses: tuple[str, ...] = ()
    _next_address: int = 0
    _failures: int = 0
    _link: int = 0
    _dial_at: float | None = None
    _open_until: float | None = None
    _heartbeat_seconds: float = 0.0
    _spoken_at: float = 0.0
    _sequence: int = 0
    _heard: int = 0
    _acknowledged: int = 0
    _queue: deque[FromAgent] = field(default_factory=deque[FromAgent])
    _progress: dict[AttemptRef, Progress] = field(default_factory=dict[AttemptRef, Progress])
    _queued_at: float | None = None
    _in_flight: deque[tuple[int, float, tuple[FromAgent, ...]]] = field(
        default_factory=deque[tuple[int, float, tuple[FromAgent, ...]]]
    )
    _lease_seconds: float = 0.0
    _snapshot: int | None = None
    _knows_all: bool = False
    _deliveries: int = 0
    _unrecorded: dict[int, int] = field(default_factory=dict[int, int])

    def handle(self, event: SessionEvent, now: float) -> Sequence[SessionEffect]:
        """Take one event and return what is to be done, in order."""
        match event:
            case ControllersKnown(addresses):
                return self._controllers(addresses, now)
            case LinkOpened() | LinkClosed() | Received() if event.link != self._link:
                return []  # from a stream that was hung up
            case LinkOpened(hello=hello):
                return self._link_opened(hello, now)
            case LinkClosed(reason=reason):
                return self._closed(reason, now)
            case Received():
                return self._received(event, now)
            case Say(message):
                return self._say(message, now)
            case Recorded(delivery):
                if self._unrecorded.pop(delivery, None) is None:
                    return []  # it came in an earlier session
                self._knows_all = self._knows_all or delivery == self._snapshot
                self._queued_at = now if self._queued_at is None else self._queued_at
                return self._flush(now)
            case _:
                assert_never(event)

    def tick(self, now: float) -> Sequence[SessionEffect]:
        """Dial, give up dialling, flush, or show a sign of life."""
        match self.state:
            case SessionState.IDLE:
                return self._dial(now) if self._due(self._dial_at, now) else []
            case SessionState.DIALLING | SessionState.OPENING:
                if not self._due(self._open_until, now):
                    return []
                what = "a connection" if self.state is SessionState.DIALLING else "a welcome"
                return self._break(f"no {what} within {self.config.open_seconds:g} s", now)
            case SessionState.OPEN:
                effects: list[SessionEffect] = []
                if self._due(self._flush_at(), now):
                    effects += self._flush(now)
                if now >= self._spoken_at + self._heartbeat_seconds:
                    if len(self._in_flight) >= 2 * self.config.in_flight_batches:
                        return self._break("the controller acknowledges nothing any more", now)
                    self._spoken_at = now
                    self._queue.append(Heartbeat())
                    effects += self._write(now)
                return effects
            case _:
                assert_never(self.state)

    def deadline(self) -> float | None:
        """When `tick` is next wanted."""
        match self.state:
            case SessionState.IDLE:
                return self._dial_at
            case SessionState.DIALLING | SessionState.OPENING:
                return self._open_until
            case SessionState.OPEN:
                heartbeat_at = self._spoken_at + self._heartbeat_seconds
                flush_at = self._flush_at()
                return heartbeat_at if flush_at is None else min(heartbeat_at, flush_at)
            case _:
                assert_never(self.state)

    # ---- the link

    def _controllers(self, addresses: tuple[str, ...], now: float) -> list[SessionEffect]:
        if addresses == self._addresses:
            return []
        self._addresses = addresses
        self._next_address = 0
        if self.state is SessionState.IDLE and addresses:
            # News is reason enough to try at once.
            return self._dial(now)
        return []

    def _dial(self, now: float) -> list[SessionEffect]:
        self._dial_at = None
        if not self._addresses:
            return []
        address = self._addresses[self._next_address % len(self._addresses)]
        self._next_address += 1
        self.state = SessionState.DIALLING
        self._open_until = now + self.config.open_seconds
        self._link += 1
        return [Dial(self._link, address)]

    def _link_opened(self, hello: Hello, now: float) -> list[SessionEffect]:
        if self.state is not SessionState.DIALLING:
            return []
        self.state = SessionState.OPENING
        self._open_until = now + self.config.open_seconds
        self._queue.append(hello)
        return self._write(now)

    def _break(self, reason: str, now: float) -> list[SessionEffect]:
        return [HangUp(reason), *self._closed(reason, now)]

    def _closed(self, reason: str, now: float) -> list[SessionEffect]:
        if self.state is SessionState.IDLE:
            return []
        was_open = self.state is SessionState.OPEN
        self.state = SessionState.IDLE
        if was_open:
            self._failures = 0
            self._next_address -= 1  # the one that served is asked first
        self._failures += 1
        self._dial_at = now + self.config.backoff.delay_seconds(self._failures, self.chance())
        self._open_until = self._queued_at = None
        self._sequence = self._heard = self._acknowledged = 0
        self._queue.clear()
        self._progress.clear()
        self._in_flight.clear()
        self._unrecorded.clear()
        self._snapshot = None
        self._knows_all = False
        return [Closed(reason)] if was_open else []

    # ---- hearing

    def _received(self, batch: Received, now: float) -> list[SessionEffect]:
        if self.state not in {SessionState.OPENING, SessionState.OPEN}:
            return []
        if batch.sequence != self._heard + 1:
            self.counts.broken_rules += 1
            return self._break(f"message {batch.sequence} came instead of {self._heard + 1}", now)
        if not self._acknowledged <= batch.acknowledged <= self._sequence:
            self.counts.broken_rules += 1
            return self._break(
                f"{batch.acknowledged} was acknowledged, but {self._acknowledged} was before and "
                f"{self._sequence} is the last that was sent",
                now,
            )
        self._heard = batch.sequence
        self._acknowledged = batch.acknowledged
        effects: list[SessionEffect] = []
        for message in batch.messages:
            effects += self._take(message, now)
        confirmed: list[FromAgent] = []
        heard_at: float | None = None
        while self._in_flight and self._in_flight[0][0] <= batch.acknowledged:
            _, heard_at, messages = self._in_flight.popleft()
            confirmed += messages
        if heard_at is not None and self._knows_all:
            # Counted from when it was sent: the controller counts from when it arrived.
            effects.append(LeaseRenewed(heard_at + self._lease_seconds))
        if confirmed:
            effects.append(Confirmed(tuple(confirmed)))
        if self.state is SessionState.OPENING:
            self.counts.broken_rules += 1
            return self._break("the controller spoke before its welcome", now)
        if any(not isinstance(message, Welcome) for message in batch.messages):
            # Acknowledged with the next batch, at the latest after the flush time.
            self._queued_at = now if self._queued_at is None else self._queued_at
        return effects + self._flush(now)

    def _take(self, message: FromController, now: float) -> list[SessionEffect]:
        match message:
            case Welcome():
                if self.state is not SessionState.OPENING:
                    self.counts.broken_rules += 1
                    return []
                self.state = SessionState.OPEN
                self.counts.opened += 1
                self._lease_seconds = message.lease_seconds
                self._open_until = None
                self._heartbeat_seconds = (
                    message.heartbeat_seconds
                    if message.heartbeat_seconds > 0
                    else self.config.heartbeat_seconds
                )
                self._spoken_at = now
                return [Opened(message)]
            case Desired() | UploadsGranted() | Refused():
                self._deliveries += 1
                if isinstance(message, Desired):
                    self._unrecorded[self._deliveries] = self._heard
                    if message.snapshot and self._snapshot is None:
                        self._snapshot = self._deliveries
                return [Deliver(message, self._deliveries)]
            case _:
                assert_never(message)

    # ---- speaking

    def _say(self, message: FromAgent, now: float) -> list[SessionEffect]:
        if self.state not in {SessionState.OPENING, SessionState.OPEN}:
            return []  # the next Hello says it, or whoever wants it said says it again
        if isinstance(message, Progress):
            # Only the latest counters of an attempt are news.
            self._progress[message.ref] = message
        else:
            self._queue.append(message)
        self._queued_at = now if self._queued_at is None else self._queued_at
        return self._flush(now)

    def _flush(self, now: float) -> list[SessionEffect]:
        """Write what waits, if it is enough or has waited long enough."""
        if self.state is not SessionState.OPEN:
            return []
        effects: list[SessionEffect] = []
        while len(self._queue) >= self.config.flush_messages and self._has_room():
            effects += self._write(now)
        if self._due(self._flush_at(), now):
            effects += self._write(now)
        return effects

    def _write(self, now: float) -> list[SessionEffect]:
        room = self.config.flush_messages
        messages = [self._queue.popleft() for _ in range(min(room, len(self._queue)))]
        while self._progress and len(messages) < room:
            messages.append(self._progress.pop(next(iter(self._progress))))
        self._sequence += 1
        self._spoken_at = now
        self._queued_at = now if self._queue or self._progress else None
        batch = tuple(messages)
        self._in_flight.append((self._sequence, now, batch))
        recorded = min(self._unrecorded.values(), default=self._heard + 1) - 1
        return [Write(self._sequence, recorded, batch)]

    def _flush_at(self) -> float | None:
        if self._queued_at is None or not self._has_room():
            return None
        return self._queued_at + self.config.flush_seconds

    def _has_room(self) -> bool:
        return len(self._in_flight) < self.config.in_flight_batches

    @staticmethod
    def _due(at: float | None, now: float) -> bool:
        return at is not None and at <= now
