"""The blocks of a track in their order; those that lie in the spool take forty bytes each.

A stream into a job that restarts is kept until that job is done, which may be days: the blocks go to
the disk, and what is known of them stays here. As objects they would take three hundred bytes each.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from services.streams.block import Body
from services.streams.checksum import crc32c

_UNKNOWN = -1
_GONE_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class SpoolPlace:
    """Where a body lies on disk: segment, offset and length in bytes."""

    segment: int
    offset: int
    length: int


@dataclass(slots=True)
class Kept:
    """A sealed block; `mark` counts the bytes before it.

    `place` is where it goes in the spool, and `body` is None once it lies there.
    """

    first: int
    count: int
    size: int
    mark: int
    body: Body | None
    place: SpoolPlace | None = None
    crc: int | None = None

    @property
    def end(self) -> int:
        """Sequence after its last record."""
        return self.first + self.count

    def checksum(self, body: Body) -> int:
        """Return CRC-32C of its body, which is at hand; reckoned when it is first sent."""
        if self.crc is None:
            self.crc = crc32c(body)
        return self.crc


class Shelf:
    """A sequence of blocks, oldest first.

    A block that was settled is made anew each time it is looked at: what is changed in it is lost.
    """

    def __init__(self) -> None:
        self._blocks: list[Kept] = []
        self._gone = 0
        self._firsts = array("Q")
        self._counts = array("I")
        self._sizes = array("I")
        self._marks = array("Q")
        self._segments = array("I")
        self._offsets = array("Q")
        self._sums = array("q")

    def __len__(self) -> int:
        return self.settled + len(self._blocks)

    def __getitem__(self, index: int) -> Kept:
        settled = self.settled
        if index < 0:
            index += settled + len(self._blocks)
        return self._row(index) if 0 <= index < settled else self._blocks[index - settled]

    def __iter__(self) -> Iterator[Kept]:
        for index in range(self.settled):
            yield self._row(index)
        yield from self._blocks

    @property
    def settled(self) -> int:
        """How many of the oldest blocks take little room."""
        return len(self._firsts) - self._gone

    def append(self, kept: Kept) -> None:
        """Add the newest block."""
        self._blocks.append(kept)

    def join_last(self, kept: Kept) -> None:
        """Put one block in the place of the last two, which are not settled."""
        self._blocks[-2:] = [kept]

    def drop(self, count: int) -> None:
        """Let go of the oldest blocks."""
        settled = min(count, self.settled)
        self._gone += settled
        del self._blocks[: count - settled]
        # What is gone is taken out now and then, since the rest has to move up.
        if self._gone >= _GONE_AT_ONCE and 2 * self._gone >= len(self._firsts):
            for column in self._columns():
                del column[: self._gone]
            self._gone = 0

    def settle(self) -> None:
        """Pack the oldest blocks whose bodies lie in the spool."""
        count = 0
        for kept in self._blocks:
            place = kept.place
            if kept.body is not None or place is None:
                break
            self._firsts.append(kept.first)
            self._counts.append(kept.count)
            self._sizes.append(kept.size)
            self._marks.append(kept.mark)
            self._segments.append(place.segment)
            self._offsets.append(place.offset)
            self._sums.append(_UNKNOWN if kept.crc is None else kept.crc)
            count += 1
        del self._blocks[:count]

    def _row(self, index: int) -> Kept:
        at = self._gone + index
        size, crc = self._sizes[at], self._sums[at]
        return Kept(
            self._firsts[at],
            self._counts[at],
            size,
            self._marks[at],
            None,
            SpoolPlace(self._segments[at], self._offsets[at], size),
            None if crc == _UNKNOWN else crc,
        )

    def _columns(self) -> Iterator[array[int]]:
        yield self._firsts
        yield self._counts
        yield self._sizes
        yield self._marks
        yield self._segments
        yield self._offsets
        yield self._sums
