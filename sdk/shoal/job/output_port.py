"""An output port: packs records into blocks, and waits when the other end has no room."""

import sys
import threading
from time import monotonic
from typing import (
    Any,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    List,
    Mapping,
    Optional,
    Tuple,
    cast,
)

from shoal.job import block as blocks
from shoal.job.block_reader import BlockReader
from shoal.job.codec import Codec, tag_of
from shoal.job.error import CodecError, HeaderError, PortError
from shoal.job.headers import KEY, HeadedRecord, Headers, encode_headers
from shoal.job.port_socket import PortSocket, closed, wait, wait_in_loop
from shoal.job.ring import RING_RECORD_BYTES, OutputRing, ring_of
from shoal.job.stop import CHECK_SECONDS, STOP

OWN_BLOCK_BYTES = 64 * 1024
"""A record of at least this size travels in a block of its own, and is not copied."""
FULL_BYTES = 120 * 1024
"""About so many bytes of small records are collected before they are written."""
GATHER_SECONDS = 0.001
"""Records are collected while the last ones were written less than this ago."""
BUSY_SECONDS = 0.1
"""The same after very many: a job that sends so much may have had to wait for a processor."""
MAX_BACKLOG_BYTES = 4 * blocks.MAX_BLOCK_BYTES
"""A coroutine that does not await `send` may leave this much behind; then `send` itself waits."""
_AT_ONCE = 512


class OutputPort:
    """Send with `send(value)`, or `await send(value)` in a coroutine; `send_many` sends a list.

    A record is written at once if none was written in the last millisecond, and else collected with
    those that follow, until they are many or the job waits for input. What then is left behind is
    written by the flusher.

    Attributes:
        name: Name of the port.
        first: Sequence of the first record that this attempt sends; known once `started`.
        started: Whether the worker has said where the port begins.
        ended: Whether no more can be sent.
        written_at: When records were last written, by the monotonic clock.
    """

    def __init__(
        self,
        name: str,
        socket: PortSocket,
        codec: Codec,
        lock: threading.Lock,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.name = name
        self.socket = socket
        self.first = 0
        self.started = False
        self.ended = False
        self.written_at = 0.0
        self._lock = lock
        self._clock = clock
        self._next = 0  # sequence of the first record that is collected
        # Threads append to it without the lock, and only from its head records are taken.
        self._collected: List[bytes] = []
        self._size = 0  # about how many bytes these are
        self._was_full = False
        self._limit = 0  # from so many on, `send` takes the long way; 0 whenever none are collected
        self._any_headed = False
        self._round: Optional[Headers] = None
        self._plain = False
        self._reader = BlockReader()
        self._ring: Optional[OutputRing] = None
        socket.takes_descriptors = socket.takes_ends = True
        self._begin: Any = None
        self._dirty: Any = None
        self.codec = codec

    @property
    def codec(self) -> Codec:
        """What makes records of values."""
        return self._codec

    @codec.setter
    def codec(self, codec: Codec) -> None:
        self._codec = codec
        self._tag = tag_of(codec) or b""
        self._plain = tag_of(codec) is not None and self._round is None

    @property
    def sent(self) -> int:
        """How many records were sent by this attempt; exact with the lock held."""
        return self._next + len(self._collected) - self.first

    @property
    def waiting(self) -> bool:
        """Whether records are collected and not written."""
        return bool(self._collected)

    def follow(self, begin: Callable[[], None], dirty: Callable[[], None]) -> None:
        """Before the first record call `begin`, and `dirty` when something waits to be written."""
        self._begin = begin
        self._dirty = dirty

    def carry(self, headers: Optional[Headers]) -> None:
        """Put these headers on every record from now on, as they are when it is sent; None: none."""
        self._round = headers
        self._plain = tag_of(self._codec) is not None and headers is None

    def send(
        self, value: Any, headers: Optional[Mapping[str, Any]] = None, key: Any = None
    ) -> Awaitable[None]:
        """Send one record; the result may be awaited, and in a coroutine should be.

        Outside an event loop it returns when there is room for the record. In one it returns at
        once, and awaiting it gives other tasks their turn until there is room; nothing is lost if
        it is not awaited.

        Args:
            value: What the port's codec takes.
            headers: Travel with the record, on top of those of the round: names and scalars.
            key: The header `key`: where the output is distributed by key, records with the same
                key go to the same replica.

        Raises:
            CodecError: The port's codec cannot send the value.
            HeaderError: The headers cannot be sent.
            OutputClosedError: No consumer wants what is sent here any more.
            PortError: The other end went away, or the port has ended.
        """
        if self._plain and type(value) is bytes and headers is None and key is None:
            if len(value) >= OWN_BLOCK_BYTES:
                return self._send_pieces(value, headers, key)
            record = self._tag + value  # no copy where there is no tag
        else:
            packed = self._pack(value, headers, key)
            if packed is None:
                return self._send_pieces(value, headers, key)
            record = packed
            if len(record) >= OWN_BLOCK_BYTES:
                return self._send_alone([record], len(record), headed=type(record) is HeadedRecord)
        size = len(record)
        # Appended before the limit is read: the taker of the records before has set it to 0,
        # so that this one is not forgotten.
        self._size = size = self._size + size + 4
        self._collected.append(record)
        if size < self._limit:
            return SENT
        return self._settle()

    def send_many(
        self,
        values: Iterable[Any],
        headers: Optional[Mapping[str, Any]] = None,
        key: Any = None,
    ) -> Awaitable[None]:
        """Send all values, each as one record; faster than `send` where they are a list of bytes.

        Raises:
            CodecError: The port's codec cannot send a value; those before it are sent.
            HeaderError: The headers cannot be sent.
            PortError: The other end went away, or the port has ended.
        """
        sent: Awaitable[None] = SENT
        if type(values) not in (list, tuple) or not self._plain or headers or key is not None:
            for value in values:
                sent = self.send(value, headers, key)
            return sent
        listed = cast(List[Any], values)
        for begin in range(0, len(listed), _AT_ONCE):
            some = listed[begin : begin + _AT_ONCE]
            if set(map(type, some)) == {bytes} and max(map(len, some)) < OWN_BLOCK_BYTES:
                self._size = size = self._size + sum(map(len, some)) + 5 * len(some)
                tag = self._tag
                self._collected.extend([tag + one for one in some] if tag else some)
                if size >= self._limit:
                    sent = self._settle()
            else:
                for value in some:
                    sent = self.send(value)
        return sent

    def start(self) -> bool:
        """Read where the port begins, without waiting; whether it is known now.

        Raises:
            OutputClosedError: No consumer wants what is sent here.
            PortError: The other end broke the format or went away.
        """
        if not self.started:
            block = self._reader.receive(self.socket, lambda: closed(self.socket))
            if block is None:
                return False
            if block.kind != blocks.START:
                raise PortError(
                    "{}: the first block is of kind {}, not START".format(
                        self.socket.title, block.kind
                    )
                )
            self.first = self._next = block.first
            self._ring = ring_of(self.socket)
            self.started = True
        return True

    def write(self) -> bool:
        """Write what waits, as far as there is room, with the lock held; whether all is written."""
        if self._collected:
            self._queue_collected()
            self.written_at = self._clock()
        return self.socket.write()

    def queue_progress(self, text: str) -> None:
        """Say how far the job is, with the lock held."""
        self._queue_collected()
        self.socket.queue(blocks.encode_text(blocks.PROGRESS, 0, text))

    def queue_end(self) -> None:
        """Say that this was all, with the lock held."""
        if not self.ended:
            self._queue_collected()
            self.ended = True
            self.socket.queue(blocks.encode_mark(blocks.END, self._next))

    async def drained(self) -> None:
        """Wait until everything is written, and let other tasks run."""
        while True:
            with self._lock:
                if self._has_room():
                    return
                readable, writable = self._in_the_way()
            await wait_in_loop(readable, writable)

    def _pack(self, value: Any, headers: Optional[Mapping[str, Any]], key: Any) -> Optional[bytes]:
        """The record in one piece; None if it is better not made one."""
        try:
            record = self._codec.pack(value)
        except CodecError as error:
            raise CodecError("output port {!r}: {}".format(self.name, error)) from error
        head = self._head(headers, key)
        if record is None or not head:
            return record
        if len(record) >= OWN_BLOCK_BYTES:
            return None
        self._any_headed = True
        return HeadedRecord(head + record)

    def _head(self, headers: Optional[Mapping[str, Any]], key: Any) -> bytes:
        """What stands before a record: all its headers, or nothing."""
        if headers is None and key is None and not self._round:
            return b""
        together = dict(self._round or {})
        together.update(headers or {})
        if key is not None:
            together[KEY] = key
        if not together:
            return b""
        try:
            return encode_headers(together)
        except HeaderError as error:
            raise HeaderError("output port {!r}: {}".format(self.name, error)) from error

    def _send_pieces(
        self, value: Any, headers: Optional[Mapping[str, Any]], key: Any
    ) -> Awaitable[None]:
        try:
            pieces = self._codec.encode(value)
        except CodecError as error:
            raise CodecError("output port {!r}: {}".format(self.name, error)) from error
        head = self._head(headers, key)
        size = len(head)
        for piece in pieces:
            size += len(piece)
        if size >= OWN_BLOCK_BYTES:
            return self._send_alone([head, *pieces] if head else pieces, size, headed=bool(head))
        # Small, and the caller may change it as soon as send returns.
        record = b"".join([head, *pieces])
        if head:
            self._any_headed = True
            record = HeadedRecord(record)
        self._size += size + 4
        self._collected.append(record)
        return SENT if self._size < self._limit else self._settle()

    def _send_alone(
        self, pieces: List[blocks.Buffer], size: int, *, headed: bool
    ) -> Awaitable[None]:
        """Send a large record, which is not copied."""
        if size > blocks.MAX_RECORD_BYTES:
            raise CodecError(
                "output port {!r}: a record of {} bytes is over the limit of {}: send it in "
                "parts".format(self.name, size, blocks.MAX_RECORD_BYTES)
            )
        if not self.started:
            self._begin()
        with self._lock:
            if self.ended:
                raise PortError("{}: it has ended".format(self.socket.title))
            self._queue_collected()
            entry = size | blocks.HEADED if headed else size
            lies = None
            if self._ring is not None and size >= RING_RECORD_BYTES:
                lies = self._ring.put(self._next, entry, pieces, size)
            if lies is not None:
                self.socket.queue(lies)
            else:
                self.socket.queue(blocks.data_head(self._next, (entry,)))
                for piece in pieces if len(pieces) <= 16 else (b"".join(pieces),):
                    self.socket.queue(piece)
            self._next += 1
            self.written_at = self._clock()
            room = self._has_room()
        return SENT if room else self._wait_for_room()

    def _settle(self) -> Awaitable[None]:
        """Write what is collected, or have another thread write it."""
        if not self.started:
            self._begin()
        with self._lock:
            if self.ended:
                self._collected.clear()
                raise PortError("{}: it has ended".format(self.socket.title))
            now = self._clock()
            full = self._size >= FULL_BYTES
            pause = BUSY_SECONDS if self._was_full else GATHER_SECONDS
            if full or (now - self.written_at >= pause and self.socket.written):
                self._was_full = full
                self._queue_collected()
                self.written_at = now
                written = self.socket.write()
                if written:
                    return SENT
            else:
                self._limit = FULL_BYTES
        if full:
            return self._wait_for_room()
        self._dirty()
        return SENT

    def _queue_collected(self) -> None:
        """Make blocks of what is collected, with the lock held."""
        self._limit = self._size = 0
        count = len(self._collected)
        if count and self.started:
            records = self._collected[:count]
            del self._collected[:count]
            self._queue_blocks(records)

    def _queue_blocks(self, records: List[bytes]) -> None:
        count = len(records)
        if count == 1:
            self._queue_lone(records[0])
            return
        data = b"".join(records)
        if 4 * count + len(data) > blocks.MAX_BLOCK_BYTES:
            self._queue_blocks(records[: count // 2])
            self._queue_blocks(records[count // 2 :])
            return
        lengths = list(map(len, records))
        if self._any_headed:
            for index, record in enumerate(records):
                if type(record) is HeadedRecord:
                    lengths[index] |= blocks.HEADED
        self.socket.queue(blocks.data_head(self._next, lengths))
        self.socket.queue(data)
        self._next += count

    def _queue_lone(self, record: bytes) -> None:
        size = len(record)
        entry = size | blocks.HEADED if type(record) is HeadedRecord else size
        head = blocks.LONE_HEAD.pack(blocks.DATA, 0, 0, 1, self._next, 4 + size, 0, entry)
        self.socket.queue(head + record)
        self._next += 1

    def _wait_for_room(self) -> Awaitable[None]:
        if _in_event_loop() and self.socket.backlog_bytes <= MAX_BACKLOG_BYTES:
            with self._lock:
                self.socket.own()
            return _Sending(self)
        while True:
            with self._lock:
                if self._has_room():
                    return SENT
                readable, writable = self._in_the_way()
            wait(readable, writable, CHECK_SECONDS if STOP.heard else -1)
            STOP.check()

    def _has_room(self) -> bool:
        """Whether everything is written, and the worker keeps up with what lies in the ring."""
        if not self.socket.write() or (self._ring and self._ring.ahead):
            return False
        # A program that had to wait for room is not idle: what follows is collected, not written by itself.
        self.written_at = self._clock()
        return True

    def _in_the_way(self) -> Tuple[List[PortSocket], List[PortSocket]]:
        """What to read and what to write before there is room."""
        if self.socket.written:
            return [self.socket], []  # the worker says when it has taken something
        return [], [self.socket]


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
