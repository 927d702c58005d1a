"""What Serf's layer asks for besides the effects of membership."""

from __future__ import annotations

from dataclasses import dataclass

from services.membership import effects as core
from services.membership.serf.message import Query, UserEvent


@dataclass(frozen=True, slots=True)
class EventHeard:
    """A user event reached this member, for the first time."""

    event: UserEvent


@dataclass(frozen=True, slots=True)
class QueryHeard:
    """A query asks this member; answer it with `SerfMachine.respond` until `until`."""

    query: Query
    until: float


@dataclass(frozen=True, slots=True)
class QueryAnswered:
    """A member answered a query of ours, or merely acknowledged it."""

    identity: int
    sender: str
    payload: bytes
    ack: bool


@dataclass(frozen=True, slots=True)
class QueryOver:
    """The time of a query of ours is up."""

    identity: int


@dataclass(frozen=True, slots=True)
class KeyringChanged:
    """Another member changed our keys, on an operator's word; keep them for the next start."""


SerfEffect = core.Effect | EventHeard | QueryHeard | QueryAnswered | QueryOver | KeyringChanged
