"""The messages of memberlist's wire, as frozen values.

Field meanings follow the protocol; the wire names (`SeqNo`, `Incarnation`, ...) live in `codec`
only. Addresses are text (`"10.0.0.1"`, `"fd00::1"`), empty where the wire had none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from services.runtime.address import joined


class MessageType(IntEnum):
    """First byte of every message."""

    PING = 0
    INDIRECT_PING = 1
    ACK = 2
    SUSPECT = 3
    ALIVE = 4
    DEAD = 5
    PUSH_PULL = 6
    COMPOUND = 7
    USER = 8
    COMPRESS = 9
    ENCRYPT = 10
    NACK = 11
    HAS_CRC = 12
    ERROR = 13
    HAS_LABEL = 244


class SwimState(IntEnum):
    """What SWIM believes of a member; the numbers are the wire's."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


class Address(NamedTuple):
    """Where a member is reached, by UDP and TCP alike."""

    host: str
    port: int

    def __str__(self) -> str:
        """Render as `host:port`, with brackets around IPv6."""
        return joined(self.host, self.port)


class Versions(NamedTuple):
    """The six version bytes a member announces (`Vsn` on the wire)."""

    protocol_min: int = 1
    protocol_max: int = 5
    protocol: int = 2
    delegate_min: int = 0
    delegate_max: int = 0
    delegate: int = 0


MEMBERLIST_VERSIONS: Final = Versions()
"""What a plain memberlist member announces."""

SERF_VERSIONS: Final = Versions(delegate_min=2, delegate_max=5, delegate=4)
"""What a member announces that Serf's agents accept."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Direct probe: the receiver acknowledges if `node` is its own name or empty."""

    sequence: int
    node: str
    source_host: str = ""
    source_port: int = 0
    source_node: str = ""


@dataclass(frozen=True, slots=True)
class IndirectPing:
    """Asks the receiver to probe `node` at `host:port` and to pass the acknowledgement on."""

    sequence: int
    host: str
    port: int
    node: str
    nack: bool
    source_host: str = ""
    source_port: int = 0
    source_node: str = ""


@dataclass(frozen=True, slots=True)
class Ack:
    """Answer to a ping; `payload` is Serf's coordinate, or empty."""

    sequence: int
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Nack:
    """A relay's word that it is well, but had no answer from the target (Lifeguard)."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """`accuser` has had no answer from `node` at this incarnation."""

    incarnation: int
    node: str
    accuser: str


@dataclass(frozen=True, slots=True)
class Alive:
    """`node` is reachable at `host:port`; `versions` is None where the wire had none."""

    incarnation: int
    node: str
    host: str
    port: int
    meta: bytes = b""
    versions: Versions | None = None


@dataclass(frozen=True, slots=True)
class Dead:
    """`node` has failed, or left if it says so itself (`accuser == node`)."""

    incarnation: int
    node: str
    accuser: str


@dataclass(frozen=True, slots=True)
class User:
    """An opaque message of the layer above."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """A stream's refusal in words."""

    error: str


@dataclass(frozen=True, slots=True)
class PushNodeState:
    """One record of a push/pull exchange."""

    name: str
    host: str
    port: int
    meta: bytes
    incarnation: int
    state: SwimState
    versions: Versions | None = None


@dataclass(frozen=True, slots=True)
class PushPull:
    """A full state exchange over a stream; `user_state` belongs to the layer above."""

    nodes: tuple[PushNodeState, ...]
    user_state: bytes = b""
    join: bool = False


PacketMessage = Ping | IndirectPing | Ack | Nack | Suspect | Alive | Dead | User
"""What travels in datagrams."""

Rumour = Alive | Suspect | Dead
"""What is rebroadcast about a member; a newer one replaces an older one."""

StreamMessage = Ping | Ack | PushPull | User | ErrorReply
"""What travels in streams."""
