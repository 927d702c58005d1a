"""The blocks of a log in their order; those that lie in the spool take 44 bytes each.

A stream into a job that restarts is kept until that job is done, which may be days: the blocks go to
the disk, and what is known of them stays here. As objects they would take three hundred bytes each.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from services.streams.block import Body
from services.streams.checksum import crc32c

_ROW = struct.Struct("<QIIQIQq")
_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class SpoolPlace:
    """Where a body lies on disk: segment, offset and length in bytes."""

    segment: int
    offset: int
    length: int


@dataclass(slots=True)
class RetainedBlock:
    """A sealed block; `offset` counts the bytes of the log before it.

    `place` is where it goes in the spool, and `body` is None once it lies there.
    """

    first: int
    count: int
    size: int
    offset: int
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


class BlockIndex:
    """A sequence of blocks, oldest first.

    Each access to a settled block makes a new object of its row: a change of that object is lost.
    """

    def __init__(self) -> None:
        # Deleting from the front of a bytearray moves nothing but its start.
        self._rows = bytearray()
        self._blocks: list[RetainedBlock] = []

    def __len__(self) -> int:
        return self.settled + len(self._blocks)

    def __getitem__(self, index: int) -> RetainedBlock:
        settled = self.settled
        if index < 0:
            index += settled + len(self._blocks)
        return self._row(index) if 0 <= index < settled else self._blocks[index - settled]

    def __iter__(self) -> Iterator[RetainedBlock]:
        for index in range(self.settled):
            yield self._row(index)
        yield from self._blocks

    @property
    def settled(self) -> int:
        """How many of the oldest blocks are packed into rows."""
        return len(self._rows) // _ROW.size

    def append(self, block: RetainedBlock) -> None:
        """Add the newest block."""
        self._blocks.append(block)

    def join_last(self, block: RetainedBlock) -> None:
        """Put one block in the place of the last two, which are not settled."""
        self._blocks[-2:] = [block]

    def drop(self, count: int) -> None:
        """Let go of the `count` oldest blocks."""
        settled = min(count, self.settled)
        del self._rows[: settled * _ROW.size]
        del self._blocks[: count - settled]

    def settle(self) -> None:
        """Pack the oldest blocks whose bodies lie in the spool."""
        count = 0
        for block in self._blocks:
            place = block.place
            if block.body is not None or place is None:
                break
            self._rows += _ROW.pack(
                block.first,
                block.count,
                block.size,
                block.offset,
                place.segment,
                place.offset,
                _UNKNOWN if block.crc is None else block.crc,
            )
            count += 1
        del self._blocks[:count]

    def _row(self, index: int) -> RetainedBlock:
        row = _ROW.unpack_from(self._rows, index * _ROW.size)
        first, count, size, offset, segment, at, crc = row
        place = SpoolPlace(segment, at, size)
        return RetainedBlock(
            first, count, size, offset, None, place, None if crc == _UNKNOWN else crc
        )
