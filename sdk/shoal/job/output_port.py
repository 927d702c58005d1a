"""An output port: packs records into blocks, and waits when the other end has no room."""

import sys
import threading
from typing import Any, Awaitable, Callable, Generator, List

from shoal.job.block import (
    END,
    MAX_BLOCK_BYTES,
    MAX_RECORD_BYTES,
    PROGRESS,
    START,
    BlockError,
    BlockReader,
    Buffer,
    data_head,
    encode_mark,
    encode_text,
)
from shoal.job.codec import Codec
from shoal.job.error import CodecError, PortError
from shoal.job.port_socket import WOULD_BLOCK, PortSocket, wait, wait_in_loop

OWN_BLOCK_BYTES = 64 * 1024
"""A record of at least this size travels in a block of its own, and is not copied."""
MAX_BACKLOG_BYTES = 4 * MAX_BLOCK_BYTES
"""A coroutine that does not await `send` may leave this much behind; then `send` itself waits."""


class OutputPort:
    """Send with `send(value)`, or `await send(value)` in a coroutine.

    Attributes:
        name: Name of the port.
        first: Sequence of the first record that this attempt sends; known once `started`.
        sequence: Sequence of the next record.
        started: Whether the worker has said where the port begins.
        ended: Whether no more can be sent.
    """

    def __init__(self, name: str, socket: PortSocket, codec: Codec, lock: threading.Lock) -> None:
        self.name = name
        self.socket = socket
        self.codec = codec
        self.first = 0
        self.sequence = 0
        self.started = False
        self.ended = False
        self._lock = lock
        self._lengths: List[int] = []
        self._pieces: List[Buffer] = []
        self._open_bytes = 0
        self._reader = BlockReader()
        self._begin: Any = None
        self._dirty: Any = None

    def follow(self, begin: Callable[[], None], dirty: Callable[[], None]) -> None:
        """Before the first record call `begin`, and `dirty` when something waits to be written."""
        self._begin = begin
        self._dirty = dirty

    def send(self, value: Any) -> Awaitable[None]:
        """Send one record; the result may be awaited, and in a coroutine should be.

        Outside an event loop it returns when there is room for the record. In one it returns at
        once, and awaiting it gives other tasks their turn until there is room; nothing is lost if
        it is not awaited.

        Raises:
            CodecError: The port's codec cannot send the value.
            PortError: The other end went away, or the port has ended.
        """
        try:
            pieces = self.codec.encode(value)
        except CodecError as error:
            raise CodecError("output port {!r}: {}".format(self.name, error)) from error
        size = 0
        for piece in pieces:
            size += len(piece)
        if size > MAX_RECORD_BYTES:
            raise CodecError(
                "output port {!r}: a record of {} bytes is over the limit of {}: send it in "
                "parts".format(self.name, size, MAX_RECORD_BYTES)
            )
        if not self.started:
            self._begin()
        with self._lock:
            if self.ended:
                raise PortError("{}: it has ended".format(self.socket.title))
            room = self._add(pieces, size)
        if room:
            return SENT
        if _in_event_loop() and self.socket.backlog_bytes <= MAX_BACKLOG_BYTES:
            with self._lock:
                self.socket.own()
            return _Sending(self)
        self._wait_for_room()
        return SENT

    def start(self) -> bool:
        """Read where the port begins, without waiting; whether it is known now.

        Raises:
            PortError: The other end broke the format or went away.
        """
        while not self.started:
            count = self.socket.read(self._reader.space())
            if count == WOULD_BLOCK:
                return False
            if count == 0:
                raise PortError(
                    "{}: the other end closed it before it began; the agent says why".format(
                        self.socket.title
                    )
                )
            try:
                block = self._reader.advance(count)
            except BlockError as error:
                raise BlockError(
                    "{}: {}".format(self.socket.title, error.reason), error.offset
                ) from error
            if block is None:
                continue
            if block.kind != START:
                raise PortError(
                    "{}: the first block is of kind {}, not START".format(
                        self.socket.title, block.kind
                    )
                )
            self.first = self.sequence = block.first
            self.started = True
        return True

    def write(self) -> bool:
        """Write what waits, as far as there is room, with the lock held; whether all is written."""
        self._close_block()
        return self.socket.write()

    def queue_progress(self, text: str) -> None:
        """Say how far the job is, with the lock held."""
        self._close_block()
        self.socket.queue(encode_text(PROGRESS, 0, text))

    def queue_end(self) -> None:
        """Say that this was all, with the lock held."""
        if not self.ended:
            self._close_block()
            self.ended = True
            self.socket.queue(encode_mark(END, self.sequence))

    async def drained(self) -> None:
        """Wait until everything is written, and let other tasks run."""
        while True:
            with self._lock:
                if self.socket.write():
                    return
            await wait_in_loop((), (self.socket,))

    def _add(self, pieces: List[Buffer], size: int) -> bool:
        """Take a record; False if the caller has to wait for room."""
        if size >= OWN_BLOCK_BYTES:
            self._close_block()
            self.socket.queue(data_head(self.sequence, (size,)))
            self.sequence += 1
            for piece in pieces if len(pieces) <= 16 else (b"".join(pieces),):
                self.socket.queue(piece)
            return self.socket.write()
        fits = self._open_bytes + 4 + size <= MAX_BLOCK_BYTES
        if not fits:
            self._close_block()
        if not self._lengths:
            self._dirty()
        self._lengths.append(size)
        for piece in pieces:
            # Small, and the caller may change it as soon as send returns.
            self._pieces.append(piece if type(piece) is bytes else bytes(piece))
        self._open_bytes += 4 + size
        self.sequence += 1
        return fits or self.socket.write()

    def _close_block(self) -> None:
        lengths = self._lengths
        if lengths:
            self.socket.queue(
                b"".join([data_head(self.sequence - len(lengths), lengths), *self._pieces])
            )
            self._lengths = []
            self._pieces = []
            self._open_bytes = 0

    def _wait_for_room(self) -> None:
        while True:
            with self._lock:
                if self.socket.write():
                    return
            wait((), (self.socket,))


class _Sent:
    """What `send` returns when there is nothing to wait for."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


class _Sending:
    """What `send` returns to a coroutine that should wait."""

    def __init__(self, port: OutputPort) -> None:
        self._port = port

    def __await__(self) -> Generator[Any, None, None]:
        return self._port.drained().__await__()


SENT = _Sent()


def _in_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")  # where it was never imported, no loop runs
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001
