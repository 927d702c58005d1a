"""What is kept of an output until no consumer will ask for it again.

A log is one sequence of records that one or several lanes read: lanes that carry the whole output
share one, each lane of a round-robin split has its own.

Rule 1. Records are appended to an open tail. A reader that takes the tail closes it. So a single
record leaves at once while its lane is idle, and the blocks of a fast producer grow while the lane
is busy: group commit without a timer.

Rule 2. Blocks have numbers, which count released blocks too. A reader has a cursor: the number of
the block that it takes next.

Rule 3. Whole blocks below the lowest sequence that a lane may ask for are released, oldest first.
The oldest blocks in memory go to the spool first.

Rule 4, folding. Before a closed block is appended, the last two blocks are joined for as long as
the earlier one is no larger than the later one, the later one is smaller than J = a quarter of the
largest block, both are in memory, and every reading cursor is behind both.

Invariant of rule 4. In each run of blocks below J bytes that all readers have passed, sizes strictly
decrease; only the block that was appended last may be as large as the one before it, or larger.

Why. A trickle of records that is kept for days would otherwise leave a block for each record, which
costs more in objects than in bytes.

Bound. Of N kept bytes at most N/J blocks have J bytes or more, so there are at most N/J + 1 runs.
The sizes in a run are all different, so k blocks hold at least k*(k+1)/2 bytes: a run of n bytes has
at most sqrt(2*n) blocks, and one more. For blocks of one size r a run works as a binary counter:
its sizes are r times different powers of two, so it has about log2(J/r) blocks at most, and a byte
is copied as often at most.

Example, blocks of size 1: after 1, 2, 3, 4 and 5 appends the sizes are [1], [1 1], [2 1], [2 1 1] and
[4 1]. The block that was appended last is joined when the next one comes.

Source: the binary counter (Cormen et al., Introduction to Algorithms, chapter on amortized
analysis), which log-structured merge trees use for the same purpose (O'Neil et al., 1996).
"""

from bisect import bisect_right
from dataclasses import dataclass

from services.streams.block import BLOCK_BYTES_MAX, HEADER_BYTES, Body
from services.streams.block_index import BlockIndex, RetainedBlock, SpoolPlace
from services.streams.digest import Digest, RunningDigest


@dataclass(slots=True)
class Cursor:
    """Where one reader of a log is: the number of the block that it takes next, if it reads."""

    number: int | None = None


class RetainedLog:
    """Kept records of one sequence, in numbered blocks.

    Folding moves cursors along, so that no reader notices it.

    Args:
        block_bytes: records are joined up to this size; a quarter of it is not worth a copy.
    """

    def __init__(self, block_bytes: int = BLOCK_BYTES_MAX) -> None:
        self._block_bytes = block_bytes
        self._join_bytes = block_bytes // 4
        self._index = BlockIndex()
        self._running = RunningDigest()
        self._fences: set[int] = set()
        self._cursors: list[Cursor] = []
        # Number of the oldest block that is kept.
        self.first_number = 0
        self._spooled = 0
        self._tables: list[Body] = []
        self._datas: list[Body] = []
        self._tail_size = 0
        self._tail_count = 0
        self.base: int = 0
        """Lowest sequence that can still be sent."""
        self.next: int = 0
        """Sequence of the record that comes next."""
        self.total: int | None = None
        """How many records there are in all, once the end is known."""
        self.offset = 0
        """Bytes that were ever appended."""
        self.memory_bytes: int = 0
        self.leaving_bytes = 0
        """Of the bytes in memory, those that are being written to the spool."""
        self.spool_bytes = 0

    @property
    def retained_bytes(self) -> int:
        """Bytes that are kept, in memory or in the spool."""
        return self.memory_bytes + self.spool_bytes

    @property
    def spoolable(self) -> bool:
        """Whether a sealed block is in memory and not on its way to the spool."""
        return self._spooled < len(self._index)

    def cursor(self) -> Cursor:
        """Return a cursor for one reader."""
        cursor = Cursor()
        self._cursors.append(cursor)
        return cursor

    def begin(self, first: int) -> None:
        """Let the log begin at a sequence above 0; nothing may have been appended yet."""
        self.base = self.next = first
        self._running = RunningDigest(first)

    def append(self, count: int, body: Body, crc: int | None = None) -> None:
        """Append records, given as the body of a DATA block; `crc` is its CRC-32C, if known."""
        size = len(body)
        large = size >= self._join_bytes
        if large or self._tail_size + size > self._block_bytes:
            self._seal()
        if large:
            self._keep(self.next, count, body, self.offset, crc)
            self._running.add_later(self._index[-1], body)
        else:
            table, data = body[: 4 * count], body[4 * count :]
            self._running.add(table, data)
            self._tables.append(table)
            self._datas.append(data)
            self._tail_size += size
            self._tail_count += count
        self.next += count
        self.offset += size
        self.memory_bytes += size

    def reckon(self, number: int) -> None:
        """Reckon the checksum of block `number`, which another node has and will not be sent."""
        retained = self._index[number - self.first_number]
        if retained.body is not None:
            retained.checksum(retained.body)

    def digest(self) -> Digest | None:
        """Return the digest of all records since the first one, if it is known."""
        return self._running.digest()

    def end(self) -> None:
        """End the log: nothing comes any more, and what is there may go to the spool."""
        self._seal()
        self.total = self.next

    def fence(self) -> None:
        """Let no block have records from before and after this point: a lane ends here."""
        self._seal()
        self._fences.add(self.next)

    def number_at(self, sequence: int) -> int:
        """Return the number of the first block with a record at or after `sequence`, or of the tail."""
        index = bisect_right(self._index, sequence, key=_end_of)
        return self.first_number + index

    def offset_at(self, number: int) -> int:
        """Return how many bytes were appended before the block with this number."""
        index = number - self.first_number
        if index < len(self._index):
            return self._index[max(index, 0)].offset
        return self.offset - self._tail_size

    def sealed_end(self, number: int) -> int | None:
        """Return where block `number` ends, or None if that is not known because it is still open."""
        index = number - self.first_number
        return self._index[index].end if 0 <= index < len(self._index) else None

    def block(self, number: int) -> RetainedBlock | None:
        """Return block `number`, closing the tail if it is the one; None when it is not there yet."""
        index = number - self.first_number
        if index < 0:
            raise IndexError(f"block {number} was released; the first kept is {self.first_number}")
        if index < len(self._index):
            return self._index[index]
        # Closing the tail may fold blocks before it, and move the cursor that points at it.
        return self._index[-1] if self._seal() else None

    def peek_size(self, number: int) -> int:
        """Return the size of block `number` on the wire, without closing the tail; 0 if empty."""
        index = number - self.first_number
        if 0 <= index < len(self._index):
            return self._index[index].size + HEADER_BYTES
        return self._tail_size + HEADER_BYTES if self._tail_count else 0

    def release(self, sequence: int) -> list[SpoolPlace]:
        """Let go of whole blocks below `sequence`; return what this frees in the spool."""
        if sequence >= self.next and self._tail_count:
            self._seal()
        drop = 0
        places: list[SpoolPlace] = []
        for retained in self._index:
            if retained.end > sequence:
                break
            drop += 1
            self._running.gone(retained)
            if retained.place is not None:
                places.append(retained.place)
            if retained.body is None:
                self.spool_bytes -= retained.size
            else:
                self.memory_bytes -= retained.size
                self.leaving_bytes -= retained.size if retained.place is not None else 0
            self.base = retained.end
        if drop:
            self._index.drop(drop)
            self.first_number += drop
            self._spooled = max(0, self._spooled - drop)
        return places

    def forget(self) -> None:
        """Let go of all bytes; the log is of no use afterwards."""
        self._index = BlockIndex()
        self._running = RunningDigest()
        self._tables.clear()
        self._datas.clear()

    def oldest_in_memory(self) -> RetainedBlock | None:
        """Return the block that goes to the spool next."""
        return self._index[self._spooled] if self.spoolable else None

    def spooling(self, place: SpoolPlace) -> None:
        """Give the oldest block in memory its place: it is being written there."""
        retained = self._index[self._spooled]
        if retained.body is not None:
            # Every byte of it is looked at now anyway, and on disk it is out of reach.
            retained.checksum(retained.body)
        retained.place = place
        self._spooled += 1
        self.leaving_bytes += retained.size

    def spooled(self, retained: RetainedBlock) -> None:
        """Drop the body of a block that lies in the spool; it may have been released meanwhile."""
        if retained.body is None or retained.first < self.base:
            return
        retained.body = None
        self.memory_bytes -= retained.size
        self.leaving_bytes -= retained.size
        self.spool_bytes += retained.size
        self._index.settle()

    def _seal(self) -> bool:
        if not self._tail_count:
            return False
        body = b"".join([*self._tables, *self._datas])
        count, size = self._tail_count, self._tail_size
        self._tables, self._datas = [], []
        self._tail_size = self._tail_count = 0
        self._keep(self.next - count, count, body, self.offset - size)
        return True

    def _keep(
        self, first: int, count: int, body: Body, offset: int, crc: int | None = None
    ) -> None:
        self._fold()
        self._index.append(RetainedBlock(first, count, len(body), offset, body, crc=crc))

    def _fold(self) -> None:
        """Join the last blocks by rule 4."""
        retained = self._index
        while len(retained) >= self._spooled + 2:
            one, two = retained[-2], retained[-1]
            if two.first in self._fences:
                return
            if one.size > two.size or two.size >= self._join_bytes:
                return
            if one.body is None or two.body is None:
                return
            end = self.first_number + len(retained)
            reading = [cursor for cursor in self._cursors if cursor.number is not None]
            if any(cursor.number != end for cursor in reading):
                return
            at, cut = 4 * one.count, 4 * two.count
            body = b"".join((one.body[:at], two.body[:cut], one.body[at:], two.body[cut:]))
            retained.join_last(
                RetainedBlock(one.first, one.count + two.count, len(body), one.offset, body)
            )
            for cursor in reading:
                cursor.number = end - 1


class SpoolLedger:
    """Where bodies lie in the segments of an attempt's spool, and which segments are free.

    Args:
        segment_bytes: a segment is closed once it is at least as long.
    """

    def __init__(self, segment_bytes: int) -> None:
        self._segment_bytes = segment_bytes
        self._segment = 0
        self._offset = 0
        self._live: dict[int, int] = {}

    def place(self, length: int) -> SpoolPlace:
        """Return where the next body of this length goes."""
        if self._offset >= self._segment_bytes:
            self._segment += 1
            self._offset = 0
        place = SpoolPlace(self._segment, self._offset, length)
        self._offset += length
        self._live[self._segment] = self._live.get(self._segment, 0) + 1
        return place

    def free(self, place: SpoolPlace) -> int | None:
        """Let go of a place; return the segment if nothing is left in it."""
        self._live[place.segment] -= 1
        if self._live[place.segment]:
            return None
        del self._live[place.segment]
        if place.segment == self._segment:
            self._segment += 1
            self._offset = 0
        return place.segment

    @property
    def segments(self) -> tuple[int, ...]:
        """The segments that hold something."""
        return tuple(self._live)


def _end_of(retained: RetainedBlock) -> int:
    return retained.end
