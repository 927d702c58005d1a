"""Large blocks in parts, as they travel between nodes, and whole again.

A part is the offset of its bytes in the body (u32, little-endian), for offset 0 the header of the
block (24 bytes, with its checksum), then bytes of the body. The parts of a block follow one another
on its call, and nothing of that call comes between them.
"""

import struct
from collections.abc import Iterator

from services.streams.block import (
    FLAG_CRC,
    HEADER,
    HEADER_BYTES,
    Block,
    BlockError,
    Kind,
    check_header,
    lengths,
)
from services.streams.large_body import LargeBody
from shoal.limits import PART_BYTES, PART_BYTES_MAX

OFFSET = struct.Struct("<I")


def ranges(size: int) -> Iterator[tuple[int, int]]:
    """Yield the offset and the length of each part of a body of `size` bytes."""
    step = -(-size // max(1, size // PART_BYTES))
    for offset in range(0, size, step):
        yield offset, min(step, size - offset)


class Assembler:
    """Puts the parts of one call together, one block after the other."""

    def __init__(self) -> None:
        self._header = (0, 0, 0)
        self._body: LargeBody | None = None

    @property
    def busy(self) -> bool:
        """Whether a block has begun and is not whole yet."""
        return self._body is not None

    def part(self, data: bytes, at: int = 0) -> Block | None:
        """Take the part from `at` to the end of `data`; return the block that it makes whole.

        Raises:
            BlockError: It is not the part that has to come next, or the block breaks a limit or
                fails its checksum. The assembler is of no use afterwards.
        """
        if len(data) - at <= OFFSET.size:
            raise BlockError(0, f"a part of {len(data) - at} bytes holds nothing")
        (offset,) = OFFSET.unpack_from(data, at)
        at += OFFSET.size
        body = self._body
        expected = 0 if body is None else body.filled
        if offset != expected:
            raise BlockError(offset, f"a part begins at {offset}, the next one is {expected}")
        if body is None:
            body = self._body = self._begin(data, at)
            at += HEADER_BYTES
        have = len(data) - at
        if have >= PART_BYTES_MAX:
            raise BlockError(offset, f"a part of {have} bytes; less than {PART_BYTES_MAX} may come")
        if have > body.missing:
            raise BlockError(
                offset, f"a part of {have} bytes, and {body.missing} are missing of the block"
            )
        body.add_tail(data, at)
        return None if body.missing else self._whole(body)

    def _begin(self, data: bytes, at: int) -> LargeBody:
        if len(data) - at <= HEADER_BYTES:
            raise BlockError(0, f"a first part of {len(data) - at} bytes holds no header and body")
        kind, flags, _, count, first, length, crc = HEADER.unpack_from(data, at)
        check_header(0, kind, count, length)
        if kind != Kind.DATA:
            raise BlockError(0, f"{Kind(kind).name} comes in parts; only DATA may")
        if not flags & FLAG_CRC:
            raise BlockError(0, "a block between nodes has no checksum")
        self._header = (count, first, crc)
        return LargeBody(length)

    def _whole(self, body: LargeBody) -> Block:
        count, first, crc = self._header
        self._body = None
        if body.crc != crc:
            raise BlockError(0, f"CRC-32C of the body is {body.crc:08x}, the header says {crc:08x}")
        block = Block(Kind.DATA, first, count, body.take(), crc)
        lengths(block)
        return block
