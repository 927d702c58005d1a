"""Cuts what comes on a port into blocks."""

import struct
from typing import Callable, List, Optional

from shoal.job import block as blocks
from shoal.job.error import PortError
from shoal.job.port_socket import WOULD_BLOCK, PortSocket

_SCRATCH_BYTES = blocks.MAX_BLOCK_BYTES + 64 * 1024
_ALONE_BYTES = 64 * 1024
"""A record of at least this size is read into memory of its own, where it stays."""


class Rings:
    """Where records lie that are not in the stream of bytes."""

    def body(self, reference: blocks.Buffer) -> memoryview:
        """The body of the block in whose place `reference` came.

        Raises:
            ValueError: It does not lie there.
        """
        raise ValueError("there is no ring, and {} bytes refer to one".format(len(reference)))


class BlockReader:
    """Cuts a stream of bytes into blocks, however they arrive.

    Receive into `space()`, say with `advance()` how much came, and take blocks with `next()` until
    there is none. Many small blocks come with one read; a large record is read into its place.
    `feed` does all of that for bytes that are there already.
    """

    def __init__(self) -> None:
        self._scratch = bytearray()
        self._view = memoryview(self._scratch)
        self._start: int = 0
        self._end: int = 0
        self._large: Optional[bytearray] = None
        self._filled: int = 0
        self._kind = 0
        self._first = 0
        self._count = 0
        self._alone = False
        self._lent = False
        self._offset = 0
        self.rings: Optional[Rings] = None
        """Where records lie that are not in the stream of bytes, if there are such."""

    @property
    def inside(self) -> bool:
        """Whether a block has begun and is not complete: the stream must not end here."""
        return self._end > self._start or self._large is not None

    @property
    def offset(self) -> int:
        """Bytes of all the blocks before this one."""
        return self._offset

    def space(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        if self._large is not None:
            return memoryview(self._large)[self._filled :]
        if not self._scratch:
            self._scratch = bytearray(_SCRATCH_BYTES)
            self._view = memoryview(self._scratch)
        if self._alone and self._end < blocks.HEADER.size:
            # After a large record another one is likely: what is read beyond its header would have
            # to be copied.
            return self._view[self._end : blocks.HEADER.size + 4]
        return self._view[self._end :]

    def advance(self, count: int) -> None:
        """Count `count` bytes in that were put into `space()`."""
        if self._large is not None:
            self._filled += count
        else:
            self._end += count

    def next(self) -> Optional[blocks.Block]:
        """The next block, if it is complete.

        Raises:
            BlockError: The header or body breaks the format.
        """
        if self._large is not None:
            if self._filled < len(self._large):
                return None
            body, self._large = memoryview(self._large), None
            return self._block(body)
        begin = self._start + blocks.HEADER.size
        if begin > self._end:
            self._compact()
            return None
        length = self._begin()
        self._alone = self._count == 1 and length >= _ALONE_BYTES
        end = begin + length
        if self._alone or begin + length - self._start > _SCRATCH_BYTES:
            self._large = bytearray(length)
            self._filled = min(length, self._end - begin)
            self._large[: self._filled] = self._view[begin : begin + self._filled]
            self._start = begin + self._filled
            self._compact()
            return self.next()
        if end > self._end:
            self._compact()
            return None
        self._start = end
        if self._count > 1:
            return self._block(bytes(self._view[begin:end]))
        return self._block(memoryview(bytearray(self._view[begin:end])))

    def receive(
        self, socket: PortSocket, broken_off: Callable[[], PortError]
    ) -> Optional[blocks.Block]:
        """The next block of a socket, without waiting; None if that would mean to wait.

        Raises:
            BlockError: The header or body breaks the format.
            PortError: The other end went away; with the end of the stream, what `broken_off` says.
        """
        while True:
            try:
                block = self.next()
            except blocks.BlockError as error:
                raise blocks.BlockError(
                    "{}: {}".format(socket.title, error.reason), error.offset
                ) from error
            if block is not None:
                return block
            count = socket.read(self.space())
            if count == WOULD_BLOCK:
                return None
            if count == 0:
                raise broken_off()
            self.advance(count)

    def feed(self, data: blocks.Buffer) -> List[blocks.Block]:
        """All blocks that are complete with `data`, which is copied.

        Raises:
            BlockError: The bytes break the format.
        """
        rest = memoryview(data)
        found: List[blocks.Block] = []
        while rest:
            space = self.space()
            size = min(len(space), len(rest))
            space[:size] = rest[:size]
            rest = rest[size:]
            self.advance(size)
            block = self.next()
            while block is not None:
                found.append(block)
                block = self.next()
        return found

    def _block(self, body: blocks.Buffer) -> blocks.Block:
        size = len(body)
        if self._lent and self.rings is not None:
            try:
                body = self.rings.body(body)
            except ValueError as error:
                raise self._broken(str(error)) from error
        headed = self._kind == blocks.DATA and self._check_records(body)
        self._offset += blocks.HEADER.size + size
        return blocks.Block(self._kind, self._first, self._count, body, headed)

    def _compact(self) -> None:
        have = self._end - self._start
        if have and self._start:
            self._scratch[:have] = self._scratch[self._start : self._end]
        self._start, self._end = 0, have

    def _begin(self) -> int:
        kind, flags, _reserved, count, first, length, _crc = blocks.HEADER.unpack_from(
            self._scratch, self._start
        )
        if kind not in blocks.KINDS:
            raise self._broken("no block begins with kind {}".format(kind))
        self._lent = bool(flags & blocks.IN_RING)
        if flags & ~(blocks.CHECKED | blocks.IN_RING) or (
            self._lent and (self.rings is None or kind != blocks.DATA or count != 1 or length != 16)
        ):
            raise self._broken("unknown flags 0x{:02x}".format(flags))
        if kind != blocks.DATA:
            if count:
                raise self._broken("a block of kind {} has no records".format(kind))
            if length and kind in (blocks.END, blocks.ACK):
                raise self._broken("a block of kind {} has no body".format(kind))
            if length > blocks.MAX_BLOCK_BYTES:
                raise self._broken("a body of {} bytes is too long".format(length))
        elif count == 0:
            raise self._broken("a block of data without records")
        elif count == 1:
            if length > blocks.MAX_RECORD_BYTES + 4:
                raise self._broken(
                    "a record of {} bytes is over the limit of {}".format(
                        length - 4, blocks.MAX_RECORD_BYTES
                    )
                )
        elif length > blocks.MAX_BLOCK_BYTES:
            raise self._broken(
                "{} records in {} bytes: a block has at most {}".format(
                    count, length, blocks.MAX_BLOCK_BYTES
                )
            )
        if length < 4 * count:
            raise self._broken(
                "{} bytes cannot hold the lengths of {} records".format(length, count)
            )
        self._kind, self._first, self._count = kind, first, count
        return int(length)

    def _check_records(self, body: blocks.Buffer) -> bool:
        """Whether any record has headers.

        Raises:
            BlockError: The lengths do not add up, or headers do not fit into their record.
        """
        table = 4 * self._count
        have = len(body) - table
        if self._count > 1 and body[:table] == bytes(body[:4]) * self._count:
            (size,) = struct.unpack_from("<I", body)
            if size * self._count == have:
                return False
        lengths = struct.unpack_from("<%dI" % self._count, body)
        if sum(lengths) == have:
            return False
        said = sum([length & ~blocks.HEADED for length in lengths])
        if said != have:
            raise self._broken(
                "the record lengths add up to {} bytes and the block has {}".format(
                    said + table, len(body)
                )
            )
        position = table
        for length in lengths:
            size = length & ~blocks.HEADED
            if length & blocks.HEADED:
                self._check_headers(body, position, size)
            position += size
        return True

    def _check_headers(self, body: blocks.Buffer, position: int, size: int) -> None:
        if size >= blocks.HEADERS_SIZE.size:
            (headers,) = blocks.HEADERS_SIZE.unpack_from(body, position)
            if headers <= min(blocks.MAX_HEADERS_BYTES, size - blocks.HEADERS_SIZE.size):
                return
            reason = "headers of {} bytes in a record of {}".format(headers, size)
        else:
            reason = "a record of {} bytes cannot hold the size of its headers".format(size)
        raise self._broken(reason)

    def _broken(self, reason: str) -> blocks.BlockError:
        return blocks.BlockError(reason, self._offset)
