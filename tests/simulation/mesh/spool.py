"""Spools of a board in memory: what disks do to them, that is latency and loss of power."""

from __future__ import annotations

import asyncio
from random import Random

from services.streams.block import Body
from services.streams.block_index import SpoolPlace
from services.streams.worker.spool import SpoolGoneError

OPERATION_SECONDS = 0.001
"""At most so long takes one write or read."""


class SpoolDisk:
    """All spools of one board, by their path.

    Nothing in a spool is ever flushed, so whatever lies there when the power fails may be gone.

    Args:
        rng: draws how long an operation takes.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.spools: dict[str, dict[int, bytearray]] = {}

    def open(self, path: str) -> MemorySpool:
        """Return a new hold on the spool at a path."""
        return MemorySpool(self, path)

    def remove(self, part: str) -> None:
        """Forget the spools with this in their paths."""
        for path in [path for path in self.spools if part in path]:
            del self.spools[path]

    def lose_power(self) -> None:
        """Forget what was not flushed."""
        self.spools.clear()

    async def wait(self) -> None:
        """Take the time of one operation."""
        await asyncio.sleep(OPERATION_SECONDS * self._rng.random())


class MemorySpool:
    """A spool; it sees what was written through it, as `FileSpool` does."""

    def __init__(self, disk: SpoolDisk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._segments: dict[int, bytearray] = {}

    async def write(self, place: SpoolPlace, body: Body) -> None:
        """See `Spool`."""
        await self._disk.wait()
        segment = self._segments.setdefault(place.segment, bytearray())
        self._disk.spools.setdefault(self._path, self._segments)
        if len(segment) < place.offset:
            segment.extend(bytes(place.offset - len(segment)))
        segment[place.offset : place.offset + len(body)] = body

    async def read(self, place: SpoolPlace) -> bytes:
        """See `Spool`."""
        await self._disk.wait()
        segment = self._segments.get(place.segment)
        if segment is None:
            raise SpoolGoneError(f"segment {place.segment} is not there")
        body = bytes(segment[place.offset : place.offset + place.length])
        if len(body) < place.length:
            raise OSError(f"segment {place.segment} ends before {place.offset + place.length}")
        return body

    async def drop(self, segment: int) -> None:
        """See `Spool`."""
        self._segments.pop(segment, None)

    def close(self) -> None:
        """See `Spool`."""
        self._segments.clear()
        self._disk.spools.pop(self._path, None)
