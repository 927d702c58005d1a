"""What the membership machine asks its shell to do."""

from __future__ import annotations

from dataclasses import dataclass

from services.membership.member import Member, MemberChange
from services.membership.message import Address, PacketMessage
from services.membership.refusal import DropReason


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
    """Exchange full states with a member; its records come back as `RecordsReceived`."""

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

    reason: DropReason
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
