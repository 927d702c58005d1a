"""Which events were handled: what tells a repetition from news."""

import asyncio
import sqlite3
from collections import OrderedDict
from pathlib import Path
from typing import Final, Protocol, Self

KEPT_MAX: Final = 100_000
"""Ids that are remembered; what repeats does so within thousands."""

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS handled (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE)
"""


_ADD: Final = (
    "INSERT INTO handled (id) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM handled WHERE id = ?)"
)
_FORGET: Final = "DELETE FROM handled WHERE number <= (SELECT max(number) FROM handled) - ?"


class EventMemory(Protocol):
    """Remembers the ids of events.

    Write your own to record an id in the transaction of what the event makes you do: then each event
    has its effect exactly once, wherever your program dies.
    """

    async def handled(self, event: str) -> bool:
        """Whether an event was handled before."""
        ...

    async def record(self, event: str) -> None:
        """Remember that an event is handled; durable on return, if anything is."""
        ...


class WindowEventMemory:
    """Remembers the last ids in memory: repetitions are found until the program ends.

    Args:
        size: how many.
    """

    def __init__(self, size: int = KEPT_MAX) -> None:
        self._size = size
        self._ids: OrderedDict[str, None] = OrderedDict()

    async def handled(self, event: str) -> bool:
        """Whether it is among the last ones."""
        return event in self._ids

    async def record(self, event: str) -> None:
        """Remember it in the place of the oldest one."""
        self._ids[event] = None
        if len(self._ids) > self._size:
            self._ids.popitem(last=False)


class FileEventMemory:
    """Remembers the last ids in a file of SQLite, for one consumer at a time; `with` closes the file.

    An event that is handled and not recorded yet as the program dies comes again.

    Args:
        path: the file; made if it is missing.
        size: how many.
    """

    def __init__(self, path: Path | str, size: int = KEPT_MAX) -> None:
        self._path = path
        self._size = size
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        """Nothing yet: the first event opens the file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def handled(self, event: str) -> bool:
        """Whether it is among the last ones."""
        return await asyncio.to_thread(self._handled, event)

    async def record(self, event: str) -> None:
        """Remember it durably, in the place of the oldest one."""
        await asyncio.to_thread(self._record, event)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            # One call at a time, each on a thread of its own.
            connection = sqlite3.connect(self._path, timeout=10.0, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(_TABLES)
            self._connection = connection
        return self._connection

    def _handled(self, event: str) -> bool:
        found = self._open().execute("SELECT 1 FROM handled WHERE id = ?", (event,))
        return found.fetchone() is not None

    def _record(self, event: str) -> None:
        with self._open() as connection:
            connection.execute(_ADD, (event, event))
            connection.execute(_FORGET, (self._size,))
