"""What the outbox asks its shell to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from services.events.entry import OutboxEntry


def no_reasons() -> Mapping[int, str]:
    """Nothing is set aside."""
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Connect:
    """Dial the broker; answered by `LinkUp` or `LinkLost`."""


@dataclass(frozen=True, slots=True)
class ReadRows:
    """ReadRows rows with a sequence above `after`; answered by `RowsRead` or `StoreFailed`."""

    after: int
    limit: int


@dataclass(frozen=True, slots=True)
class Publish:
    """Send one row over the link that is up; `losses` links broke as it was on its way alone."""

    entry: OutboxEntry
    losses: int = 0


@dataclass(frozen=True, slots=True)
class MarkRows:
    """Let go of rows, of some because they cannot leave; answered by `RowsMarked` or `StoreFailed`.

    `aside` has the reasons of these by their sequences.
    """

    sequences: tuple[int, ...]
    aside: Mapping[int, str] = field(default_factory=no_reasons)


OutboxEffect = Connect | ReadRows | Publish | MarkRows
