"""A lane whose producer dials: a client behind a firewall feeds the portal of its local job.

The messages are those of `pull`, but the producer opens the call. It waits at the rendezvous until
the consumer's machine dials, and carries that one dial. When the machine hangs up, the call ends,
and the producer dials again.
"""

from __future__ import annotations

import asyncio
from typing import cast

import grpc.aio

from services.streams import effects, events
from services.streams.block import Block, BlockError
from services.streams.part import Assembler
from services.streams.worker.call import BROKEN_CALL, ServerContext
from services.streams.worker.lane_registry import Post
from services.streams.worker.rendezvous import OfferedCall, Rendezvous
from services.streams.worker.wire import BadBlock, Part, read_message
from shoal.names import AttemptRef
from shoal.v1.streams_service_pb2 import (
    FeedOpen,
    FeedRequest,
    FeedResponse,
    PullAck,
    PullOpen,
    PullResponse,
)


class FeedCall:
    """One dial of a machine, carried by the call of a producer that dialled in.

    Args:
        effect: which call of the machine's it is.
        opened: what to say first.
        ref: the consumer's attempt.
        rendezvous: where producers wait.
        post: takes events.
    """

    def __init__(
        self,
        effect: effects.DialLane,
        opened: PullOpen,
        ref: AttemptRef,
        rendezvous: Rendezvous,
        post: Post,
    ) -> None:
        self._effect = effect
        self._opened = opened
        self._key = (ref.namespace, ref.pipeline, effect.lane, ref.epoch)
        self._rendezvous = rendezvous
        self._post = post
        self._ack: effects.Acknowledge | None = None
        self._wake = asyncio.Event()

    def acknowledge(self, effect: effects.Acknowledge) -> None:
        """Send an acknowledgement; it replaces one that has not left."""
        self._ack = effect
        self._wake.set()

    async def dial(self) -> None:
        """Carry the call until it ends, which is posted, or until this is cancelled."""
        call = await self._rendezvous.take(self._key)
        try:
            reason, message = await self._carry(call)
        except* BROKEN_CALL:
            reason, message = "UNAVAILABLE", "the client is gone"
        finally:
            call.over.set()
        self._post(events.DialBroken(self._effect.lane, self._effect.dial, reason, message))

    async def _carry(self, call: OfferedCall) -> tuple[str, str]:
        async with asyncio.TaskGroup() as tasks:
            await call.context.write(FeedResponse(open=self._opened).SerializeToString())
            writing = tasks.create_task(self._write(call))
            reading = tasks.create_task(self._read(call))
            ending = tasks.create_task(call.over.wait())
            try:
                await asyncio.wait({writing, reading, ending}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                writing.cancel()
                ending.cancel()
                reading.cancel()
        if reading.cancelled():
            return "UNAVAILABLE", "the client dialled again"
        return reading.result()

    async def _read(self, call: OfferedCall) -> tuple[str, str]:
        lane, dial = self._effect.lane, self._effect.dial
        assembler = Assembler()
        while True:
            request = await call.context.read()
            if request is grpc.aio.EOF:
                return "UNAVAILABLE", "the client ended the call"
            if isinstance(request, Part):
                try:
                    whole = assembler.part(request.data, request.at)
                except BlockError as error:
                    return "BROKEN", str(error)
                if whole is not None:
                    self._post(events.DialBlock(lane, dial, whole))
                continue
            if assembler.busy:
                return "BROKEN", "something else came between the parts of a block"
            if isinstance(request, Block):
                self._post(events.DialBlock(lane, dial, request))
                continue
            if isinstance(request, BadBlock):
                return "BROKEN", request.reason
            message = cast("PullResponse", request)
            match message.WhichOneof("message"):
                case "accept":
                    # Which of several clients counts is settled at the rendezvous.
                    epoch = self._opened.producer_epoch
                    self._post(events.DialAccepted(lane, dial, epoch, message.accept.first))
                case "end":
                    self._post(events.DialEnded(lane, dial, message.end.total))
                case "refusal":
                    return message.refusal.reason, message.refusal.message
                case other:
                    return "BROKEN", f"a message of kind {other}"

    async def _write(self, call: OfferedCall) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            ack, self._ack = self._ack, None
            if ack is not None:
                said = PullAck(
                    consumed=ack.consumed, released=ack.released, consumed_bytes=ack.consumed_bytes
                )
                await call.context.write(FeedResponse(ack=said).SerializeToString())


def read_feed(data: bytes) -> FeedRequest | PullResponse | Block | Part | BadBlock:
    """Read what a producer that dials says; all but its first message is as from one that is dialled."""
    if data and data[0] == FeedRequest.OPEN_FIELD_NUMBER << 3 | 2:
        return FeedRequest.FromString(data)
    return read_message(data)


async def first_open(context: ServerContext) -> FeedOpen | None:
    """Read the first message of a producer's call; None if it is something else."""
    message = await context.read()
    return message.open if isinstance(message, FeedRequest) else None
