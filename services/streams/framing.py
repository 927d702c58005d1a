"""Raw formats: plain bytes of programs that know nothing of blocks, cut into records and back.

`lines` and `jsonl`: a record is a line without its newline. `u32`: four bytes. `bytes`: a fixed size.
"""

import struct

from services.streams.block import (
    BLOCK_BYTES_MAX,
    Block,
    BlockError,
    Kind,
    lengths,
    pack,
    plain,
    unpack,
    without_headers,
)
from services.streams.large_body import LargeBody
from shoal.limits import RECORD_BYTES_MAX
from shoal.spec import PortFormat

_READ_BYTES = 256 * 1024


class RecordError(ValueError):
    """A record that a raw format cannot carry."""


class LineReader:
    """Cuts lines out of plain bytes; the last one may lack its newline."""

    def __init__(self) -> None:
        self._scratch = bytearray(_READ_BYTES)
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._records = 0
        self.offset = 0
        """Where the line that is being read begins in the byte stream."""

    def buffer(self) -> memoryview:
        """Return where the next bytes go; never empty."""
        return memoryview(self._scratch)

    def filled(self, count: int) -> list[Block]:
        """Take `count` bytes that are in the buffer and return whole lines as DATA blocks.

        Raises:
            BlockError: A line is above the limit of a record.
        """
        data = bytes(memoryview(self._scratch)[:count])
        cut = data.rfind(b"\n")
        if cut < 0:
            self._keep(data)
            return []
        if self._rest_bytes > BLOCK_BYTES_MAX:
            first = data.find(b"\n")
            blocks = [self._large(data[:first])]
            text = data[first + 1 : cut + 1]
        else:
            blocks = []
            text = b"".join([*self._rest, data[: cut + 1]])
            self._rest.clear()
            self._rest_bytes = 0
        self.offset += len(text)
        if text:
            blocks += self._blocks(text[:-1].split(b"\n"))
        self._keep(data[cut + 1 :])
        return blocks

    def finish(self) -> list[Block]:
        """Return what is left at the end of the byte stream: a line without newline is a record."""
        if not self._rest_bytes:
            return []
        if self._rest_bytes > BLOCK_BYTES_MAX:
            return [self._large(b"", newline=0)]
        record = b"".join(self._rest)
        self._rest.clear()
        self._rest_bytes = 0
        self.offset += len(record)
        return self._blocks([record])

    def _keep(self, data: bytes) -> None:
        if data:
            self._rest.append(data)
            self._rest_bytes += len(data)
        self._check_rest()

    def _large(self, last: bytes, *, newline: int = 1) -> Block:
        """Return a line of many pieces in a block of its own, which copies it once."""
        self._rest.append(last)
        self._rest_bytes += len(last)
        self._check_rest()
        size = self._rest_bytes
        body = b"".join([struct.pack("<I", size), *self._rest])
        self._rest.clear()
        self._rest_bytes = 0
        self.offset += size + newline
        block = Block(Kind.DATA, self._records, 1, body)
        self._records += 1
        return block

    def _check_rest(self) -> None:
        if self._rest_bytes > RECORD_BYTES_MAX:
            raise BlockError(
                self.offset,
                f"a line of more than {RECORD_BYTES_MAX} bytes; is a newline missing?",
            )

    def _blocks(self, records: list[bytes]) -> list[Block]:
        blocks: list[Block] = []
        size = 0
        group: list[bytes] = []
        for record in records:
            if group and size + len(record) + 4 > BLOCK_BYTES_MAX:
                blocks.append(self._block(group))
                group, size = [], 0
            group.append(record)
            size += len(record) + 4
        blocks.append(self._block(group))
        return blocks

    def _block(self, records: list[bytes]) -> Block:
        block = Block(Kind.DATA, self._records, len(records), pack(records))
        self._records += len(records)
        return block


class FixedReader:
    """Cuts records of one size, in bytes, out of plain bytes.

    Raises:
        ValueError: The size is not from 1 to the limit of a record.
    """

    def __init__(self, record_bytes: int) -> None:
        if not 1 <= record_bytes <= RECORD_BYTES_MAX:
            raise ValueError(
                f"record_bytes is {record_bytes}; it has to be from 1 to {RECORD_BYTES_MAX}"
            )
        self._record_bytes = record_bytes
        self._scratch = bytearray(_READ_BYTES)
        self._large: LargeBody | None = None
        self._have = 0
        self._records = 0
        # With its length table, a block of small records has to stay within its limit.
        self._per_block = max(1, BLOCK_BYTES_MAX // (record_bytes + 4))
        self.offset = 0
        """Where the record that is being read begins in the byte stream."""

    def buffer(self) -> memoryview:
        """Return where the next bytes go; never empty."""
        view = memoryview(self._scratch)
        if self._record_bytes > _READ_BYTES:
            return view[: self._record_bytes if self._large is None else self._large.missing]
        return view[self._have :]

    def filled(self, count: int) -> list[Block]:
        """Take `count` bytes that are in the buffer and return whole records as DATA blocks."""
        size = self._record_bytes
        if size > _READ_BYTES:
            return self._filled_large(count)
        self._have += count
        whole = self._have // size
        blocks: list[Block] = []
        with memoryview(self._scratch) as view:
            for at in range(0, whole, self._per_block):
                number = min(self._per_block, whole - at)
                data = bytes(view[at * size : (at + number) * size])
                table = struct.pack("<I", size) * number
                blocks.append(Block(Kind.DATA, self._records, number, table + data))
                self._records += number
            rest = bytes(view[whole * size : self._have])
        self._scratch[: len(rest)] = rest
        self._have = len(rest)
        self.offset += whole * size
        return blocks

    def finish(self) -> list[Block]:
        """End the byte stream.

        Raises:
            BlockError: It ended within a record.
        """
        have = self._have if self._large is None else self._large.filled - 4
        if have:
            raise BlockError(
                self.offset,
                f"the port ended {have} bytes into a record of {self._record_bytes}; "
                "bytes:1 carries any number of bytes",
            )
        return []

    def _filled_large(self, count: int) -> list[Block]:
        if self._large is None:
            self._large = LargeBody(4 + self._record_bytes)
            self._large.add(struct.pack("<I", self._record_bytes))
        body = self._large
        body.add(bytes(memoryview(self._scratch)[:count]))
        if body.missing:
            return []
        self._large = None
        block = Block(Kind.DATA, self._records, 1, body.take(), body.crc)
        self._records += 1
        self.offset += self._record_bytes
        return [block]


def render(port_format: PortFormat, record_bytes: int, block: Block) -> bytes:
    """Return the records of a DATA block as a program with a raw format reads them: no headers.

    Raises:
        RecordError: A record does not fit the format.
    """
    match port_format:
        case PortFormat.LINES | PortFormat.JSONL:
            return _as_lines(port_format, block)
        case PortFormat.U32:
            return _as_fixed(4, block)
        case PortFormat.BYTES:
            return _as_fixed(record_bytes, block)
        case PortFormat.BLOCKS:
            raise ValueError("blocks are no raw format")


def _as_lines(port_format: PortFormat, block: Block) -> bytes:
    block = without_headers(block)
    body = plain(block.body)
    if body.find(b"\n", 4 * block.count) >= 0:
        raise RecordError(
            f"a record from {block.first} to {block.first + block.count - 1} holds a newline, "
            f"which {port_format.value} cannot carry; use blocks"
        )
    return b"\n".join([*unpack(block), b""])


def _as_fixed(size: int, block: Block) -> bytes:
    table = 4 * block.count
    if block.body[:table] != struct.pack("<I", size) * block.count:
        block = without_headers(block)
        for index, length in enumerate(lengths(block)):
            if length != size:
                raise RecordError(
                    f"record {block.first + index} has {length} bytes, and the port takes {size}"
                )
    return plain(block.body)[table:]
