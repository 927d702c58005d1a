"""What the keeper machine asks its shell to do."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.keeper.record import ProcessRecord


@dataclass(frozen=True, slots=True)
class SignalGroup:
    """Send a signal to the whole process group."""

    attempt: str
    pid: int
    signal: int


@dataclass(frozen=True, slots=True)
class RenewGuard:
    """Tell the guard of an attempt at which moment it kills it."""

    attempt: str
    until: float


@dataclass(frozen=True, slots=True)
class FinishRelays:
    """Tell the relays of an attempt that its program has ended: they pass on what is left, and end."""

    attempt: str


@dataclass(frozen=True, slots=True)
class KillRelays:
    """End the relays of an attempt at once."""

    attempt: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell every watcher that a process has ended."""

    record: ProcessRecord


@dataclass(frozen=True, slots=True)
class Release:
    """Close the descriptors that are held for an attempt."""

    attempt: str


KeeperEffect = SignalGroup | RenewGuard | FinishRelays | KillRelays | Announce | Release
