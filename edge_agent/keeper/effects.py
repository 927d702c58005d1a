"""What the keeper machine asks its shell to do."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.keeper.events import OfAttempt
from edge_agent.keeper.record import ProcessRecord


@dataclass(frozen=True, slots=True)
class SignalGroup(OfAttempt):
    """Send a signal to the whole process group."""

    pid: int
    signal: int


@dataclass(frozen=True, slots=True)
class RenewGuard(OfAttempt):
    """Tell the guard of an attempt at which moment it kills it."""

    until: float


@dataclass(frozen=True, slots=True)
class FinishRelays(OfAttempt):
    """Tell the relays of an attempt that its program has ended: they pass on what is left, and end."""


@dataclass(frozen=True, slots=True)
class KillRelays(OfAttempt):
    """End the relays of an attempt at once."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell every watcher that a process has ended."""

    record: ProcessRecord


@dataclass(frozen=True, slots=True)
class Release(OfAttempt):
    """Close the descriptors that are held for an attempt."""


KeeperEffect = SignalGroup | RenewGuard | FinishRelays | KillRelays | Announce | Release
