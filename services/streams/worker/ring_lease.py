"""What the job of one input holds of its producers' rings."""

import asyncio
import contextlib
import itertools
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from services.streams.block import FREE_ENTRY, LENT_REFERENCE, Body, plain
from services.streams.worker.ring import Ring, Slot

LENT_BYTES = 16 * 1024 * 1024
"""Lent and not acknowledged; while it is more than that, and a round, the job gets nothing."""


class RingLeaseError(ValueError):
    """A job gives back what it was not lent; the message says what."""


class RingLease:
    """The records that a job was given by reference, until it gives them back.

    Args:
        round_records: how many records the job takes before it acknowledges any of them.
        forgotten: called in the loop with the number of a ring of which no slot is held any more.
    """

    def __init__(self, round_records: int, forgotten: Callable[[int], None]) -> None:
        self.wanted = False
        """Whether the job has said that it can."""
        self._round_records = round_records
        self._forgotten = forgotten
        self._loop = asyncio.get_running_loop()
        self._next = itertools.count(1)
        self._rings: dict[int, weakref.ref[Ring]] = {}
        self._lent: dict[tuple[int, int], memoryview] = {}
        self._ended = False
        # Of what was lent: the sequence after it, and its bytes, until the job acknowledges it.
        self._waiting: deque[tuple[int, int]] = deque()
        self._waiting_bytes = 0

    def number(self, ring: Ring) -> int | None:
        """Return the number under which the job knows a ring, if it does."""
        for number, known in self._rings.items():
            if known() is ring:
                return number
        return None

    def introduce(self, ring: Ring) -> int:
        """Return a number for a ring that the job does not know yet."""
        number = next(self._next)
        self._rings[number] = weakref.ref(ring, partial(self._lose, number))
        return number

    def withdraw(self, number: int) -> None:
        """Forget a ring that could not be passed to the job."""
        del self._rings[number]

    @property
    def full(self) -> bool:
        """Whether the job has enough to do.

        References are small, so the socket alone would let a slow job have all that a ring holds.
        """
        return self._waiting_bytes > LENT_BYTES and len(self._waiting) > self._round_records

    def holds(self, slot: Slot, number: int | None) -> bool:
        """Whether the job has a slot already, so that it cannot be lent again."""
        return (number, slot.offset) in self._lent

    def lend(self, number: int, slot: Slot, view: memoryview, end: int) -> bytes:
        """Lend a slot, and return what to write to the job; `end` is the sequence after the record."""
        self._lent[number, slot.offset] = view
        self._waiting.append((end, slot.length))
        self._waiting_bytes += slot.length
        return LENT_REFERENCE.pack(int.from_bytes(view[:4], "little"), number, slot.offset)

    def acknowledged(self, below: int) -> None:
        """Take what the job has processed out of what it waits for."""
        while self._waiting and self._waiting[0][0] <= below:
            self._waiting_bytes -= self._waiting.popleft()[1]

    def take_back(self, body: Body) -> None:
        """Take back what a FREE block of the job names.

        Raises:
            RingLeaseError: The job does not hold it.
        """
        for number, offset in FREE_ENTRY.iter_unpack(plain(body)):
            if self._lent.pop((number, offset), None) is None and not self._ended:
                raise RingLeaseError(
                    f"FREE names offset {offset} of ring {number}, which was not lent"
                )

    def end(self) -> None:
        """Take everything back."""
        self._ended = True
        self.wanted = False
        self._lent.clear()
        self._rings.clear()

    def _lose(self, number: int, _ring: weakref.ref[Any]) -> None:
        # The last to hold a ring may be the thread that writes a spool.
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the worker with it
            self._loop.call_soon_threadsafe(self._forget, number)

    def _forget(self, number: int) -> None:
        if self._rings.pop(number, None) is not None:
            self._forgotten(number)
