"""What can happen to the outbox."""

from dataclasses import dataclass

from services.events.entry import OutboxEntry


@dataclass(frozen=True, slots=True)
class Grown:
    """There may be rows that were not there at the last reading."""


@dataclass(frozen=True, slots=True)
class RowsRead:
    """The answer to `ReadRows`, in the order of the sequences; `through` is how far it has looked."""

    entries: tuple[OutboxEntry, ...]
    through: int
    more: bool


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The broker has accepted the connection."""


@dataclass(frozen=True, slots=True)
class LinkLost:
    """There is no connection, or no longer; `chance` is drawn from [0, 1) for the backoff.

    `denied` if the broker said that it is about what we may do, and so not about what was sent.
    """

    reason: str
    chance: float
    denied: bool = False


@dataclass(frozen=True, slots=True)
class PublishRefused:
    """A row was not taken: not now, or if `final` never; `chance` as for `LinkLost`."""

    sequence: int
    reason: str
    chance: float = 0.5
    final: bool = False


@dataclass(frozen=True, slots=True)
class PublishAcknowledged:
    """The broker has acknowledged everything that carries this row."""

    sequence: int


@dataclass(frozen=True, slots=True)
class RestsOver:
    """What subjects rest for may be over: all of them are tried now."""


@dataclass(frozen=True, slots=True)
class RowsMarked:
    """The rows of the last `MarkRows` are durably let go of."""


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The last `ReadRows` or `MarkRows` did not happen."""

    reading: bool


OutboxEvent = (
    Grown
    | RowsRead
    | LinkUp
    | LinkLost
    | PublishRefused
    | PublishAcknowledged
    | RestsOver
    | RowsMarked
    | StoreFailed
)
