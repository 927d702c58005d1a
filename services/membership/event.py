"""What the membership machine is told, and what it asks for in return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.membership.member import Member, MemberChange
from services.membership.message import Address, NodeState, PacketMessage
from services.membership.refusal import Reason

# ---- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received:
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
class Merge:
    """A remote's records, or a slice of them, from a push/pull exchange that was checked."""

    nodes: Sequence[NodeState]


@dataclass(frozen=True, slots=True)
class SetMeta:
    """Announce new meta."""

    meta: bytes


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Pass a user message on to everybody; a newer one under the same key replaces it."""

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
    Received
    | SendFailed
    | StreamAnswered
    | Merge
    | SetMeta
    | Broadcast
    | Leave
    | DeclareLeft
    | LoopLag
)

# ---- effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendPacket:
    """Send one datagram; with a CRC-32 if the receiver is known to read it.

    A `secret` one is sealed wherever there is a key, also where other traffic still goes plain.
    """

    address: Address
    messages: tuple[PacketMessage, ...]
    checksum: bool = False
    secret: bool = False


@dataclass(frozen=True, slots=True)
class DialPing:
    """Ping over a stream until `deadline`; a matching ack comes back as `StreamAnswered`."""

    address: Address
    node: str
    sequence: int
    deadline: float


@dataclass(frozen=True, slots=True)
class DialPushPull:
    """Exchange full states with a member; its records come back as `Merge`."""

    address: Address
    join: bool


@dataclass(frozen=True, slots=True)
class Changed:
    """A member's record changed in a way that watchers see."""

    change: MemberChange


@dataclass(frozen=True, slots=True)
class UserReceived:
    """A user message arrived for the layer above; `sealed` if one of our keys had sealed it."""

    payload: bytes
    sealed: bool = False


@dataclass(frozen=True, slots=True)
class RoundTripMeasured:
    """A direct probe was acknowledged after `seconds`; `payload` is what the ack carried."""

    member: Member
    seconds: float
    payload: bytes


@dataclass(frozen=True, slots=True)
class NameConflict:
    """Two addresses claim one name."""

    member: Member
    claimed: Address


@dataclass(frozen=True, slots=True)
class Dropped:
    """Input that was refused, to be counted under its reason."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Departed:
    """The goodbye has been sent as often as the cluster's size asks for."""


Effect = (
    SendPacket
    | DialPing
    | DialPushPull
    | Changed
    | UserReceived
    | RoundTripMeasured
    | NameConflict
    | Dropped
    | Departed
)
