"""Both ends of lanes between a client and a pipeline, relayed by the controller.

A client dials, whichever end it is; a call that ends is dialled again, and both sides say where
they are: nothing is lost, and nothing comes twice (docs/architecture.md, section 4). Of two clients
at one lane, the one that began later has it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from shoal.client import Client
from shoal.connection import Pause
from shoal.crossing import is_crossed
from shoal.errors import ShoalError
from shoal.job.block import DATA, HEADER
from shoal.limits import WHOLE_BYTES_MAX
from shoal.local.checked_block import BrokenBlockError, Records, block_bytes, opened, parts, sealed
from shoal.local.record_file import RecordFile
from shoal.protocol_version import LANES, LinkEnd, NoCommonProtocolError, agreed
from shoal.session.lane import WANT_KEPT, WANT_NOTHING
from shoal.v1 import streams_service_pb2 as v1
from shoal.v1.lanes_service_pb2 import FeedLaneRequest, PullLaneRequest
from shoal.version import VERSION
from shoal.wire.fields import WireError
from shoal.wire.protocols import encode_protocols, said_in

CREDIT_BYTES = 4 * 1024 * 1024
BACKLOG_BYTES = 64 * 1024 * 1024
"""What may wait in a file to be sent; more than that blocks the program that makes the records."""

_LOST = (grpc.aio.UsageError, grpc.aio.InternalError, asyncio.InvalidStateError)
_MAY_RETURN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class LaneRefusedError(ShoalError):
    """The other end will not have this client, or not what it has."""


@dataclass(frozen=True, slots=True)
class LaneName:
    """A lane of a pipeline; of several clients the one with the highest `epoch` has it."""

    namespace: str
    pipeline: str
    lane: str
    epoch: int


class _ClosedError(Exception):
    """The call is over; it is dialled again."""


async def _redial(
    client: Client,
    method: Any,
    carry: Callable[[Any], Awaitable[None]],
    parted: Callable[[], bool] = lambda: False,
) -> None:
    """Make calls, one after the other, until this is cancelled, or nothing more is to be said.

    Raises:
        ShoalError: The controller or the other end refuses.
    """
    pause = Pause()
    while True:
        call = method()
        began = asyncio.get_running_loop().time()
        try:
            await carry(call)
        except (_ClosedError, *_LOST):
            if parted():
                return
        except grpc.aio.AioRpcError as error:
            if error.code() not in _MAY_RETURN and not is_crossed(error):
                raise client.error(error) from error
        finally:
            call.cancel()
        if asyncio.get_running_loop().time() - began > 2.0:
            pause.reset()
        await pause.wait()


@dataclass(slots=True)
class Feeder:
    """Feeds a lane into a pipeline from a file, which keeps what may be asked for again.

    Args:
        client: an open client.
        name: the lane.
        file: what is to be sent; call `grown` after it has grown.
        adopt: an empty file begins where the pipeline is, instead of with record 0.
    """

    client: Client
    name: LaneName
    file: RecordFile
    adopt: bool
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it is known where the pipeline goes on, so that `file` begins there."""
    consumed: int = 0
    """Below this, every record has reached the pipeline."""
    released: int = 0
    """Below this, no record will be asked for again."""
    unwanted: bool = False
    """Whether the other end has finished."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever one of these changes."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _room: asyncio.Event = field(default_factory=asyncio.Event)
    _sent_bytes: int = 0
    _consumed_bytes: int = 0
    _backlog_bytes: int = 0

    def __post_init__(self) -> None:
        """Have room at first."""
        self._room.set()

    def grown(self, size: int = 0) -> None:
        """Send on, because the file has grown by `size` bytes, or has ended."""
        self._backlog_bytes += size
        if self._backlog_bytes > BACKLOG_BYTES:
            self._room.clear()
        self._wake.set()

    async def room(self) -> None:
        """Wait until not too much waits to be sent."""
        await self._room.wait()

    async def run(self) -> None:
        """Feed until cancelled.

        Raises:
            LaneRefusedError: Another client feeds the lane, or wants what this one does not have.
            ShoalError: The controller refuses.
        """
        await _redial(self.client, self.client.lanes.FeedLane, self._carry)

    async def _carry(self, call: Any) -> None:
        name = self.name
        opened = v1.FeedOpen(
            namespace=name.namespace,
            pipeline=name.pipeline,
            lane=name.lane,
            producer_epoch=name.epoch,
            protocols=_speaks(),
        )
        await call.write(FeedLaneRequest(open=opened))
        response = await _read(call)
        if response.WhichOneof("message") == "refusal":
            raise _refused(response.refusal)
        _check_protocols(response.open)
        want = response.open.want
        self._sent_bytes = self._consumed_bytes = 0
        if want == WANT_NOTHING:
            self.unwanted = True
            self.changed.set()
            await call.write(FeedLaneRequest(accept=v1.PullAccept(first=want)))
        else:
            want = await self._begin(call, want)
        works = [self._hear(call)]
        if want != WANT_NOTHING:
            works.append(self._send(call, want, response.open.credit_bytes))
        await _together(*works)

    async def _begin(self, call: Any, want: int) -> int:
        file = self.file
        if want == WANT_KEPT:
            want = max(self.released, file.base)
        if self.adopt and want > file.next and file.next == file.base and file.total is None:
            file.begin(want)
        if self.adopt and want > file.next:
            raise LaneRefusedError(
                "BEHIND",
                f"the pipeline has {want} records, and {file.path} holds {file.next}: it is of "
                "another stream, or was cut; move it away to go on after them",
            )
        if want < file.base:
            message = (
                f"record {want} is wanted, and this client has them from {file.base} on: the ones "
                "before were sent by a client that is gone, and so are they"
            )
            refusal = v1.PullRefusal(reason="BEHIND", message=message)
            await call.write(FeedLaneRequest(refusal=refusal))
            raise LaneRefusedError("BEHIND", message)
        await call.write(FeedLaneRequest(accept=v1.PullAccept(first=want)))
        self.begun.set()
        self.changed.set()
        return want

    async def _send(self, call: Any, want: int, credit: int) -> None:
        file = self.file
        number = file.place(want)
        while True:
            self._wake.clear()
            records = file.read(number)
            if records is not None:
                size = HEADER.size + len(records.body)
                in_flight = self._sent_bytes - self._consumed_bytes
                if in_flight and in_flight + size > credit:
                    await self._wake.wait()
                    continue
                data = sealed(DATA, records.first, records.count, records.body)
                if len(records.body) <= WHOLE_BYTES_MAX:
                    await call.write(FeedLaneRequest(block=data))
                else:
                    for part in parts(data):
                        await call.write(FeedLaneRequest(part=part))
                self._sent_bytes += size
                number += 1
                self._backlog_bytes = file.size_bytes - file.bytes_before(number)
                if self._backlog_bytes <= BACKLOG_BYTES:
                    self._room.set()
            elif file.total is not None:
                await call.write(FeedLaneRequest(end=v1.PullEnd(total=file.total)))
                return
            else:
                await self._wake.wait()

    async def _hear(self, call: Any) -> None:
        while True:
            response = await _read(call)
            match response.WhichOneof("message"):
                case "ack":
                    ack = response.ack
                    self._consumed_bytes = ack.consumed_bytes
                    self.consumed = max(self.consumed, ack.consumed)
                    self.released = max(self.released, ack.released)
                    self._wake.set()
                    self.changed.set()
                case "refusal":
                    raise _refused(response.refusal)
                case _:
                    raise _ClosedError


@dataclass(slots=True)
class Taker:
    """Takes a lane out of a pipeline, record for record, once each.

    Args:
        client: an open client.
        name: the lane.
        deliver: takes records in order, and as much time as it needs.
        ended: called with the total once all have come.
        kept: begin with what is kept, instead of with record 0.
        next: begin with this record.
        recorder: what is not kept any more is an error, and `done` ends `run`.
    """

    client: Client
    name: LaneName
    deliver: Callable[[Records], Awaitable[None]]
    ended: Callable[[int], Awaitable[None]]
    kept: bool = False
    next: int = 0
    """Sequence of the record that comes next."""
    recorder: bool = False
    total: int | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it is known where the records begin."""
    _parted: bool = False
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _consumed_bytes: int = 0
    _done: bool = False
    _released: int = 0

    def release(self, sequence: int) -> None:
        """Let the producer forget records: none below `sequence` will be asked for again."""
        if sequence > self._released:
            self._released = sequence
            self._wake.set()

    def done(self) -> None:
        """Want nothing more, now and after every other dialling."""
        self._done = True
        self._wake.set()

    async def run(self) -> None:
        """Take until cancelled, or as a recorder until the other end has heard of `done`.

        Raises:
            LaneRefusedError: Another client has the lane, or records that are wanted are gone.
            ShoalError: The controller refuses.
        """
        pull = self.client.lanes.PullLane
        await _redial(self.client, pull, self._carry, lambda: self._parted)

    async def _carry(self, call: Any) -> None:
        name = self.name
        want = self.next
        if self._done:
            want = WANT_NOTHING
        elif self.kept and not self.begun.is_set():
            want = WANT_KEPT
        opened_call = v1.PullOpen(
            namespace=name.namespace,
            pipeline=name.pipeline,
            lane=name.lane,
            consumer_epoch=name.epoch,
            want=want,
            credit_bytes=CREDIT_BYTES,
            # The controller relays each lane on a connection of its own, so large records may come.
            bulk=True,
            protocols=_speaks(),
        )
        await call.write(PullLaneRequest(open=opened_call))
        response = await _read(call)
        if response.WhichOneof("message") == "refusal":
            if self.recorder and response.refusal.reason == "BEHIND":
                raise LaneRefusedError("BEHIND", response.refusal.message)
            raise _refused(response.refusal)
        _check_protocols(response.accept)
        if want == WANT_KEPT:
            self.next = response.accept.first
        self.begun.set()
        self._consumed_bytes = 0
        await _together(self._take(call), self._acknowledge(call))

    async def _take(self, call: Any) -> None:
        large = bytearray()
        while True:
            response = await _read(call)
            match response.WhichOneof("message"):
                case "part":
                    large += response.part[4:]
                    if len(large) >= block_bytes(large):
                        await self._block(bytes(large))
                        large.clear()
                case "block":
                    await self._block(response.block)
                case "end":
                    if response.end.total == self.next and self.total is None:
                        self.total = self.next
                        await self.ended(self.next)
                case "refusal":
                    raise _refused(response.refusal)
                case _:
                    raise _ClosedError

    async def _block(self, data: bytes) -> None:
        try:
            records = opened(data)
        except BrokenBlockError as error:
            raise _ClosedError from error
        if records.first > self.next:
            raise _ClosedError  # a gap: the lane is dialled again
        fresh = records.without_head(self.next - records.first)
        if fresh.count > 0 and not self._done:
            await self.deliver(fresh)
            self.next = fresh.end
        self._consumed_bytes += len(data)
        self._wake.set()

    async def _acknowledge(self, call: Any) -> None:
        self._wake.set()
        told_done = False
        while True:
            await self._wake.wait()
            self._wake.clear()
            ack = v1.PullAck(
                consumed=self.next, released=self._released, consumed_bytes=self._consumed_bytes
            )
            if self._done:
                if told_done:
                    continue
                told_done = True
                ack = v1.PullAck(done=True)
            await call.write(PullLaneRequest(ack=ack))
            if told_done and self.recorder:
                await call.done_writing()
                self._parted = True
                return


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    """Run the tasks of one call, of which the first to fail ends the other.

    Not a TaskGroup: it drops the cancellation of its own task if a call fails in the same turn of the
    loop, and the lane, which dials again after each failure, would never end.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(call: Any) -> Any:
    response = await call.read()
    if response is grpc.aio.EOF:
        code = await call.code()
        if code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                code,
                await call.initial_metadata(),
                await call.trailing_metadata(),
                details=await call.details(),
            )
        raise _ClosedError
    return response


def _speaks() -> Any:
    return encode_protocols(LANES.said_by(VERSION))


def _check_protocols(message: v1.PullOpen | v1.PullAccept) -> None:
    """Refuse a stream worker that this client cannot work with.

    Raises:
        LaneRefusedError: it is too old, or too new.
    """
    worker = LinkEnd("the stream worker", said_in(message), "upgrade the agent of its node")
    client = LinkEnd("this client", LANES.said_by(VERSION), "upgrade it")
    try:
        agreed(LANES, client, worker)
    except (NoCommonProtocolError, WireError) as error:
        raise LaneRefusedError("PROTOCOL", str(error)) from error


def _refused(refusal: v1.PullRefusal) -> Exception:
    """What a refusal means: another client has the lane, or it is only not ready yet."""
    if refusal.reason == "PROTOCOL":
        return LaneRefusedError("PROTOCOL", refusal.message)
    if refusal.reason == "FENCED" and "later client" in refusal.message:
        return LaneRefusedError("TAKEN_OVER", f"{refusal.message}: this one is not needed any more")
    if refusal.reason == "FENCED" and "consumer epoch" in refusal.message:
        return LaneRefusedError("TAKEN_OVER", f"a later client has the lane ({refusal.message})")
    return _ClosedError()
