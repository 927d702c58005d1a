"""Blocks: how records travel between a job and the stream worker beside it.

A block is a header of 24 bytes, little-endian, `kind u8, flags u8, reserved u16, count u32,
first u64, length u32, crc u32`, and a body of `length` bytes. The body of a `DATA` block is `count`
record lengths (u32 each), then the records; `HEADED` in a length says that the record begins with
headers. docs/architecture.md, section 3, is the contract. Pure: bytes in, blocks out.
"""

import struct
from itertools import chain
from typing import Dict, List, NamedTuple, Sequence, Union

from shoal.job.error import PortError

Buffer = Union[bytes, bytearray, memoryview]

HEADER = struct.Struct("<BBHIQII")
"""kind, flags, reserved, count, first, length, crc."""

LONE_HEAD = struct.Struct("<BBHIQIII")
"""The header of a block of one record, with the length of that record."""

DATA = 1
END = 2
ACK = 3
START = 4
PROGRESS = 5
RING = 6
FREE = 7

KINDS = frozenset((DATA, END, ACK, START, PROGRESS, RING, FREE))

CHECKED = 1
"""Flag: `crc` holds the body's CRC-32C. Never set on a port, where nothing flips bits."""

IN_RING = 2
"""Flag: the record lies in memory that is shared with the worker, and the body says where."""

HEADED = 0x8000_0000
"""In a record's length: it begins with the size of its headers (u16) and these, as JSON."""

MAX_BLOCK_BYTES = 256 * 1024
"""Most bytes in the body of a block, unless it holds a single record that is larger."""
MAX_RECORD_BYTES = 256 * 1024 * 1024
"""Most bytes of a record, with its headers."""
MAX_HEADERS_BYTES = 16 * 1024
"""Most bytes of a record's headers, as JSON."""

HEADERS_SIZE = struct.Struct("<H")

_AT_ONCE = 64  # records of one size that are cut by one format; formats are cached


class BlockError(PortError):
    """The bytes are no blocks; `offset` counts them from the beginning of the port."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__("{} at byte {}".format(reason, offset))
        self.reason = reason
        self.offset = offset


class Block(NamedTuple):
    """One block as it came, with `total` records.

    The `body` of several records is `bytes`, so that they are cut out quickly; that of a single
    record is a view of memory that nothing else uses, and is not copied again.
    """

    kind: int
    first: int
    total: int
    body: Buffer
    headed: bool = False
    """Whether any of its records has headers."""

    def records(self) -> List[Buffer]:
        """The records of a `DATA` block without their headers; it was checked when it came."""
        if self.headed:
            records: List[Buffer] = []
            for index, record in enumerate(self._cut()):
                records.append(record[self._headers_end(index, record) :])
            return records
        return self._cut()

    def headers(self) -> Dict[int, bytes]:
        """Headers by the number of the record in the block, as JSON; only of records that have some."""
        if not self.headed:
            return {}
        found: Dict[int, bytes] = {}
        for index, record in enumerate(self._cut()):
            end = self._headers_end(index, record)
            if end:
                found[index] = bytes(record[HEADERS_SIZE.size : end])
        return found

    def _headers_end(self, index: int, record: Buffer) -> int:
        (length,) = struct.unpack_from("<I", self.body, 4 * index)
        if not length & HEADED:
            return 0
        return HEADERS_SIZE.size + int(HEADERS_SIZE.unpack_from(record)[0])

    def _cut(self) -> List[Buffer]:
        body, total = self.body, self.total
        position = 4 * total
        if total >= _AT_ONCE and body[:position] == bytes(body[:4]) * total:
            (size,) = struct.unpack_from("<I", body)
            return _cut_evenly(body, position, size & ~HEADED, total)
        records: List[Buffer] = []
        for length in struct.unpack_from("<%dI" % total, body):
            end = position + (length & ~HEADED)
            records.append(body[position:end])
            position = end
        return records


def encode_data(first: int, records: Sequence[Buffer]) -> bytes:
    """A `DATA` block of these records; `first` is the sequence of the first one, from 0."""
    return b"".join([data_head(first, [len(record) for record in records]), *records])


def data_head(first: int, lengths: Sequence[int]) -> bytes:
    """All of a `DATA` block but the records themselves; `lengths` in bytes, with `HEADED` or not."""
    count = len(lengths)
    if lengths.count(lengths[0]) == count:
        size = lengths[0] & ~HEADED
        head = HEADER.pack(DATA, 0, 0, count, first, (4 + size) * count, 0)
        return head + struct.pack("<I", lengths[0]) * count
    table = struct.pack("<%dI" % count, *lengths)
    total = sum(lengths)
    if total >= HEADED:
        total = sum([length & ~HEADED for length in lengths])
    return HEADER.pack(DATA, 0, 0, count, first, 4 * count + total, 0) + table


def encode_mark(kind: int, first: int) -> bytes:
    """An `END` or `ACK` block, which has no body."""
    return HEADER.pack(kind, 0, 0, 0, first, 0, 0)


def encode_text(kind: int, first: int, text: str) -> bytes:
    """A `START` or `PROGRESS` block, whose body is UTF-8."""
    body = text.encode("utf-8", "replace")
    return HEADER.pack(kind, 0, 0, 0, first, len(body), 0) + body


def _cut_evenly(body: Buffer, position: int, size: int, total: int) -> List[Buffer]:
    """Records of one size: a format with many of them is several times faster than slices."""
    if not size:
        return [b""] * total
    together = total // _AT_ONCE * _AT_ONCE
    end = position + together * size
    records: List[Buffer] = list(
        chain.from_iterable(
            struct.iter_unpack("%ds" % size * _AT_ONCE, memoryview(body)[position:end])
        )
    )
    rest = range(end, end + (total - together) * size, size)
    records.extend([body[begin : begin + size] for begin in rest])
    return records
