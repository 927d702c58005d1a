"""Queries of ours, which collect answers until their time is up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.membership.serf.message import Query

_OPEN_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """A query to be asked.

    Attributes:
        name: Of the query.
        payload: Of the query.
        nodes: Ask only these; empty for all.
        tags: Ask only members whose tags match these regular expressions.
        request_ack: Have each member acknowledge at once.
        relay_factor: Also have answers sent through that many other members.
        timeout_seconds: How long to collect; 0 for what gossip needs to reach all.
    """

    name: str
    payload: bytes = b""
    nodes: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    request_ack: bool = False
    relay_factor: int = 0
    timeout_seconds: float = 0.0


@dataclass(slots=True)
class OpenQuery:
    """A query of ours that still collects."""

    query: Query
    until: float
    acked: set[str] = field(default_factory=set[str])
    answered: set[str] = field(default_factory=set[str])


class OpenQueries:
    """Our own queries that still collect answers, a bounded number."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, int], OpenQuery] = {}

    def add(self, query: Query, until: float) -> None:
        """Start to collect.

        Raises:
            ValueError: 256 queries collect already.
        """
        if len(self._open) >= _OPEN_MAX:
            raise ValueError(f"{_OPEN_MAX} queries are open; wait for some to end")
        self._open[query.time, query.identity] = OpenQuery(query, until)

    def find(self, time: int, identity: int) -> OpenQuery | None:
        """The open query that an answer belongs to."""
        return self._open.get((time, identity))

    def deadline(self) -> float | None:
        """When the next one is over."""
        return min((opened.until for opened in self._open.values()), default=None)

    def expire(self, now: float) -> list[Query]:
        """End those whose time is up."""
        over = [key for key, opened in self._open.items() if opened.until <= now]
        return [self._open.pop(key).query for key in over]
