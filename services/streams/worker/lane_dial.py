"""The consumer's end of a call that carries one lane, whichever side opened the call."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc.aio

from services.streams import effects, events
from services.streams.block import Block, BlockError
from services.streams.digest import Digest
from services.streams.part import Assembler
from services.streams.worker.lane_protocols import REFUSED, no_common
from services.streams.worker.lane_registry import Post
from services.streams.worker.wire import BadBlock, Part
from shoal.v1.streams_service_pb2 import PullAck, PullOpen, PullResponse


class LaneDial:
    """Posts what the producer sends, and sends the newest acknowledgement.

    Args:
        effect: which dial of the machine this is.
        opened: the first message to the producer.
        post: takes events.
    """

    def __init__(self, effect: effects.DialLane, opened: PullOpen, post: Post) -> None:
        self._effect = effect
        self._opened = opened
        self._post = post
        self._ack: effects.Acknowledge | None = None
        self._wake = asyncio.Event()

    def acknowledge(self, effect: effects.Acknowledge) -> None:
        """Send an acknowledgement; it replaces one that has not left."""
        self._ack = effect
        self._wake.set()

    def _ended(self, reason: str, message: str) -> None:
        """Post that the call has ended, and why."""
        self._post(events.DialBroken(self._effect.lane, self._effect.dial, reason, message))

    async def _read(
        self, read: Callable[[], Awaitable[Any]], *, producer: str, client: bool = False
    ) -> tuple[str, str]:
        """Post messages until the call ends; return reason and message of the end.

        Args:
            read: returns the next message, as `wire.read_message` made it.
            producer: its name for people.
            client: whether the producer is a client. A client has no epoch of its own, which
                client counts is settled at the rendezvous, and no generations.
        """
        lane, dial = self._effect.lane, self._effect.dial
        assembler = Assembler()
        while True:
            received = await read()
            if received is grpc.aio.EOF:
                return "UNAVAILABLE", f"{producer} ended the call"
            if isinstance(received, Part):
                try:
                    whole = assembler.part(received.data, received.at)
                except BlockError as error:
                    return "BROKEN", str(error)
                if whole is not None:
                    self._post(events.DialBlock(lane, dial, whole))
                continue
            if assembler.busy:
                return "BROKEN", "something else came between the parts of a block"
            if isinstance(received, Block):
                self._post(events.DialBlock(lane, dial, received))
                continue
            if isinstance(received, BadBlock):
                return "BROKEN", received.reason
            message = cast("PullResponse", received)
            match message.WhichOneof("message"):
                case "accept":
                    if not client and (why := no_common(message.accept, producer)):
                        return REFUSED, why
                    said = self._opened if client else message.accept
                    self._post(
                        events.DialAccepted(lane, dial, said.producer_epoch, message.accept.first)
                    )
                case "end":
                    end, digest = message.end, None
                    if client:
                        self._post(events.DialEnded(lane, dial, end.total))
                        continue
                    if end.HasField("digest"):
                        digest = Digest(end.digest.first, end.digest.table, end.digest.data)
                    self._post(
                        events.DialEnded(lane, dial, end.total, end.cut, end.continued, digest)
                    )
                case "refusal":
                    return message.refusal.reason, message.refusal.message
                case other:
                    return "BROKEN", f"a message of kind {other}"

    async def _write(self, write: Callable[[PullAck], Awaitable[None]]) -> None:
        """Send acknowledgements with `write` until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            ack, self._ack = self._ack, None
            if ack is not None:
                await write(
                    PullAck(
                        consumed=ack.consumed,
                        released=ack.released,
                        consumed_bytes=ack.consumed_bytes,
                    )
                )
