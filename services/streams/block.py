"""Blocks: consecutive records of one stream behind a header of 24 bytes.

Layout, little-endian: kind u8, flags u8, reserved u16, count u32, first u64, length u32, crc u32; then `length` bytes
of body. The body of a DATA block is a table of `count` entries (u32 each), then the records without
gaps (docs/architecture.md, section 3). An entry is the length of its record; bit 31 says that the
record begins with headers: u16 n, then n bytes of JSON. The checksum is CRC-32C of the body (RFC
3720, appendix B.4).
"""

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Protocol

from services.streams.checksum import crc32c
from services.streams.large_body import LargeBody
from services.streams.slots import RingError
from shoal.limits import RECORD_BYTES_MAX

HEADER = struct.Struct("<BBHIQII")
HEADER_BYTES = 24
FLAG_CRC = 1
FLAG_RING = 2
"""The records lie in a ring, and the body says where: on ports only."""

Body = bytes | memoryview
"""A body, which may lie in a ring."""

FREE_ENTRY = struct.Struct("<IQ")
"""One slot of a FREE block: number of the ring on this port, and offset in it."""

REFERENCE = struct.Struct("<IQ")
"""Body of a DATA block of a job in a ring: its table, and where table and record lie."""

LENT_REFERENCE = struct.Struct("<IIQ")
"""The same to a job: the table, number of the ring on this port, and where they lie."""

BLOCK_BYTES_MAX = 256 * 1024
"""Largest body, unless it carries one record that is larger."""

HEADED = 0x8000_0000
"""Bit of an entry of the table: the record begins with headers."""

LENGTH_MASK = HEADED - 1
"""Bits of an entry that are the record's length, headers included."""

HEADERS_BYTES_MAX = 16 * 1024
"""Most bytes of JSON in the headers of a record."""

PROGRESS_BYTES_MAX = 64 * 1024
"""Longest text about a job's own progress."""

_SCRATCH_BYTES = BLOCK_BYTES_MAX + 64 * 1024


class Kind(enum.IntEnum):
    """What a block is for."""

    DATA = 1
    END = 2
    ACK = 3
    START = 4
    PROGRESS = 5
    RING = 6
    FREE = 7


_KINDS = {int(kind): kind for kind in Kind}


class BlockError(ValueError):
    """Bytes that are no block; `offset` is where the offending block begins in its byte stream."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"at offset {offset}: {reason}")
        self.offset = offset
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Block:
    """One block: `first` and `count` mean what the kind says.

    `crc` is CRC-32C of the body where it was reckoned anyway as it was read.
    """

    kind: Kind
    first: int
    count: int = 0
    body: Body = b""
    crc: int | None = field(default=None, compare=False)


class SlotSource(Protocol):
    """Where a job puts large records."""

    def take(self, offset: int, length: int) -> memoryview:
        """Return what lies there; it is the caller's until the last view of it is gone.

        Raises:
            RingError: It is no slot.
        """
        ...


def header(block: Block, crc: int | None = None) -> bytes:
    """Return the 24 bytes before the body; `crc` is CRC-32C of the body where it is to be checked."""
    flags = 0 if crc is None else FLAG_CRC
    return HEADER.pack(block.kind, flags, 0, block.count, block.first, len(block.body), crc or 0)


def data_header(first: int, count: int, size: int, crc: int) -> bytes:
    """Return the 24 bytes before a body of `size` bytes of records, which need not be at hand."""
    return HEADER.pack(Kind.DATA, FLAG_CRC, 0, count, first, size, crc)


def encode(block: Block, *, checksum: bool = False) -> bytes:
    """Return the block as bytes, with CRC-32C of its body where `checksum` says so."""
    return header(block, crc32c(block.body) if checksum else None) + block.body


def plain(body: Body) -> bytes:
    """Return a body as bytes; one that lies in a ring is copied out of it."""
    return body if isinstance(body, bytes) else bytes(body)


def decode(data: bytes, at: int = 0) -> Block:
    """Read one whole block with its checksum, as it travels between nodes, from `at` to the end.

    Raises:
        BlockError: It is cut short, has bytes left over, breaks a limit or fails its checksum.
    """
    have = len(data) - at - HEADER_BYTES
    if have < 0:
        raise BlockError(0, f"a block of {len(data) - at} bytes is shorter than its header of 24")
    kind, flags, _, count, first, length, crc = HEADER.unpack_from(data, at)
    check_header(0, kind, count, length)
    if have != length:
        raise BlockError(0, f"the header says {length} bytes of body, and {have} came")
    body = data[at + HEADER_BYTES :]
    if not flags & FLAG_CRC:
        raise BlockError(0, "a block between nodes has no checksum")
    if crc32c(body) != crc:
        raise BlockError(0, f"CRC-32C of the body is {crc32c(body):08x}, the header says {crc:08x}")
    block = Block(_KINDS[kind], first, count, body, crc)
    if block.kind is Kind.DATA:
        check_lengths(block)
    return block


def entries(block: Block) -> tuple[int, ...]:
    """Return the table of a DATA block as it stands: lengths in bytes, `HEADED` where it is set."""
    return struct.unpack_from(f"<{block.count}I", block.body)


def check_lengths(block: Block, offset: int = 0) -> None:
    """Check the record lengths of a DATA block; quick where all are the same, as they often are.

    Raises:
        BlockError: As `lengths`.
    """
    table = 4 * block.count
    if block.count > 1:
        entry = plain(block.body[:4])
        # An entry with headers is too large for this sum.
        total = int.from_bytes(entry, "little") * block.count
        if total == len(block.body) - table and block.body[:table] == entry * block.count:
            return
    lengths(block, offset)


def lengths(block: Block, offset: int = 0) -> tuple[int, ...]:
    """Return the length of each record of a DATA block, in bytes, headers included.

    Raises:
        BlockError: The lengths do not add up to the body, or headers do not fit their record.
    """
    table = entries(block)
    have = len(block.body) - 4 * block.count
    # Less than HEADED, so a sum that is right says that no record has headers.
    if sum(table) == have:
        return table
    plain = tuple([entry & LENGTH_MASK for entry in table])
    total = sum(plain)
    if total != have:
        raise BlockError(
            offset, f"the record lengths add up to {total} bytes, and the block has {have}"
        )
    at = 4 * block.count
    for index, length in enumerate(plain):
        if table[index] & HEADED:
            _check_headers(block, index, at, length, offset)
        at += length
    return plain


def headers_of(record: bytes) -> bytes:
    """Return the JSON that a record with headers begins with, as bytes."""
    return record[2 : 2 + int.from_bytes(record[:2], "little")]


def payload_of(record: bytes) -> bytes:
    """Return a record with headers without them."""
    return record[2 + int.from_bytes(record[:2], "little") :]


def without_headers(block: Block) -> Block:
    """Return a DATA block with the payloads alone; the same one if no record has headers."""
    if not headed(block):
        return block
    records = [
        payload_of(record) if entry & HEADED else record
        for entry, record in zip(entries(block), unpack(block), strict=True)
    ]
    return Block(Kind.DATA, block.first, block.count, pack(records))


def headed(block: Block) -> bool:
    """Whether a record of a DATA block has headers."""
    return max(block.body[3 : 4 * block.count : 4]) >= HEADED >> 24


def pack(records: Sequence[Body], table: Sequence[int] | None = None) -> bytes:
    """Return the body of a DATA block; `table` has its entries, if some records have headers."""
    marks = map(len, records) if table is None else table
    return b"".join([struct.pack(f"<{len(records)}I", *marks), *records])


def unpack(block: Block) -> list[bytes]:
    """Return the records of a DATA block, headers included; `entries` says where there are some.

    Raises:
        BlockError: As `lengths`.
    """
    body = plain(block.body)
    return [body[at:end] for at, end in pairwise(bounds(block, lengths(block)))]


def bounds(block: Block, table: Sequence[int]) -> list[int]:
    """Return where each record of a DATA block begins in its body, and where the last one ends."""
    sizes = (entry & LENGTH_MASK for entry in table)
    return list(accumulate(sizes, initial=4 * block.count))


def without_head(block: Block, skip: int) -> Block:
    """Return a DATA block without its first `skip` records."""
    return block if skip <= 0 else divided(block, skip)[1]


def divided(block: Block, at: int) -> tuple[Block, Block]:
    """Return the first `at` records of a DATA block, and the rest; neither may be empty."""
    middle = 4 * block.count + sum(lengths(block)[:at])
    body = plain(block.body)
    head = body[: 4 * at] + body[4 * block.count : middle]
    tail = body[4 * at : 4 * block.count] + body[middle:]
    return (
        Block(Kind.DATA, block.first, at, head),
        Block(Kind.DATA, block.first + at, block.count - at, tail),
    )


class BlockReader:
    """Cuts what a job writes on a port into blocks, however the bytes arrive.

    Ask `buffer` where to put bytes, give `filled` their number. A body that does not fit into the
    scratch buffer is put together elsewhere while it comes, and has its checksum when it is whole.
    One that lies in a ring is taken from there.

    Args:
        ring: the port's, if it has one.
    """

    def __init__(self, ring: SlotSource | None = None) -> None:
        self._ring = ring
        self._scratch = bytearray(_SCRATCH_BYTES)
        self._view = memoryview(self._scratch)
        self._start = 0
        self._end = 0
        self._large: LargeBody | None = None
        self._large_header = (Kind.DATA, 0, 0)
        self.offset = 0
        """Where the block that is being read begins in the byte stream."""

    def buffer(self) -> memoryview:
        """Return where the next bytes go; never empty."""
        if self._large is not None:
            return self._view[: self._large.missing]
        return self._view[self._end :]

    def filled(self, count: int) -> list[Block]:
        """Take `count` bytes that are in the buffer and return the blocks that are now whole.

        Raises:
            BlockError: What came is no block; the reader is of no use afterwards.
        """
        if self._large is not None:
            return self._filled_large(self._large, count)
        self._end += count
        blocks: list[Block] = []
        while self._end - self._start >= HEADER_BYTES:
            kind, flags, _, number, first, length, _ = HEADER.unpack_from(
                self._scratch, self._start
            )
            check_header(self.offset, kind, number, length)
            body_at = self._start + HEADER_BYTES
            if body_at + length > self._end:
                if HEADER_BYTES + length > _SCRATCH_BYTES:
                    self._begin_large(_KINDS[kind], first, number, length, body_at)
                break
            body = bytes(self._view[body_at : body_at + length])
            if flags & FLAG_RING:
                blocks.append(self._from_ring(_KINDS[kind], first, number, body))
            else:
                blocks.append(self._whole(_KINDS[kind], first, number, body))
            self._start = body_at + length
        self._compact()
        return blocks

    def finish(self) -> list[Block]:
        """End the byte stream.

        Raises:
            BlockError: It ended within a block.
        """
        have = self._end - self._start
        if self._large is not None:
            have = HEADER_BYTES + self._large.filled
        if have:
            raise BlockError(self.offset, f"the port ended {have} bytes into a block")
        return []

    def _whole(
        self, kind: Kind, first: int, count: int, body: bytes, crc: int | None = None
    ) -> Block:
        block = Block(kind, first, count, body, crc)
        if kind is Kind.DATA:
            check_lengths(block, self.offset)
        self.offset += HEADER_BYTES + len(body)
        return block

    def _from_ring(self, kind: Kind, first: int, count: int, reference: bytes) -> Block:
        if kind is not Kind.DATA or count != 1 or len(reference) != REFERENCE.size:
            raise BlockError(
                self.offset, "only DATA of one record, with a body of 12 bytes, lies in a ring"
            )
        if self._ring is None:
            raise BlockError(self.offset, "a record in a ring, and this port has none")
        entry, at = REFERENCE.unpack(reference)
        length = 4 + (entry & LENGTH_MASK)
        _check_data(self.offset, 1, length)
        try:
            body = self._ring.take(at, length)
        except RingError as error:
            raise BlockError(self.offset, str(error)) from error
        if bytes(body[:4]) != reference[:4]:
            raise BlockError(self.offset, f"the ring has another record at {at}")
        block = Block(kind, first, 1, body)
        lengths(block, self.offset)
        self.offset += HEADER_BYTES + len(reference)
        return block

    def _begin_large(self, kind: Kind, first: int, count: int, length: int, body_at: int) -> None:
        self._large = LargeBody(length)
        self._large.add(bytes(self._view[body_at : self._end]))
        self._large_header = (kind, first, count)
        self._start = self._end = 0

    def _filled_large(self, body: LargeBody, count: int) -> list[Block]:
        body.add(bytes(self._view[:count]))
        if body.missing:
            return []
        kind, first, number = self._large_header
        self._large = None
        return [self._whole(kind, first, number, body.take(), body.crc)]

    def _compact(self) -> None:
        if self._start == 0:
            return
        have = self._end - self._start
        if have:
            self._scratch[:have] = bytes(self._view[self._start : self._end])
        self._start, self._end = 0, have


def check_header(offset: int, kind: int, count: int, length: int) -> None:
    """Check what the header of the block at `offset` says, before its body is there.

    Raises:
        BlockError: There is no such block.
    """
    if kind not in _KINDS:
        raise BlockError(offset, f"kind {kind} does not exist; DATA is 1, END is 2")
    if kind == Kind.DATA:
        _check_data(offset, count, length)
    elif kind == Kind.FREE:
        if length % FREE_ENTRY.size or length > PROGRESS_BYTES_MAX:
            raise BlockError(
                offset,
                f"FREE has {length} bytes; it has {FREE_ENTRY.size} for each slot, "
                f"at most {PROGRESS_BYTES_MAX}",
            )
    elif kind in {Kind.END, Kind.ACK, Kind.RING}:
        if length:
            raise BlockError(
                offset, f"{_KINDS[kind].name} has a body of {length} bytes; it has none"
            )
    elif length > PROGRESS_BYTES_MAX:
        raise BlockError(
            offset, f"{_KINDS[kind].name} has {length} bytes; at most {PROGRESS_BYTES_MAX}"
        )


def _check_data(offset: int, count: int, length: int) -> None:
    if count == 0:
        raise BlockError(offset, "DATA without a record")
    if 4 * count > length:
        raise BlockError(offset, f"{count} record lengths do not fit into {length} bytes of body")
    if count == 1 and length - 4 > RECORD_BYTES_MAX:
        raise BlockError(
            offset, f"a record of {length - 4} bytes is above the limit of {RECORD_BYTES_MAX}"
        )
    if count > 1 and length > BLOCK_BYTES_MAX:
        raise BlockError(
            offset,
            f"a block of {count} records has {length} bytes; at most {BLOCK_BYTES_MAX} "
            "unless it carries a single record",
        )


def _check_headers(block: Block, index: int, at: int, length: int, offset: int) -> None:
    number = block.first + index
    if length < 2:
        raise BlockError(
            offset,
            f"record {number} is said to begin with headers, and its {length} bytes cannot hold "
            "their length, a u16",
        )
    size = int.from_bytes(block.body[at : at + 2], "little")
    if size > HEADERS_BYTES_MAX:
        raise BlockError(
            offset, f"record {number} has headers of {size} bytes; at most {HEADERS_BYTES_MAX}"
        )
    if 2 + size > length:
        raise BlockError(
            offset,
            f"record {number} has {length} bytes and says that {size} of them, after the first 2, "
            "are headers",
        )
