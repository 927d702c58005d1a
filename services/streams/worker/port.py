"""One port of a job: its socket as events, and what the machine wants written."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from services.streams import events
from services.streams.block import (
    FLAG_RING,
    FREE_ENTRY,
    HEADER,
    HEADER_BYTES,
    Block,
    BlockError,
    BlockReader,
    Body,
    Kind,
    header,
)
from services.streams.framing import FixedReader, LineReader
from services.streams.slots import SLOTS_MAX
from services.streams.worker.port_link import PortUse
from services.streams.worker.ring import Ring, slot_of
from services.streams.worker.ring_lease import RingLease, RingLeaseError
from shoal.spec import PortBinding, PortFormat

_DROPPED_BYTES = 64 * 1024


class PortReader(Protocol):
    """Cuts what comes from a port into blocks."""

    offset: int

    def buffer(self) -> memoryview:
        """Return where the next bytes go; never empty."""
        ...

    def filled(self, count: int) -> list[Block]:
        """Take `count` bytes that are in the buffer and return what is whole."""
        ...

    def finish(self) -> list[Block]:
        """End the byte stream and return what that made whole."""
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


def reader_of(binding: PortBinding, *, output: bool, ring: Ring | None = None) -> PortReader:
    """Return what reads the bytes that the job writes on a port, and the records in its ring.

    Raises:
        ValueError: The binding has a record size that cannot be.
    """
    match binding.format:
        case PortFormat.BLOCKS:
            return BlockReader(ring)
        case _ if not output:
            return _Ignored()
        case PortFormat.LINES | PortFormat.JSONL:
            return LineReader()
        case PortFormat.U32:
            return FixedReader(4)
        case PortFormat.BYTES:
            return FixedReader(binding.record_bytes)


class SocketEnd:
    """An end of a port that the keeper has passed on: a socket that does not block."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    async def connect(self, use: PortUse, post: Callable[[events.Event], None]) -> SocketPort:
        """See `PortEnd`."""
        port = SocketPort(use, post)
        await port.connect(self._end)
        return port

    def close(self) -> None:
        """See `PortEnd`."""
        self._end.close()


class SocketPort(asyncio.BufferedProtocol):
    """The socket of one port. Reading begins when the machine asks for it.

    A job that can is given the ring of its output with START, and on an input references to records
    in the rings of others instead of the records.

    Args:
        use: which port it is, and what travels on it.
        post: takes events.

    Raises:
        ValueError: The binding has a record size that cannot be.
    """

    def __init__(self, use: PortUse, post: Callable[[events.Event], None]) -> None:
        self._port = use.name
        self._output = use.output
        self._post = post
        self._ring: Ring | None = None
        if use.output and use.ring_bytes and use.binding.format is PortFormat.BLOCKS:
            # A system without such memory passes large records by the socket.
            with contextlib.suppress(OSError, AttributeError):
                self._ring = Ring(f"shoal.{use.name}", use.ring_bytes, self._give_back)
        self._ring_given = False
        self._ring_told = 0
        self._lease = None if use.output else RingLease(use.round_records, self._forget_ring)
        self._reader = reader_of(use.binding, output=use.output, ring=self._ring)
        self._socket: socket.socket | None = None
        self._transport: asyncio.Transport | None = None
        self._wanted = False
        self._refusing = False
        self._full = False
        self._writing = False
        self._ended = False
        self._lost = False

    async def connect(self, end: socket.socket) -> None:
        """Take the socket over."""
        self._socket = end
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self, sock=end)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hold the socket; nothing is read yet."""
        self._transport = cast("asyncio.Transport", transport)
        # Everything that is not in the hands of the kernel counts as not written.
        self._transport.set_write_buffer_limits(high=0)
        self._transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the loop puts what it reads."""
        del sizehint
        return memoryview(bytearray(_DROPPED_BYTES)) if self._refusing else self._reader.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        if self._refusing:
            return
        if not self._wanted and self._transport is not None:
            # uvloop begins to read once `connection_made` has returned, whatever that asked for.
            self._transport.pause_reading()
        try:
            blocks = self._reader.filled(nbytes)
        except BlockError as error:
            self.pause()
            self._post(events.PortViolation(self._port, self._output, error.offset, error.reason))
            return
        for block in blocks:
            if self._lease is not None and not self._heed(self._lease, block):
                continue
            self._post(events.PortBlock(self._port, self._output, block))
        self._done()

    def eof_received(self) -> bool:
        """Post the end of file; the other direction stays open."""
        self._end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Post that the socket is gone."""
        if exc is not None:
            self._read_the_rest()
        self._lost = True
        self._end()
        self._post(events.PortShut(self._port, self._output))

    def pause_writing(self) -> None:
        """Hold writes back: the job does not keep up."""
        self._full = True

    def resume_writing(self) -> None:
        """Post that everything is written."""
        self._full = False
        self._done()
        self._give_back()

    def read(self) -> None:
        """Begin to read, or go on."""
        self._wanted = True
        if self._transport is not None and not self._ended:
            self._transport.resume_reading()

    def pause(self) -> None:
        """Stop reading, so that the job blocks once its socket is full."""
        self._wanted = False
        if self._transport is not None and not self._ended and not self._refusing:
            self._transport.pause_reading()

    def write(self, parts: Sequence[Body]) -> None:
        """Write, and post PortWritten once everything is in the hands of the kernel."""
        if self._transport is None or self._lost or self._refusing:
            self._post(events.PortShut(self._port, self._output))
            return
        self._writing = True
        if self._ring is not None and not self._ring_given:
            self._ring_given = True
            parts = self._pass(parts, self._ring.descriptor)
        elif self._lease is not None and self._lease.wanted:
            parts = self._lend(self._lease, parts)
        if parts:
            self._transport.writelines(parts)
        self._done()

    def shut(self) -> None:
        """Show the job the end of file; the keeper's copy of the socket does not hold it back."""
        if self._transport is not None and not self._lost:
            self._transport.write_eof()

    def take_nothing_more(self) -> None:
        """Let the job know that no consumer wants what it writes.

        It sees the end of file, and EPIPE when it writes, because the socket itself is shut down,
        and not only our copy of it. What it has written already is read and dropped: a writer that waits for
        room is not woken by the shutdown.
        """
        self._refusing = True
        if self._transport is None or self._socket is None or self._lost:
            return
        self._transport.write_eof()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)
        self._transport.resume_reading()

    def close(self) -> None:
        """Let go of the socket; the keeper has its own copy."""
        self._lost = self._ended = True
        self.let_go()
        if self._ring is not None:
            self._ring.close()
        if self._transport is not None:
            self._transport.abort()

    def let_go(self) -> None:
        """Take back what was lent to the job: its program has ended."""
        if self._lease is not None:
            self._lease.end()

    def _read_the_rest(self) -> None:
        """Read what the job wrote before it closed its end without reading ours.

        The system reports that as an error (ECONNRESET, or EPIPE to a writer) before the bytes that
        are still there, and nothing more than these can come.
        """
        errors = 0
        while self._socket is not None and not self._ended and errors < 2:
            try:
                count = self._socket.recv_into(self._reader.buffer(), 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                errors += 1
                continue
            if not count:
                return
            self.buffer_updated(count)

    def _heed(self, lease: RingLease, block: Block) -> bool:
        """Take what a block says about a lease; return whether it says more than that."""
        match block.kind:
            case Kind.RING:
                lease.wanted = True
            case Kind.FREE:
                try:
                    lease.take_back(block.body)
                except RingLeaseError as error:
                    self.pause()
                    self._post(
                        events.PortViolation(
                            self._port, self._output, self._reader.offset, str(error)
                        )
                    )
            case Kind.ACK:
                lease.acknowledged(block.first)
                return True
            case _:
                return True
        return False

    def _lend(self, lease: RingLease, parts: Sequence[Body]) -> list[Body]:
        """Put references where whole records lie in rings, as far as the job may have more."""
        given: list[Body] = []
        for part in parts:
            slot = slot_of(part)
            head = given[-1] if given else b""
            # Every record in a ring is a block of its own; a raw format would have cut its header off.
            if slot is not None and isinstance(part, memoryview) and len(head) == HEADER_BYTES:
                number = lease.number(slot.ring)
                if not lease.holds(slot, number):
                    number = self._introduce(lease, slot.ring) if number is None else number
                    if number is not None:
                        _, _, _, count, first, _, _ = HEADER.unpack(head)
                        reference = lease.lend(number, slot, part, first + count)
                        given[-1] = HEADER.pack(
                            Kind.DATA, FLAG_RING, 0, count, first, len(reference), 0
                        )
                        given.append(reference)
                        continue
            given.append(part)
        return given

    def _introduce(self, lease: RingLease, ring: Ring) -> int | None:
        """Pass a ring to the job, if that is possible at once; return its number."""
        descriptor = ring.open_for_reading()
        if descriptor is None:
            return None
        number = lease.introduce(ring)
        said = self._ring_block(number, ring.size)
        try:
            rest = self._pass([said], descriptor)
        finally:
            os.close(descriptor)
        if rest and len(rest[0]) == len(said):
            lease.withdraw(number)
            return None
        if rest and self._transport is not None:
            self._transport.writelines(rest)
        return number

    def _forget_ring(self, number: int) -> None:
        if self._transport is not None and not self._lost:
            self._transport.write(self._ring_block(number, 0))

    def _ring_block(self, number: int, size: int) -> bytes:
        body = FREE_ENTRY.pack(number, size)
        return header(Block(Kind.RING, 0, 0, body)) + body

    def _give_back(self) -> None:
        """Write to the job which slots of its ring are free, unless it does not read."""
        silent = self._lost or self._full or self._refusing
        if self._ring is None or self._transport is None or silent:
            return
        offsets, taken = self._ring.freed(), self._ring.taken
        if not offsets and taken != self._ring_told:
            self._transport.write(header(Block(Kind.FREE, taken)))
        self._ring_told = taken
        for begin in range(0, len(offsets), SLOTS_MAX):
            some = offsets[begin : begin + SLOTS_MAX]
            body = b"".join([FREE_ENTRY.pack(0, offset) for offset in some])
            self._transport.write(header(Block(Kind.FREE, taken, 0, body)) + body)

    def _pass(self, parts: Sequence[Body], descriptor: int) -> list[bytes]:
        """Write with a descriptor beside it; return what is left to be written without."""
        data = b"".join(parts)
        if self._socket is None or self._transport is None:
            return [data]
        if self._transport.get_write_buffer_size():
            return [data]
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        try:
            sent = socket.send_fds(self._socket, [data], [descriptor], flags)
        except OSError:
            return [data]
        return [data[sent:]] if sent < len(data) else []

    def _done(self) -> None:
        if self._writing and not self._full and not (self._lease is not None and self._lease.full):
            self._writing = False
            self._post(events.PortWritten(self._port, self._output))

    def _end(self) -> None:
        if self._ended or self._refusing:
            return
        self._ended = True
        offset = self._reader.offset
        try:
            rest = tuple(self._reader.finish())
        except BlockError as error:
            self._post(events.PortClosed(self._port, self._output, error.offset, error.reason))
        else:
            self._post(events.PortClosed(self._port, self._output, offset, "", rest))
