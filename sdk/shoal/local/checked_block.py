"""Blocks as they travel between a client and the cluster: with CRC-32C (docs/architecture.md, 3)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import google_crc32c

from shoal.job.block import CHECKED, DATA, HEADER, MAX_BLOCK_BYTES, Block
from shoal.limits import PART_BYTES

LENGTH_MASK = 0x7FFF_FFFF
"""Bits of an entry of the table that are the record's length."""

# The package is without annotations of its own.
crc32c: Callable[[bytes], int] = cast("Any", google_crc32c).value


class BrokenBlockError(ValueError):
    """Bytes that are no block, or not the ones that were written."""


@dataclass(frozen=True, slots=True)
class Records:
    """Consecutive records: `body` is that of a DATA block, a table of u32 and then the records."""

    first: int
    count: int
    body: bytes

    @property
    def end(self) -> int:
        """Sequence after the last one."""
        return self.first + self.count

    def entries(self) -> tuple[int, ...]:
        """The table."""
        return struct.unpack_from(f"<{self.count}I", self.body)

    def payloads(self) -> list[bytes]:
        """The records without their headers."""
        block = Block(DATA, self.first, self.count, self.body, headed=True)
        return [bytes(record) for record in block.records()]

    def head(self, count: int) -> Records:
        """The first `count` records."""
        if count >= self.count:
            return self
        size = sum(entry & LENGTH_MASK for entry in self.entries()[:count])
        begin = 4 * self.count
        body = self.body[: 4 * count] + self.body[begin : begin + size]
        return Records(self.first, count, body)

    def without_head(self, skip: int) -> Records:
        """All but the first `skip` records."""
        if skip <= 0:
            return self
        cut = 4 * self.count + sum(entry & LENGTH_MASK for entry in self.entries()[:skip])
        body = self.body[4 * skip : 4 * self.count] + self.body[cut:]
        return Records(self.first + skip, self.count - skip, body)


def pack(first: int, records: Sequence[bytes]) -> list[Records]:
    """Pack records without headers, as many into one as a block may hold."""
    packed: list[Records] = []
    group: list[bytes] = []
    size = 0
    for record in records:
        if group and size + len(record) + 4 > MAX_BLOCK_BYTES:
            packed.append(_joined(first, group))
            first += len(group)
            group, size = [], 0
        group.append(record)
        size += len(record) + 4
    if group:
        packed.append(_joined(first, group))
    return packed


def sealed(kind: int, first: int, count: int, body: bytes) -> bytes:
    """Return a block with its checksum."""
    return HEADER.pack(kind, CHECKED, 0, count, first, len(body), crc32c(body)) + body


def opened(data: bytes) -> Records:
    """Read a whole DATA block.

    Raises:
        BrokenBlockError: It is none, or fails its checksum.
    """
    if len(data) < HEADER.size:
        raise BrokenBlockError(f"{len(data)} bytes are no block")
    kind, flags, _, count, first, length, crc = HEADER.unpack_from(data)
    body = data[HEADER.size :]
    if kind != DATA or len(body) != length or not count or 4 * count > length:
        raise BrokenBlockError(f"a block of kind {kind} with {len(body)} of {length} bytes")
    if not flags & CHECKED or crc32c(body) != crc:
        raise BrokenBlockError(f"the block at record {first} fails its checksum")
    records = Records(first, count, body)
    check_table(records)
    return records


def parts(block: bytes) -> Iterator[bytes]:
    """Cut a large block as it travels: each part has its offset in the body first (u32)."""
    size = len(block) - HEADER.size
    for offset in range(0, size, PART_BYTES):
        start = HEADER.size + offset if offset else 0
        end = HEADER.size + min(offset + PART_BYTES, size)
        yield offset.to_bytes(4, "little") + block[start:end]


def block_bytes(begun: bytes | bytearray) -> int:
    """Return how long a block will be, from its beginning."""
    return HEADER.size + int(HEADER.unpack_from(begun)[5])


def check_table(records: Records) -> None:
    """Check that the lengths add up.

    Raises:
        BrokenBlockError: They do not.
    """
    said = 4 * records.count + sum(entry & LENGTH_MASK for entry in records.entries())
    if said != len(records.body):
        raise BrokenBlockError(
            f"the lengths at record {records.first} add up to {said} of {len(records.body)} bytes"
        )


def _joined(first: int, records: Sequence[bytes]) -> Records:
    table = struct.pack(f"<{len(records)}I", *map(len, records))
    return Records(first, len(records), b"".join((table, *records)))
