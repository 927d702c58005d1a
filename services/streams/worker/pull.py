"""Both ends of a Pull call: one lane between two workers.

Rules for grpc.aio that are kept here: one long-lived task reads, and never under a timeout, which
would cancel the call; `read` and `write` only; what `write` returns is no delivery, which is why
the machines count acknowledgements. A dead peer is found by keepalive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio

from services.runtime.rpc import STREAM, channel_options
from services.streams.block import Block
from services.streams.effect import Acknowledge, Dial, SendBlock, SendEnd
from services.streams.event import (
    CallAcknowledged,
    CallReady,
    DialAccepted,
    DialBlock,
    DialBroken,
    DialEnded,
)
from services.streams.worker.directory import Post
from services.streams.worker.wire import PULL, BadBlock, read_message, write_block
from shoal.v1.streams_service_pb2 import (
    PullAccept,
    PullAck,
    PullEnd,
    PullOpen,
    PullRefusal,
    PullRequest,
    PullResponse,
)

ServerContext = grpc.aio.ServicerContext[Any, Any]

BROKEN_CALL = (
    grpc.RpcError,
    grpc.aio.UsageError,
    grpc.aio.InternalError,
    asyncio.InvalidStateError,
)
"""What grpc.aio raises from `read` and `write` of a call that is over."""


class ServedCall:
    """A consumer's call as the producer's worker holds it.

    Args:
        number: the machine's name for it.
        lane: id of the lane.
        post: takes events.
        context: of the call in grpc.aio.
    """

    def __init__(self, number: int, lane: str, post: Post, context: ServerContext) -> None:
        self.number = number
        self._lane = lane
        self._post = post
        self._context = context
        # At most an answer, a block, an end and a close: the machine waits for each block to leave.
        self._outgoing: deque[tuple[bytes, bool]] = deque()
        self._wake = asyncio.Event()
        self._closing = False

    def accept(self, producer_epoch: int, first: int) -> None:
        """See `Served`."""
        self._send(PullResponse(accept=PullAccept(producer_epoch=producer_epoch, first=first)))

    def send_block(self, effect: SendBlock) -> None:
        """See `Served`."""
        self._outgoing.append((write_block(effect.header, effect.body), True))
        self._wake.set()

    def send_end(self, effect: SendEnd) -> None:
        """See `Served`."""
        end = PullEnd(total=effect.total, cut=effect.cut, continued=effect.continued)
        self._send(PullResponse(end=end))

    def refuse(self, reason: str, message: str) -> None:
        """See `Served`."""
        self._send(PullResponse(refusal=PullRefusal(reason=reason, message=message)))
        self.close()

    def close(self) -> None:
        """See `Served`."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """See `Served`."""
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read())
            try:
                await self._write()
            except BROKEN_CALL:
                return  # the consumer dials again
            finally:
                reading.cancel()

    def _send(self, message: PullResponse) -> None:
        self._outgoing.append((message.SerializeToString(), False))
        self._wake.set()

    async def _write(self) -> None:
        while True:
            while self._outgoing:
                message, block = self._outgoing.popleft()
                await self._context.write(message)
                if block:
                    self._post(CallReady(self.number, self._lane))
            if self._closing:
                return
            self._wake.clear()
            await self._wake.wait()

    async def _read(self) -> None:
        try:
            while True:
                request = await self._context.read()
                if request is grpc.aio.EOF:
                    break
                ack = cast("PullRequest", request).ack
                self._post(
                    CallAcknowledged(
                        self.number, self._lane, ack.consumed, ack.released, ack.consumed_bytes
                    )
                )
        except BROKEN_CALL:
            pass
        self.close()


class DialledCall:
    """A call of ours to the producer's worker.

    Args:
        effect: which call of the machine's it is.
        opened: what to say first.
        post: takes events.
    """

    def __init__(self, effect: Dial, opened: PullOpen, post: Post) -> None:
        self._effect = effect
        self._opened = opened
        self._post = post
        self._ack: Acknowledge | None = None
        self._wake = asyncio.Event()
        self.broken = False
        """Whether the connection failed, and not only this lane."""

    def acknowledge(self, effect: Acknowledge) -> None:
        """Send an acknowledgement; it replaces one that has not left."""
        self._ack = effect
        self._wake.set()

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Carry the call until it breaks, which is posted, or until this is cancelled."""
        pull = cast(
            "Callable[[], grpc.aio.StreamStreamCall[PullRequest, Any]]",
            channel.stream_stream(
                PULL,
                request_serializer=PullRequest.SerializeToString,
                response_deserializer=read_message,
            ),
        )
        call = pull()
        try:
            reason, message = await self._carry(call)
        except* BROKEN_CALL as group:
            self.broken = True
            reason, message = "UNAVAILABLE", _words(group.exceptions[0])
        finally:
            call.cancel()
        self._post(DialBroken(self._effect.lane, self._effect.dial, reason, message))

    async def _carry(self, call: grpc.aio.StreamStreamCall[PullRequest, Any]) -> tuple[str, str]:
        async with asyncio.TaskGroup() as tasks:
            await call.write(PullRequest(open=self._opened))
            writing = tasks.create_task(self._write(call))
            try:
                return await self._read(call)
            finally:
                writing.cancel()

    async def _read(self, call: grpc.aio.StreamStreamCall[PullRequest, Any]) -> tuple[str, str]:
        lane, dial = self._effect.lane, self._effect.dial
        while True:
            response = await call.read()
            if response is grpc.aio.EOF:
                return "UNAVAILABLE", "the producer's worker ended the call"
            if isinstance(response, Block):
                self._post(DialBlock(lane, dial, response))
                continue
            if isinstance(response, BadBlock):
                return "BROKEN", response.reason
            message = cast("PullResponse", response)
            match message.WhichOneof("message"):
                case "accept":
                    accept = message.accept
                    self._post(DialAccepted(lane, dial, accept.producer_epoch, accept.first))
                case "end":
                    end = message.end
                    self._post(DialEnded(lane, dial, end.total, end.cut, end.continued))
                case "refusal":
                    return message.refusal.reason, message.refusal.message
                case other:
                    return "BROKEN", f"a response of kind {other}"

    async def _write(self, call: grpc.aio.StreamStreamCall[PullRequest, Any]) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            ack, self._ack = self._ack, None
            if ack is not None:
                await call.write(
                    PullRequest(
                        ack=PullAck(
                            consumed=ack.consumed,
                            released=ack.released,
                            consumed_bytes=ack.consumed_bytes,
                        )
                    )
                )


@dataclass(slots=True)
class Shared:
    """A channel and how many lanes are open on it."""

    address: str
    channel: grpc.aio.Channel
    users: int = 0


class Channels:
    """One channel for each peer that lanes are open to; it closes with its last lane."""

    def __init__(self) -> None:
        self._channels: dict[str, Shared] = {}

    def take(self, address: str) -> Shared:
        """Return the channel to an address; give it back with `leave`."""
        shared = self._channels.get(address)
        if shared is None:
            channel = grpc.aio.insecure_channel(address, options=channel_options(STREAM))
            shared = self._channels[address] = Shared(address, channel)
        shared.users += 1
        return shared

    async def leave(self, shared: Shared, *, broken: bool) -> None:
        """Give a channel back.

        A broken one is not used again: gRPC would wait up to two seconds before it connects anew,
        and how often we try is for our own backoff to say.
        """
        shared.users -= 1
        if (broken or not shared.users) and self._channels.get(shared.address) is shared:
            del self._channels[shared.address]
        if not shared.users:
            await shared.channel.close()


def _words(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return repr(error)
