"""Blocks: how records travel between a job and the stream worker beside it.

A block is a header of 24 bytes, little-endian, `kind u8, flags u8, reserved u16, count u32,
first u64, length u32, crc u32`, and a body of `length` bytes. docs/architecture.md, section 3, is
the contract. Pure: bytes in, blocks out.
"""

import struct
from typing import List, NamedTuple, Optional, Sequence, Union

from shoal.job.error import PortError

Buffer = Union[bytes, bytearray, memoryview]

HEADER = struct.Struct("<BBHIQII")
"""kind, flags, reserved, count, first, length, crc."""

DATA = 1
END = 2
ACK = 3
START = 4
PROGRESS = 5

KINDS = frozenset((DATA, END, ACK, START, PROGRESS))

CHECKED = 1
"""Flag: `crc` holds the body's CRC-32C. Never set on a port, where nothing flips bits."""

MAX_BLOCK_BYTES = 256 * 1024
"""Most bytes in the body of a block, unless it holds a single record that is larger."""
MAX_RECORD_BYTES = 64 * 1024 * 1024

_NO_BODY = memoryview(b"")


class BlockError(PortError):
    """The bytes are no blocks; `offset` counts them from the beginning of the port."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__("{} at byte {}".format(reason, offset))
        self.reason = reason
        self.offset = offset


class Block(NamedTuple):
    """One block as it came, with `total` records; `body` is not copied."""

    kind: int
    first: int
    total: int
    body: memoryview

    def records(self) -> List[memoryview]:
        """The records of a `DATA` block, which was checked when it came."""
        body = self.body
        position = 4 * self.total
        records: List[memoryview] = []
        for length in struct.unpack_from("<%dI" % self.total, body):
            records.append(body[position : position + length])
            position += length
        return records


def encode_data(first: int, records: Sequence[Buffer]) -> bytes:
    """A `DATA` block of these records; `first` is the sequence of the first one, from 0."""
    return b"".join([data_head(first, [len(record) for record in records]), *records])


def data_head(first: int, lengths: Sequence[int]) -> bytes:
    """All of a `DATA` block but the records themselves; `lengths` in bytes."""
    count = len(lengths)
    length = 4 * count + sum(lengths)
    return HEADER.pack(DATA, 0, 0, count, first, length, 0) + struct.pack("<%dI" % count, *lengths)


def encode_mark(kind: int, first: int) -> bytes:
    """An `END` or `ACK` block, which has no body."""
    return HEADER.pack(kind, 0, 0, 0, first, 0, 0)


def encode_text(kind: int, first: int, text: str) -> bytes:
    """A `START` or `PROGRESS` block, whose body is UTF-8."""
    body = text.encode("utf-8", "replace")
    return HEADER.pack(kind, 0, 0, 0, first, len(body), 0) + body


class BlockReader:
    """Cuts a stream of bytes into blocks.

    The bytes are received straight into place: fill (a part of) `space()`, then say how many bytes
    came with `advance()`. `feed` does both for bytes that are there already.
    """

    def __init__(self) -> None:
        self._header = bytearray(HEADER.size)
        self._target = memoryview(self._header)
        self._filled = 0
        self._kind = 0  # 0 while the header is read
        self._first = 0
        self._count = 0
        self._offset = 0

    @property
    def inside(self) -> bool:
        """Whether a block has begun and is not complete: the stream must not end here."""
        return bool(self._filled or self._kind)

    @property
    def offset(self) -> int:
        """Bytes of all the blocks before this one."""
        return self._offset

    def space(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        return self._target[self._filled :]

    def advance(self, count: int) -> Optional[Block]:
        """Take note of `count` bytes that were put into `space()`; a block if one is complete.

        Raises:
            BlockError: The header or body breaks the format.
        """
        self._filled += count
        if self._filled < len(self._target):
            return None
        if not self._kind:
            length = self._begin()
            if length:
                self._target = memoryview(bytearray(length))
                self._filled = 0
                return None
            body = _NO_BODY
        else:
            body = self._target
        block = Block(self._kind, self._first, self._count, body)
        if block.kind == DATA:
            self._check_records(block)
        self._offset += HEADER.size + len(body)
        self._target = memoryview(self._header)
        self._filled = 0
        self._kind = 0
        return block

    def feed(self, data: Buffer) -> List[Block]:
        """All blocks that are complete with `data`, which is copied.

        Raises:
            BlockError: The bytes break the format.
        """
        rest = memoryview(data)
        blocks: List[Block] = []
        while rest:
            space = self.space()
            size = min(len(space), len(rest))
            space[:size] = rest[:size]
            rest = rest[size:]
            block = self.advance(size)
            if block is not None:
                blocks.append(block)
        return blocks

    def _begin(self) -> int:
        kind, flags, _reserved, count, first, length, _crc = HEADER.unpack(self._header)
        if kind not in KINDS:
            raise BlockError("no block begins with kind {}".format(kind), self._offset)
        if flags & ~CHECKED:
            raise BlockError("unknown flags 0x{:02x}".format(flags), self._offset)
        if kind != DATA:
            if count:
                raise BlockError("a block of kind {} has no records".format(kind), self._offset)
            if length and kind in (END, ACK):
                raise BlockError("a block of kind {} has no body".format(kind), self._offset)
            if length > MAX_BLOCK_BYTES:
                raise BlockError("a body of {} bytes is too long".format(length), self._offset)
        elif count == 0:
            raise BlockError("a block of data without records", self._offset)
        elif count == 1:
            if length > MAX_RECORD_BYTES + 4:
                reason = "a record of {} bytes is over the limit of {}".format(
                    length - 4, MAX_RECORD_BYTES
                )
                raise BlockError(reason, self._offset)
        elif length > MAX_BLOCK_BYTES:
            reason = "{} records in {} bytes: a block has at most {}".format(
                count, length, MAX_BLOCK_BYTES
            )
            raise BlockError(reason, self._offset)
        if length < 4 * count:
            reason = "{} bytes cannot hold the lengths of {} records".format(length, count)
            raise BlockError(reason, self._offset)
        self._kind = kind
        self._first = first
        self._count = count
        return int(length)

    def _check_records(self, block: Block) -> None:
        said = 4 * block.total + sum(struct.unpack_from("<%dI" % block.total, block.body))
        if said != len(block.body):
            reason = "the record lengths add up to {} bytes and the block has {}".format(
                said, len(block.body)
            )
            raise BlockError(reason, self._offset)
