"""Events as they are recorded, for those that watch them.

Theory. An event has a place in the order of all, its sequence, which the store gives once and for all. So a watch is
one number, the place up to which it was told, and nothing waits for it: a watch of a reader that is slow, or sleeps for
an hour, costs as much as that of a quick one.

Rules.
- What was recorded while a watch was open is kept here for a while, in order and without a gap. A watch that is further
  behind reads the store.
- A commit wakes those watches alone of whose namespace or pipeline it records something.
- A watch is told up to where nothing more is wanted, too, so that it goes on there after a cut.

Example: rows 5 to 9 are kept. A watch that was told up to 3 reads the store behind 3, which has all; one that was told
up to 7 gets 8 and 9 from here.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from control.core.effects import CommitRows, Effect
from control.core.errors import ControlError
from control.core.event_query import EventQuery, pipeline_in
from control.core.machine import ControlMachine
from control.core.rows import EventsRead, OutboxRow
from control.store.store import Store
from shoal.limits import BATCH_BYTES_MAX
from shoal.view import Event

KEPT_BYTES_MAX: Final = 8 << 20
TOLD_AT_ONCE: Final = 500

_Key = tuple[str, str]
"""A namespace and a pipeline of it; an empty pipeline is all of them, and what belongs to no namespace."""


class EventsBegin(NamedTuple):
    """Where a watch begins: behind `place`; what was recorded up to `newest` was there then.

    `missing` says that events behind the place that was asked for are not remembered any more.
    """

    place: int
    newest: int
    missing: bool = False


@dataclass(eq=False, slots=True)
class _Watching:
    """One that watches."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    error: ControlError | None = None


class EventFeed:
    """Shows events (a `Projection`).

    Args:
        store: has all that are remembered.
        kept_max: how many rows are kept here.
        quiet_seconds: after how long without an event one that watches is told how far it has come, if that is further
            than before.
    """

    def __init__(self, store: Store, kept_max: int, quiet_seconds: float) -> None:
        self._store = store
        self._kept_max = kept_max
        self._quiet_seconds = quiet_seconds
        self._watching: defaultdict[_Key, set[_Watching]] = defaultdict(set)
        # Kept are the rows behind `_floor`, from `_rows[_first]` on.
        self._rows: list[OutboxRow] = []
        self._first = self._bytes = self._floor = 0
        self.newest = 0
        """Sequence of the last row that was recorded."""

    def begin(self, machine: ControlMachine) -> None:
        """Begin behind all that the store has."""
        self._clear(machine.last_sequence)

    def show(self, machine: ControlMachine, effects: Sequence[Effect]) -> None:
        """Keep what one commit recorded, and wake the watches that want it; nothing is kept while there is no watch."""
        if not self._watching:
            if self.newest != machine.last_sequence:
                self._clear(machine.last_sequence)
            return
        commit = effects[0] if effects else None
        if not isinstance(commit, CommitRows) or not commit.tells:
            return
        told = [row for row in commit.rows if type(row) is OutboxRow]
        for row in told:
            self._keep(row)
        self.newest = machine.last_sequence
        self._wake(told)

    def cut_off(self, error: ControlError) -> None:
        """End all watches."""
        for group in self._watching.values():
            for one in group:
                one.error = error
                one.wake.set()

    async def follow(self, query: EventQuery, place: int) -> AsyncGenerator[EventsRead, None]:
        """Tell events behind a place, then those that come; first of all, and when it was quiet, perhaps none.

        Args:
            query: which events; when they were recorded does not count.
            place: a sequence.

        Raises:
            ControlError: it was cut off, or the store cannot be read.
        """
        query = query.at_any_time
        told = -1
        with self._watch((query.namespace, query.pipeline)) as watching:
            while True:
                watching.wake.clear()
                if watching.error is not None:
                    raise watching.error
                read = await self._read(query, place)
                place = read.through
                if read.events or told < 0:
                    told = place
                    yield read
                if read.more:
                    continue
                try:
                    async with asyncio.timeout(self._quiet_seconds):
                        await watching.wake.wait()
                except TimeoutError:
                    place = await self._quiet(query, place)
                    if place > told:
                        told = place
                        yield EventsRead((), place, more=False)

    async def _quiet(self, query: EventQuery, place: int) -> int:
        """Return up to where there is nothing that is wanted."""
        read = await self._read(query, place)
        return place if read.events else read.through

    async def _read(self, query: EventQuery, place: int) -> EventsRead:
        if place < self._floor:
            return await self._store.events(query, place, TOLD_AT_ONCE)
        found: list[Event] = []
        left = BATCH_BYTES_MAX
        begin = bisect_right(self._rows, place, lo=self._first, key=_sequence)
        for index in range(begin, len(self._rows)):
            row = self._rows[index]
            if not query.wants(row):
                continue
            found.append(_event(row))
            left -= len(row.data)
            if left <= 0 or len(found) >= TOLD_AT_ONCE:
                return EventsRead(tuple(found), row.sequence, more=row.sequence < self.newest)
        return EventsRead(tuple(found), max(place, self.newest), more=False)

    @contextmanager
    def _watch(self, key: _Key) -> Iterator[_Watching]:
        watching = _Watching()
        self._watching[key].add(watching)
        try:
            yield watching
        finally:
            self._watching[key].discard(watching)
            if not self._watching[key]:
                del self._watching[key]

    def _wake(self, told: Iterable[OutboxRow]) -> None:
        keys: set[_Key] = set()
        for row in told:
            keys.add((row.namespace, ""))
            keys.add((row.namespace, pipeline_in(row.subject)))
        if ("", "") in keys:
            keys.update(key for key in self._watching if not key[1])
        for key in keys:
            for one in self._watching.get(key, ()):
                one.wake.set()

    def _keep(self, row: OutboxRow) -> None:
        self._rows.append(row)
        self._bytes += len(row.data)
        while len(self._rows) - self._first > self._kept_max or self._bytes > KEPT_BYTES_MAX:
            gone = self._rows[self._first]
            self._floor, self._bytes = gone.sequence, self._bytes - len(gone.data)
            self._first += 1
        if 2 * self._first > len(self._rows):
            del self._rows[: self._first]
            self._first = 0

    def _clear(self, newest: int) -> None:
        self._rows = []
        self._first = self._bytes = 0
        self._floor = self.newest = newest


def _sequence(row: OutboxRow) -> int:
    return row.sequence


def _event(row: OutboxRow) -> Event:
    return Event(row.id, row.type, row.subject, row.time, row.data, row.sequence)
