"""A member as gossip sees it, and what can happen to one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from services.membership.message import Address, PushNodeState, SwimState, Versions
from services.membership.tags import decode_tags

NO_VERSIONS = Versions(0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Member:
    """One member's record; replaced, never changed.

    Attributes:
        name: Unique in the cluster.
        address: IP address in text.
        port: UDP and TCP port.
        meta: Opaque bytes, at most 512; Serf's tags by convention.
        incarnation: Raised by the member itself to refute what is said of it.
        state: Alive, suspect, dead or left.
        state_since: When the state began, in seconds on the clock of the machine.
        versions: What the member speaks.
    """

    name: str
    address: str
    port: int
    meta: bytes
    incarnation: int
    state: SwimState
    state_since: float
    versions: Versions = NO_VERSIONS

    @property
    def endpoint(self) -> Address:
        """Where it is reached."""
        return Address(self.address, self.port)

    @property
    def tags(self) -> Mapping[str, str]:
        """Its meta read as Serf's tags."""
        return decode_tags(self.meta)

    @property
    def reachable(self) -> bool:
        """Whether it is alive, or suspect and so not yet given up."""
        return self.state is SwimState.ALIVE or self.state is SwimState.SUSPECT

    def turned(self, state: SwimState, incarnation: int, now: float) -> Member:
        """The same member in another state; `state_since` moves only if the state does."""
        since = self.state_since if state is self.state else now
        return replace(self, incarnation=incarnation, state=state, state_since=since)

    def as_node_state(self) -> PushNodeState:
        """The record as push/pull carries it."""
        name, address, port, meta = self.name, self.address, self.port, self.meta
        return PushNodeState(name, address, port, meta, self.incarnation, self.state, self.versions)


class ChangeKind(StrEnum):
    """What happened to a member."""

    JOINED = "joined"
    UPDATED = "updated"
    SUSPECTED = "suspected"
    RECOVERED = "recovered"
    DIED = "died"
    LEFT = "left"
    REAPED = "reaped"


@dataclass(frozen=True, slots=True)
class MemberChange:
    """One change of one member, numbered by `revision` from 1 within the process."""

    kind: ChangeKind
    member: Member
    revision: int = 0
