"""An input port: records come one by one, or `block_count` at a time, and are acknowledged."""

import json
from collections import deque
from typing import Any, AsyncIterator, Callable, Deque, Iterator

from shoal.job.block import (
    ACK,
    DATA,
    END,
    PROGRESS,
    START,
    Block,
    BlockError,
    BlockReader,
    encode_mark,
    encode_text,
)
from shoal.job.codec import Codec
from shoal.job.error import CodecError, PortError
from shoal.job.port_socket import WOULD_BLOCK, PortSocket


class InputPort:
    """Iterate over it (`for` or `async for`) in stream style; `main` functions never see it.

    A record counts as processed once the next one is asked for, or at the end of the program.

    Attributes:
        name: Name of the port.
        block_count: How many records are handed over at a time.
        first: Sequence of the first record, from 0; known once the port is `started`.
        position: Sequence of the next record that will be handed over.
        processed: All records below this sequence are processed.
        started: Whether the worker has said where the port begins.
        ended: Whether the last record has arrived (not: was handed over).
    """

    def __init__(self, name: str, socket: PortSocket, codec: Codec, block_count: int) -> None:
        self.name = name
        self.socket = socket
        self.codec = codec
        self.block_count = block_count
        self.first = 0
        self.position = 0
        self.processed = 0
        self.started = False
        self.ended = False
        self._acknowledged = 0
        self._arrived = 0  # sequence after the last record that came
        self._records: Deque[memoryview] = deque()
        self._reader = BlockReader()
        self._take: Any = None
        self._take_async: Any = None

    def follow(
        self, take: Callable[["InputPort"], Any], take_async: Callable[["InputPort"], Any]
    ) -> None:
        """Let iteration take its rounds this way; said once by the streams of the process."""
        self._take = take
        self._take_async = take_async

    @property
    def ready(self) -> bool:
        """Whether a round can be handed over: enough records, or the last few."""
        count = len(self._records)
        return count >= self.block_count or (count > 0 and self.ended)

    @property
    def exhausted(self) -> bool:
        """Whether everything was handed over."""
        return self.ended and not self._records

    @property
    def rounds_begun(self) -> int:
        """How many rounds were handed over by this attempt; a short last one counts."""
        return -(-(self.position - self.first) // self.block_count)

    @property
    def waiting(self) -> int:
        """How many records have arrived and were not handed over."""
        return len(self._records)

    def fill(self) -> bool:
        """Read what is there, without waiting, until a round is ready; whether it is, or never will be.

        Raises:
            PortError: The other end broke the format or went away.
        """
        while not self.ready:
            if self.ended:
                return True
            if not self._read_block():
                return False
        return True

    def start(self) -> bool:
        """Read where the port begins, without waiting; whether it is known now.

        Raises:
            PortError: The other end broke the format or went away.
        """
        while not self.started:
            if not self._read_block():
                return False
        return True

    def take(self) -> Any:
        """The next record, or a list where `block_count` is above 1 (the last one may be shorter).

        Raises:
            CodecError: The record cannot be read.
        """
        if self.block_count == 1:
            return self._decode()
        count = min(self.block_count, len(self._records))
        return [self._decode() for _ in range(count)]

    def queue_ack(self, below: int) -> None:
        """Acknowledge what is below that sequence, if it is new."""
        if below > self._acknowledged:
            self._acknowledged = below
            self.socket.queue(encode_mark(ACK, below))

    def queue_progress(self, text: str) -> None:
        """Say how far the job is."""
        self.socket.queue(encode_text(PROGRESS, 0, text))

    def __iter__(self) -> Iterator[Any]:
        """Records in order until the stream ends."""
        while True:
            found, value = self._take(self)
            if not found:
                return
            yield value

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Records in order until the stream ends; other tasks run while none is there."""
        while True:
            found, value = await self._take_async(self)
            if not found:
                return
            yield value

    def _decode(self) -> Any:
        record = self._records.popleft()
        try:
            value = self.codec.decode(record)
        except CodecError as error:
            raise CodecError(
                "input port {!r}, record {}: {}".format(self.name, self.position, error)
            ) from error
        self.position += 1
        return value

    def _read_block(self) -> bool:
        """Read one block; False if that would mean to wait."""
        reader = self._reader
        while True:
            count = self.socket.read(reader.space())
            if count == WOULD_BLOCK:
                return False
            if count == 0:
                raise PortError(
                    "{}: the stream broke off {} byte {}, without its end; the agent says why".format(
                        self.socket.title,
                        "in the middle of the block at" if reader.inside else "at",
                        reader.offset,
                    )
                )
            try:
                block = reader.advance(count)
            except BlockError as error:
                raise BlockError(
                    "{}: {}".format(self.socket.title, error.reason), error.offset
                ) from error
            if block is not None:
                self._handle(block)
                return True

    def _handle(self, block: Block) -> None:
        if not self.started:
            if block.kind != START:
                raise self._broken("the first block is of kind {}, not START".format(block.kind))
            self.first = self.position = self.processed = block.first
            self._acknowledged = self._arrived = block.first
            self.started = True
            self._read_start(block)
        elif block.kind == DATA and not self.ended:
            if block.first != self._arrived:
                raise self._broken(
                    "record {} came where {} was due".format(block.first, self._arrived)
                )
            self._arrived += block.total
            self._records.extend(block.records())
        elif block.kind == END and not self.ended:
            if block.first != self._arrived:
                raise self._broken(
                    "it ended at record {}, and {} have come".format(block.first, self._arrived)
                )
            self.ended = True
        else:
            raise self._broken("a block of kind {} out of turn".format(block.kind))

    def _read_start(self, block: Block) -> None:
        if not block.body:
            return
        try:
            said = json.loads(str(block.body, "utf-8"))
            self.block_count = int(said.get("block_count", 0)) or self.block_count
        except (ValueError, TypeError, AttributeError) as error:
            raise self._broken("START says {!r}".format(bytes(block.body))) from error

    def _broken(self, what: str) -> PortError:
        return PortError("{}: {}".format(self.socket.title, what))
