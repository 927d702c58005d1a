"""An input port: records come one by one, or `block_count` at a time, and are acknowledged."""

import json
from collections import deque
from itertools import chain
from typing import Any, AsyncIterator, Awaitable, Callable, Deque, Iterator, List, Optional, Union

from shoal.job import block as blocks
from shoal.job.block_reader import BlockReader
from shoal.job.codec import RAW, Codec, tag_of
from shoal.job.error import CodecError, HeaderError, PortError
from shoal.job.headers import Headed, Headers, decode_headers
from shoal.job.port_socket import PortSocket
from shoal.job.reducers import Reducers
from shoal.job.ring import InputRings, can_map, greeting


class InputPort:
    """Iterate over it (`for` or `async for`) in stream style; `main` functions never see it.

    A record counts as processed once the next one is asked for, or at the end of the program.

    Attributes:
        name: Name of the port.
        codec: What makes values of records.
        block_count: How many records are handed over at a time.
        first: Sequence of the first record, from 0; known once the port is `started`.
        started: Whether the worker has said where the port begins.
        ended: Whether the last record has arrived (not: was handed over).
        headed: Headers of the records that were handed over last, of those that have some.
        reducers: How these become one map.
        dropped: With `promise: latest`, how many records were dropped between those that came.
    """

    def __init__(self, name: str, socket: PortSocket, codec: Codec, block_count: int) -> None:
        self.name = name
        self.socket = socket
        self.codec = codec
        self.block_count = block_count
        self.first = 0
        self.started = False
        self.ended = False
        self.headed: List[Headers] = []
        self.reducers = Reducers()
        self.dropped = 0
        self._latest = False
        self._acknowledged = 0
        self._arrived = 0  # sequence after the last record that came
        self._records: Deque[Union[blocks.Buffer, Headed]] = deque()
        self._mixed = False  # whether there may be anything but bytes among them
        self._processed = 0
        self._in_hand = False  # whether all that was handed over but the last one is processed
        self._reader = BlockReader()
        self._rings: Optional[InputRings] = None
        self._wait: Any = None
        self._wait_async: Any = None
        self._check: Optional[Callable[[int], None]] = None

    def follow(
        self,
        wait: Callable[["InputPort"], bool],
        wait_async: Callable[["InputPort"], Awaitable[bool]],
        check: Optional[Callable[[int], None]],
    ) -> None:
        """Let iteration wait this way; said once by the streams of the process.

        Args:
            wait: Returns once a round is ready, True, or the port is exhausted, False.
            wait_async: The same for coroutines.
            check: Called with the number of rounds that are over, before the next one.
        """
        self._wait = wait
        self._wait_async = wait_async
        self._check = check

    @property
    def position(self) -> int:
        """Sequence of the next record that will be handed over."""
        return self._arrived - len(self._records)

    @property
    def processed(self) -> int:
        """All records below this sequence are processed."""
        return self.position - 1 if self._in_hand else self._processed

    @processed.setter
    def processed(self, below: int) -> None:
        self._in_hand = False
        self._processed = below

    @property
    def headers(self) -> Headers:
        """Headers of the record that was handed over last; of a list, merged."""
        if not self.headed:
            return {}
        return self.headed[0] if len(self.headed) == 1 else self.reducers.merge(self.headed)

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
            HeaderError: Its headers cannot be read.
        """
        if self.headed:
            self.headed = []
        if self.block_count == 1:
            return self._decode()
        count = min(self.block_count, len(self._records))
        if not self._mixed and self.codec is RAW:
            take = self._records.popleft
            return [take() for _ in range(count)]
        return [self._decode() for _ in range(count)]

    def queue_ack(self, below: int) -> None:
        """Acknowledge what is below that sequence, if it is new."""
        if self._rings is not None:
            self.socket.queue(self._rings.given_back())
        if below > self._acknowledged:
            self._acknowledged = below
            self.socket.queue(blocks.encode_mark(blocks.ACK, below))

    def queue_progress(self, text: str) -> None:
        """Say how far the job is."""
        self.socket.queue(blocks.encode_text(blocks.PROGRESS, 0, text))

    def __iter__(self) -> Iterator[Any]:
        """Records in order until the stream ends."""
        return chain.from_iterable(self._batches())

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Records in order until the stream ends; other tasks run while none is there."""
        while await self._wait_async(self):
            for value in self.batch():
                yield value

    def _batches(self) -> Iterator[Iterator[Any]]:
        while self._wait(self):
            yield self.batch()

    @property
    def plain(self) -> bool:
        """Whether nothing is there but records without headers that are handed over one by one."""
        return not self._mixed and self.block_count == 1 and self.codec.reads_bytes

    def batch(self) -> Iterator[Any]:
        """What is there. When the next one is asked for, the one before is processed."""
        if not self.plain:
            return self._rounds_at_hand()
        self._in_hand = True
        return self._records_at_hand()

    def _rounds_at_hand(self) -> Iterator[Any]:
        while self.ready:
            yield self.take()
            if self._check:
                self._check(self.rounds_begun)
            self.processed = self.position

    def _records_at_hand(self) -> Iterator[Any]:
        # Nothing is counted here: where the job is shows in how many are left.
        records, check, raw = self._records, self._check, self.codec is RAW
        take = records.popleft
        if raw and check is None:
            while records and not self._mixed:
                yield take()
            return
        tag, decode = tag_of(self.codec), self.codec.decode
        rounds = self.rounds_begun
        while records and not self._mixed:
            record: Any = take()
            if raw:
                yield record
            elif tag and record[:1] == tag:
                yield record[1:]
            else:
                try:
                    value = decode(record)
                except CodecError as error:
                    raise self._unreadable(error) from error
                yield value
            if check is not None:
                rounds += 1
                check(rounds)

    def _decode(self) -> Any:
        record = self._records.popleft()
        try:
            if type(record) is Headed:
                self.headed.append(decode_headers(record.text))
                record = record.payload
            return self.codec.decode(
                record if self.codec.reads_bytes else memoryview(record)  # type: ignore[arg-type]
            )
        except CodecError as error:
            raise self._unreadable(error) from error
        except HeaderError as error:
            raise HeaderError(
                "input port {!r}, record {}: {}".format(self.name, self.position - 1, error)
            ) from error

    def _unreadable(self, error: CodecError) -> CodecError:
        return CodecError(
            "input port {!r}, record {}: {}".format(self.name, self.position - 1, error)
        )

    def _read_block(self) -> bool:
        """Read one block; False if that would mean to wait."""
        block = self._reader.receive(self.socket, self._broken_off)
        if block is None:
            return False
        self._handle(block)
        return True

    def _handle(self, block: blocks.Block) -> None:
        if not self.started:
            if block.kind != blocks.START:
                raise self._broken("the first block is of kind {}, not START".format(block.kind))
            self.first = self._processed = block.first
            self._acknowledged = self._arrived = block.first
            self.started = True
            self._read_start(block)
        elif block.kind == blocks.DATA and not self.ended:
            if self._latest and block.first > self._arrived:
                # Nothing waits here by then: the worker sends more when all is processed.
                self.dropped += block.first - self._arrived
                self._arrived = block.first
            if block.first != self._arrived:
                raise self._broken(
                    "record {} came where {} was due".format(block.first, self._arrived)
                )
            self._keep(block)
            # Afterwards: a question in between must not take the new records for processed.
            self._arrived += block.total
        elif block.kind == blocks.END and not self.ended:
            if block.first != self._arrived:
                raise self._broken(
                    "it ended at record {}, and {} have come".format(block.first, self._arrived)
                )
            self.ended = True
        elif block.kind == blocks.RING and self._rings is not None:
            self._introduce(self._rings, block)
        else:
            raise self._broken("a block of kind {} out of turn".format(block.kind))

    def _keep(self, block: blocks.Block) -> None:
        simple = block.total > 1 and not block.headed
        # A reader in the middle of simple records must not meet others.
        self._mixed = not simple or (self._mixed and bool(self._records))
        records = block.records()
        if not block.headed:
            self._records.extend(records)
            return
        headers = block.headers()
        for index, record in enumerate(records):
            text = headers.get(index)
            self._records.append(record if text is None else Headed(record, text))

    def _read_start(self, block: blocks.Block) -> None:
        if not block.body:
            return
        try:
            said = json.loads(str(block.body, "utf-8"))
            self.block_count = int(said.get("block_count", 0)) or self.block_count
            self._latest = said.get("promise") == "latest"
        except (ValueError, TypeError, AttributeError) as error:
            raise self._broken("START says {!r}".format(bytes(block.body))) from error

        if said.get("rings") and can_map():
            self.socket.takes_descriptors = True
            self._rings = self._reader.rings = InputRings(self.socket.descriptors)
            self.socket.queue(greeting())

    def _introduce(self, rings: InputRings, block: blocks.Block) -> None:
        try:
            rings.introduce(block.body)
        except (OSError, ValueError, PortError) as error:
            raise self._broken("a ring cannot be used: {}".format(error)) from error

    def _broken_off(self) -> PortError:
        return self._broken(
            "the stream broke off {} byte {}, without its end; the agent says why".format(
                "in the middle of the block at" if self._reader.inside else "at",
                self._reader.offset,
            )
        )

    def _broken(self, what: str) -> PortError:
        return PortError("{}: {}".format(self.socket.title, what))
