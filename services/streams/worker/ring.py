"""Memory that a job and this worker share for large records, and the slots of it that are held.

The memory is a memfd, made at its full size, of which only what was written to takes any room. It
is sealed, so that a job cannot shrink it under the worker. A slot is handed around as a memoryview;
it is free once the last view of it is gone, held by a lane, a retained log or the spool's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import functools
import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from services.streams.slots import RingError, Slots

# fcntl(2), "File Sealing"; Python names these from 3.9 on Linux only.
_F_ADD_SEALS = 1033
_SEAL, _SEAL_SHRINK, _SEAL_GROW = 1, 2, 4


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """Where the memory behind a view lies."""

    ring: Ring
    offset: int
    length: int


def slot_of(view: object) -> Slot | None:
    """Return the slot of which `view` is a view; None if it is other memory."""
    if type(view) is not memoryview:
        return None
    return cast("Slot | None", getattr(view.obj, "slot", None))


class Ring:
    """The ring of one output port.

    Args:
        name: shown in /proc/PID/maps.
        size: bytes, a multiple of the page size.
        changed: called in the loop when slots were taken or have become free.

    Raises:
        OSError: The system has no memory of this kind.
    """

    def __init__(self, name: str, size: int, changed: Callable[[], None]) -> None:
        self.descriptor = os.memfd_create(name[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, size)
            fcntl.fcntl(self.descriptor, _F_ADD_SEALS, _SEAL | _SEAL_SHRINK | _SEAL_GROW)
        except OSError:
            os.close(self.descriptor)
            raise
        self.size = size
        self.taken = 0
        """How many slots were ever taken."""
        self._slots = Slots(size, mmap.PAGESIZE)
        self._memory: mmap.mmap | None = None
        self._views: dict[int, weakref.ref[Any]] = {}
        # The last view may go in the thread that writes the spool, so these two are all it touches.
        self._gone: deque[int] = deque()
        self._due = False
        self._free: set[int] = set()
        self._changed = changed
        self._closed = False
        self._close = weakref.finalize(self, os.close, self.descriptor)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def take(self, offset: int, length: int) -> memoryview:
        """Return what the job says it has put there, read-only.

        Raises:
            RingError: It is no slot, or the memory cannot be reached.
        """
        self._settle()
        self._slots.take(offset, length)
        try:
            if self._memory is None:
                self._memory = mmap.mmap(self.descriptor, self.size)
            memory = _pages(-(-length // mmap.PAGESIZE)).from_buffer(self._memory, offset)
        except OSError as error:
            self._slots.free(offset)
            raise RingError(f"the ring cannot be mapped: {error}") from error
        memory.slot = Slot(self, offset, length)
        self._free.discard(offset)
        self.taken += 1
        self._call()
        self._views[offset] = weakref.ref(memory, partial(self._forget, offset))
        return memoryview(memory).cast("B")[:length].toreadonly()

    def freed(self) -> list[int]:
        """Return where slots have become free since this was last called."""
        self._settle()
        free = list(self._free)
        self._free.clear()
        return free

    def open_for_reading(self) -> int | None:
        """Return a descriptor for a job that may look and not touch; None if there is none."""
        if self._closed:
            return None
        with contextlib.suppress(OSError):
            return os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        return None

    def close(self) -> None:
        """Let go of the ring; what is held of it stays."""
        self._closed = True
        self._memory = None  # every slot that is held holds it, too
        self._close()

    def _settle(self) -> None:
        while self._gone:
            offset = self._gone.popleft()
            del self._views[offset]
            self._slots.free(offset)
            self._free.add(offset)

    def _forget(self, offset: int, _view: weakref.ref[Any]) -> None:
        self._gone.append(offset)
        self._call()

    def _call(self) -> None:
        if self._due or self._closed:
            return
        self._due = True
        if threading.get_ident() == self._thread:
            self._loop.call_soon(self._tell)
        else:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._due = False
        if not self._closed:
            self._changed()


@functools.lru_cache(maxsize=256)
def _pages(number: int) -> Any:
    """Return the type of so many pages of memory; unlike a memoryview, it is known from others."""
    return type(
        "Pages", (ctypes.Array,), {"_type_": ctypes.c_ubyte, "_length_": number * mmap.PAGESIZE}
    )
