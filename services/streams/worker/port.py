"""One port of a job: its socket as events, and what the machine wants written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from services.streams.block import Block, BlockError, BlockReader
from services.streams.event import (
    Event,
    PortBlock,
    PortClosed,
    PortShut,
    PortViolation,
    PortWritten,
)
from services.streams.framing import FixedReader, LineReader
from shoal.spec import PortBinding, PortFormat


class Reader(Protocol):
    """Cuts what comes from a port into blocks."""

    offset: int

    def buffer(self) -> memoryview:
        """Return where the next bytes go; never empty."""
        ...

    def filled(self, count: int) -> list[Block]:
        """Take note of `count` bytes in the buffer and return what is whole."""
        ...

    def finish(self) -> list[Block]:
        """Take note of the end of file and return what that made whole."""
        ...


class _Ignored:
    """Takes what a program writes to the socket of a raw input, which means nothing."""

    def __init__(self) -> None:
        self.offset = 0
        self._scratch = bytearray(4096)

    def buffer(self) -> memoryview:
        return memoryview(self._scratch)

    def filled(self, count: int) -> list[Block]:
        self.offset += count
        return []

    def finish(self) -> list[Block]:
        return []


def reader_of(binding: PortBinding, *, output: bool) -> Reader:
    """Return what reads the bytes that the job writes on a port.

    Raises:
        ValueError: The binding has a record size that cannot be.
    """
    match binding.format:
        case PortFormat.BLOCKS:
            return BlockReader()
        case _ if not output:
            return _Ignored()
        case PortFormat.LINES | PortFormat.JSONL:
            return LineReader()
        case PortFormat.U32:
            return FixedReader(4)
        case PortFormat.BYTES:
            return FixedReader(binding.record_bytes)


class PortLink(asyncio.BufferedProtocol):
    """The socket of one port. Reading begins when the machine asks for it.

    Args:
        port: name of the port.
        output: whether the job writes records to it.
        reader: cuts what the job writes.
        post: takes events.
    """

    def __init__(
        self, port: str, *, output: bool, reader: Reader, post: Callable[[Event], None]
    ) -> None:
        self._port = port
        self._output = output
        self._reader = reader
        self._post = post
        self._transport: asyncio.Transport | None = None
        self._full = False
        self._writing = False
        self._ended = False
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hold the socket; nothing is read yet."""
        self._transport = cast("asyncio.Transport", transport)
        # Everything that is not in the hands of the kernel counts as not written.
        self._transport.set_write_buffer_limits(high=0)
        self._transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the loop puts what it reads."""
        del sizehint
        return self._reader.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        try:
            blocks = self._reader.filled(nbytes)
        except BlockError as error:
            self.pause()
            self._post(PortViolation(self._port, self._output, error.offset, error.reason))
            return
        for block in blocks:
            self._post(PortBlock(self._port, self._output, block))

    def eof_received(self) -> bool:
        """Take note of the end of file; the other direction stays open."""
        self._end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the socket is gone."""
        del exc
        self._lost = True
        self._end()
        self._post(PortShut(self._port, self._output))

    def pause_writing(self) -> None:
        """Take note that the job does not keep up."""
        self._full = True

    def resume_writing(self) -> None:
        """Take note that everything is written."""
        self._full = False
        self._done()

    def read(self) -> None:
        """Begin to read, or go on."""
        if self._transport is not None and not self._ended:
            self._transport.resume_reading()

    def pause(self) -> None:
        """Stop reading, so that the job blocks once its socket is full."""
        if self._transport is not None and not self._ended:
            self._transport.pause_reading()

    def write(self, parts: Sequence[bytes]) -> None:
        """Write, and post PortWritten once everything is in the hands of the kernel."""
        if self._transport is None or self._lost:
            self._post(PortShut(self._port, self._output))
            return
        self._writing = True
        self._transport.writelines(parts)
        if not self._full:
            self._done()

    def shut(self) -> None:
        """Show the job the end of file; the keeper's copy of the socket does not hold it back."""
        if self._transport is not None and not self._lost:
            self._transport.write_eof()

    def close(self) -> None:
        """Let go of the socket; the keeper has its own copy."""
        self._lost = self._ended = True
        if self._transport is not None:
            self._transport.abort()

    def _done(self) -> None:
        if self._writing:
            self._writing = False
            self._post(PortWritten(self._port, self._output))

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        offset = self._reader.offset
        try:
            rest = tuple(self._reader.finish())
        except BlockError as error:
            self._post(PortClosed(self._port, self._output, error.offset, error.reason))
        else:
            self._post(PortClosed(self._port, self._output, offset, "", rest))
