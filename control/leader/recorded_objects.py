"""What was recorded for the archive and is not there yet, handed on in memory.

Rule. The store has all of it. Here are those rows again that this machine recorded, without a gap behind `_since`, so
that they need not be read out of the store a moment after they were written. What was recorded before this start, or
has no room here while the archive is away, is read from the store.

Invariant: `take` leaves no row out. Either it answers None, or all rows behind `after` are here: none was dropped since
`_since`, and `after` is not before that.

Example: a store has rows up to 90 as the controller starts, so `_since` is 90. Publishing begins at 0, is answered
None, and reads up to 93 from the store, since three were recorded meanwhile. From then on it is handed what follows,
and the three, which it names as done, are dropped.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final

from control.core.rows import ObjectsWaiting, OutboxRow

BYTES_MAX: Final = 4 * 1024**2
"""About the most that is kept; what is recorded beyond that is read from the store, once its turn comes."""

_ROW_BYTES: Final = 1000
"""What a row takes beside its data."""


class RecordedObjects:
    """Takes rows from the leader, and has them until they are stored."""

    def __init__(self) -> None:
        self._rows: deque[OutboxRow] = deque()
        self._bytes = 0
        self._since = sys.maxsize  # before `begin` nothing is known
        self._through = 0
        self._news = asyncio.Event()

    def begin(self, through: int) -> None:
        """Begin anew with a machine that was built from a store, which has rows up to this sequence."""
        self._drop(through)
        self._news.set()

    def add(self, rows: Sequence[OutboxRow], through: int) -> None:
        """Take what a commit recorded for the archive, and the last sequence that it gave to any row."""
        self._through = through
        if not rows:
            return
        self._rows.extend(rows)
        self._bytes += sum(map(_size, rows))
        if self._bytes > BYTES_MAX:
            self._drop(through)
        self._news.set()

    def take(self, after: int, limit: int) -> ObjectsWaiting | None:
        """Return what waits behind a sequence, at most so many rows; None if it has to be read from the store.

        Up to `after` all is stored, and is kept here no longer.
        """
        if after < self._since:
            return None
        rows = self._rows
        while rows and rows[0].sequence <= after:
            self._bytes -= _size(rows.popleft())
        taken = list(islice(rows, limit))
        more = len(taken) < len(rows)
        through = taken[-1].sequence if more else self._through
        return ObjectsWaiting(taken, max(after, through), more)

    def clear(self) -> None:
        """Let `wait` return only for what comes from now on."""
        self._news.clear()

    async def wait(self) -> None:
        """Wait until there is something for the archive."""
        await self._news.wait()

    def _drop(self, through: int) -> None:
        self._rows.clear()
        self._bytes = 0
        self._since = self._through = through


def _size(row: OutboxRow) -> int:
    return len(row.data) + _ROW_BYTES
