"""Which events leave when: a pure machine over the rows of an outbox and one link to a broker.

A row is let go of only after the broker has acknowledged it, so each event arrives at least once.
Rows of one subject leave one after the other, so a subject's events arrive in order. What was sent
and not acknowledged is sent again, with the same id, on the next link.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import assert_never

from services.events.entry import Entry
from services.runtime.backoff import Backoff


@dataclass(frozen=True, slots=True)
class Grown:
    """There may be rows that were not there at the last reading."""


@dataclass(frozen=True, slots=True)
class RowsRead:
    """The answer to `Read`, in the order of the sequences; `through` is how far it has looked."""

    entries: tuple[Entry, ...]
    through: int
    more: bool


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The broker has accepted the connection."""


@dataclass(frozen=True, slots=True)
class LinkLost:
    """There is no connection, or no longer; `chance` is drawn from [0, 1) for the backoff."""

    reason: str
    chance: float


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The broker has acknowledged everything that carries this row."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Marked:
    """The rows of the last `Mark` are durably let go of."""


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The last `Read` or `Mark` did not happen."""

    reading: bool


OutboxEvent = Grown | RowsRead | LinkUp | LinkLost | Acknowledged | Marked | StoreFailed


@dataclass(frozen=True, slots=True)
class Connect:
    """Dial the broker; answered by `LinkUp` or `LinkLost`."""


@dataclass(frozen=True, slots=True)
class Read:
    """Read rows with a sequence above `after`; answered by `RowsRead` or `StoreFailed`."""

    after: int
    limit: int


@dataclass(frozen=True, slots=True)
class Publish:
    """Send one row over the link that is up."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Mark:
    """Let go of rows; answered by `Marked` or `StoreFailed`."""

    sequences: tuple[int, ...]


OutboxEffect = Connect | Read | Publish | Mark


class Link(Enum):
    """State of the connection to the broker."""

    DOWN = "down"
    CONNECTING = "connecting"
    UP = "up"


class _Stage(Enum):
    WAITING = "waiting"
    SENT = "sent"
    ACKNOWLEDGED = "acknowledged"


@dataclass(slots=True)
class _Held:
    entry: Entry
    stage: _Stage = _Stage.WAITING


@dataclass(frozen=True, slots=True)
class OutboxConfig:
    """`window`: how many rows may be on their way; times in seconds."""

    window: int = 100
    store_retry_seconds: float = 1.0
    backoff: Backoff = field(
        default_factory=lambda: Backoff(initial_seconds=0.2, maximum_seconds=10.0, jitter=0.5)
    )


class Outbox:
    """The machine; starts with a link that is down and due to be dialled.

    Args:
        config: window and times.
        now: seconds on the clock of `handle` and `tick`.
    """

    def __init__(self, config: OutboxConfig, now: float) -> None:
        self._config = config
        self._held: dict[int, _Held] = {}
        self._through = 0
        self._more = True
        self._reading = False
        self._marking: tuple[int, ...] = ()
        self._link = Link.DOWN
        self._connect_at = now
        self._failures = 0
        self._store_retry_at: float | None = None
        self.reason = ""

    @property
    def link(self) -> Link:
        """State of the connection."""
        return self._link

    @property
    def held(self) -> int:
        """How many rows are in memory."""
        return len(self._held)

    def handle(self, event: OutboxEvent, now: float) -> Sequence[OutboxEffect]:
        """Take one event and return what is to be done about it, in order."""
        match event:
            case Grown():
                self._more = True
            case RowsRead(entries, through, more):
                self._reading = False
                self._through = max(self._through, through)
                self._more = self._more or more
                for entry in entries:
                    self._held.setdefault(entry.sequence, _Held(entry))
            case LinkUp():
                self._link = Link.UP
                self._failures = 0
                self.reason = ""
            case LinkLost(reason, chance):
                self._lose(reason, chance, now)
            case Acknowledged(sequence):
                # A late one of an earlier link, for a row that is gone, is as good as none.
                if (held := self._held.get(sequence)) is not None:
                    held.stage = _Stage.ACKNOWLEDGED
            case Marked():
                for sequence in self._marking:
                    self._held.pop(sequence, None)
                self._marking = ()
            case StoreFailed(reading):
                if reading:
                    self._reading = False
                    self._more = True
                else:
                    self._marking = ()
                self._store_retry_at = now + self._config.store_retry_seconds
            case _:
                assert_never(event)
        return self._next()

    def tick(self, now: float) -> Sequence[OutboxEffect]:
        """Dial, or turn to the store again, if that fell due."""
        effects: list[OutboxEffect] = []
        if self._link is Link.DOWN and self._connect_at <= now:
            self._link = Link.CONNECTING
            effects.append(Connect())
        if self._store_retry_at is not None and self._store_retry_at <= now:
            self._store_retry_at = None
        effects.extend(self._next())
        return effects

    def deadline(self) -> float | None:
        """Return when `tick` is next wanted."""
        times = [self._connect_at] if self._link is Link.DOWN else []
        if self._store_retry_at is not None:
            times.append(self._store_retry_at)
        return min(times, default=None)

    def _lose(self, reason: str, chance: float, now: float) -> None:
        self._link = Link.DOWN
        self._failures += 1
        self._connect_at = now + self._config.backoff.delay_seconds(self._failures, chance)
        self.reason = reason
        for held in self._held.values():
            if held.stage is _Stage.SENT:
                held.stage = _Stage.WAITING

    def _next(self) -> list[OutboxEffect]:
        """Return what can be done now: let go, send, read; in this order."""
        effects: list[OutboxEffect] = []
        store_rests = self._store_retry_at is not None
        if not self._marking and not store_rests:
            self._marking = tuple(
                sequence
                for sequence, held in self._held.items()
                if held.stage is _Stage.ACKNOWLEDGED
            )
            if self._marking:
                effects.append(Mark(self._marking))
        if self._link is not Link.UP:
            return effects
        busy: set[tuple[str, str]] = set()
        for held in self._held.values():
            subject = (held.entry.namespace, held.entry.subject)
            if held.stage is _Stage.WAITING and subject not in busy:
                held.stage = _Stage.SENT
                effects.append(Publish(held.entry))
            if held.stage is not _Stage.ACKNOWLEDGED:
                busy.add(subject)
        room = self._config.window - len(self._held)
        if self._more and not self._reading and not store_rests and room > 0:
            self._reading = True
            self._more = False  # whatever is added from now on says so by `Grown`
            effects.append(Read(self._through, room))
        return effects
