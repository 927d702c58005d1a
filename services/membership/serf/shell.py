"""Serf's layer as a program uses it: events, queries, keys and distances."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from services.membership.change_watch import ChangeWatch
from services.membership.member import MemberChange
from services.membership.refusal import RefusedError
from services.membership.serf import keys
from services.membership.serf.coordinate import Coordinate
from services.membership.serf.effects import (
    EventHeard,
    KeyringChanged,
    QueryAnswered,
    QueryHeard,
    QueryOver,
    SerfEffect,
)
from services.membership.serf.machine import SerfMachine
from services.membership.serf.message import Query
from services.membership.serf.queries import QueryRequest

Happening = MemberChange | EventHeard | QueryHeard
"""What a watcher of the cluster sees."""

_ANSWERS_MAX: Final = 65536
_WATCH_SIZE: Final = 1024


@dataclass(slots=True)
class KeyReport:
    """What the members said to a key query.

    Attributes:
        members: How many were asked.
        answered: How many answered.
        failed: How many answered with an error.
        messages: Those errors, by member.
        keys: How many members hold each key, in base64.
        primaries: How many members seal with each key.
    """

    members: int
    answered: int = 0
    failed: int = 0
    messages: dict[str, str] = field(default_factory=dict[str, str])
    keys: dict[str, int] = field(default_factory=dict[str, int])
    primaries: dict[str, int] = field(default_factory=dict[str, int])


class SerfShell:
    """Serf's layer around one node.

    Args:
        node: The machine.
        clock: Monotonic seconds.
        perform: Carries effects out.
    """

    def __init__(
        self,
        node: SerfMachine,
        clock: Callable[[], float],
        perform: Callable[[Iterable[SerfEffect]], None],
    ) -> None:
        self._node = node
        self._clock = clock
        self._perform = perform
        self._answers: dict[int, asyncio.Queue[QueryAnswered | None]] = {}
        self._watches: set[ChangeWatch[Happening]] = set()
        self.on_keys: Callable[[], None] = _nothing

    # ---- asking and telling ---------------------------------------------------------------------

    def send_event(self, name: str, payload: bytes, *, coalesce: bool = False) -> None:
        """Send a user event to all members, this one included.

        Raises:
            ValueError: Name and payload exceed 512 bytes together.
        """
        self._perform(self._node.send_event(name, payload, self._clock(), coalesce=coalesce))

    @contextlib.asynccontextmanager
    async def query(self, request: QueryRequest) -> AsyncIterator[AsyncIterator[QueryAnswered]]:
        """Ask members, and iterate over acknowledgements and answers until the time is up.

        Raises:
            ValueError: It exceeds 1024 bytes, or too many queries are open.
        """
        query, effects = self._node.send_query(request, self._clock())
        queue: asyncio.Queue[QueryAnswered | None] = asyncio.Queue(_ANSWERS_MAX)
        self._answers[query.identity] = queue
        try:
            self._perform(effects)
            yield _until_over(queue)
        finally:
            del self._answers[query.identity]

    def respond(self, query: Query, payload: bytes) -> None:
        """Answer a query that was received.

        Raises:
            ValueError: The answer exceeds 1024 bytes.
        """
        self._perform(self._node.respond(query, payload))

    def force_leave(self, name: str, *, prune: bool = False) -> None:
        """Declare a failed member gone; with `prune` forget it at once."""
        self._perform(self._node.force_leave(name, self._clock(), prune=prune))

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator[ChangeWatch[Happening]]:
        """Iterate over member changes, user events and queries from here on."""
        watch: ChangeWatch[Happening] = ChangeWatch(_WATCH_SIZE)
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)
            watch.end()

    # ---- keys -----------------------------------------------------------------------------------

    async def install_key(self, key: bytes) -> KeyReport:
        """Have every member install a key, as the last of its ring."""
        return await self._key_query(keys.INSTALL, keys.encode_key_request(key))

    async def use_key(self, key: bytes) -> KeyReport:
        """Have every member seal with a key that all have installed."""
        return await self._key_query(keys.USE, keys.encode_key_request(key))

    async def remove_key(self, key: bytes) -> KeyReport:
        """Have every member drop a key that none seals with."""
        return await self._key_query(keys.REMOVE, keys.encode_key_request(key))

    async def list_keys(self) -> KeyReport:
        """Ask every member for its keys."""
        return await self._key_query(keys.LIST, b"")

    async def _key_query(self, name: str, payload: bytes) -> KeyReport:
        report = KeyReport(self._node.swim.states.table.reachable)
        async with self.query(QueryRequest(name, payload)) as answers:
            async for answer in answers:
                if answer.ack:
                    continue
                report.answered += 1
                try:
                    said = keys.decode_key_answer(answer.payload)
                except RefusedError as error:
                    said = keys.KeyAnswer(ok=False, message=str(error))
                if not said.ok:
                    report.failed += 1
                if said.message:
                    report.messages[answer.sender] = said.message
                for key in said.keys:
                    report.keys[key] = report.keys.get(key, 0) + 1
                if said.primary:
                    report.primaries[said.primary] = report.primaries.get(said.primary, 0) + 1
                if report.answered >= report.members:
                    break
        return report

    # ---- distances ------------------------------------------------------------------------------

    def coordinate(self, name: str) -> Coordinate | None:
        """A member's place in the network, None if it is not known yet."""
        if name == self._node.swim.me.name:
            return self._node.coordinates.own
        return self._node.coordinates.peers.get(name)

    # ---- from the gossip ------------------------------------------------------------------------

    def take(
        self,
        happened: MemberChange
        | EventHeard
        | QueryHeard
        | QueryAnswered
        | QueryOver
        | KeyringChanged,
    ) -> None:
        """Pass on what the machine reported."""
        if isinstance(happened, QueryAnswered | QueryOver):
            queue = self._answers.get(happened.identity)
            if queue is not None and not queue.full():
                queue.put_nowait(happened if isinstance(happened, QueryAnswered) else None)
        elif isinstance(happened, KeyringChanged):
            self.on_keys()
        else:
            for watch in self._watches:
                watch.push(happened)

    def close(self) -> None:
        """End all watches and queries."""
        for watch in self._watches:
            watch.end()
        for queue in self._answers.values():
            if not queue.full():
                queue.put_nowait(None)


async def _until_over(queue: asyncio.Queue[QueryAnswered | None]) -> AsyncIterator[QueryAnswered]:
    """Iterate until the mark of the end."""
    while True:
        answer = await queue.get()
        if answer is None:
            return
        yield answer


def _nothing() -> None:
    return
