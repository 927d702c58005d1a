"""What can happen to the membership machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.membership.message import Address, PacketMessage, PushNodeState


@dataclass(frozen=True, slots=True)
class PacketReceived:
    """A datagram's messages arrived; `sealed` if one of our keys had sealed them."""

    source: Address
    messages: Sequence[PacketMessage]
    sealed: bool = False


@dataclass(frozen=True, slots=True)
class SendFailed:
    """The operating system refused a datagram to `address` (such as ENETUNREACH)."""

    address: Address


@dataclass(frozen=True, slots=True)
class StreamAnswered:
    """A ping to `node` over a stream was acknowledged."""

    sequence: int
    node: str


@dataclass(frozen=True, slots=True)
class RecordsReceived:
    """A remote's records, or a slice of them, from a push/pull exchange that was checked."""

    nodes: Sequence[PushNodeState]


@dataclass(frozen=True, slots=True)
class SetMeta:
    """Announce new meta."""

    meta: bytes


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Pass a user message on to all members; a newer one under the same key replaces it."""

    key: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Leave:
    """Say goodbye; `Departed` follows when it has been passed on."""


@dataclass(frozen=True, slots=True)
class DeclareLeft:
    """Turn a dead member into one that left, on an operator's word; optionally forget it."""

    name: str
    prune: bool = False


@dataclass(frozen=True, slots=True)
class LoopLag:
    """The process could not run for this long, as its shell measured."""

    seconds: float


Event = (
    PacketReceived
    | SendFailed
    | StreamAnswered
    | RecordsReceived
    | SetMeta
    | Broadcast
    | Leave
    | DeclareLeft
    | LoopLag
)
