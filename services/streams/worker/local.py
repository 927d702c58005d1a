"""A lane between two attempts of one worker, which passes no socket and no bytes."""

from __future__ import annotations

import asyncio
from collections import deque

from services.streams import effects, events
from services.streams.worker.lane_registry import LaneRegistry, Missing, Post, ReadPiece
from shoal.v1.streams_service_pb2 import PullOpen

_ENDED = ("UNAVAILABLE", "the producer ended the call")


class LocalCall:
    """Both ends of the call: what one side says is an event of the other, with the same meaning.

    Nothing is said within the turn in which it came about: the loop passes it on, one turn for
    what is there by then, so that other lanes get theirs and no side calls into the other's turn.
    Blocks are not copied, and not checked either, since memory does not flip bits on its way.

    Args:
        effect: what the consumer dialled.
        opened: the same as the producer reads it.
        registry: knows the producer.
        consumer: takes the consumer's events.
    """

    def __init__(
        self, effect: effects.DialLane, opened: PullOpen, registry: LaneRegistry, consumer: Post
    ) -> None:
        self._lane = effect.lane
        self._dial = effect.dial
        self._opened = opened
        self._registry = registry
        self._consumer = consumer
        self._producer: Post | None = None
        self._number = 0
        # At most an answer, a block and an end: the producer waits for each block to be taken.
        self._down: deque[events.DialAccepted | events.DialBlock | events.DialEnded] = deque()
        self._ack: effects.Acknowledge | None = None
        self._reason = _ENDED
        self._closing = False
        self._closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._passing: asyncio.Handle | None = None

    parts = False
    """A block is passed on as it lies in memory."""

    # ---- the consumer's end ---------------------------------------------------------------------

    async def dial(self) -> None:
        """Carry the call until it ends, which is posted, or until this is cancelled."""
        found = await self._registry.find(self._opened)
        if isinstance(found, Missing):
            self._reason = (found.reason, found.message)
        else:
            await found.serve(self._opened, self._join)
        self._consumer(events.DialBroken(self._lane, self._dial, *self._reason))

    def acknowledge(self, effect: effects.Acknowledge) -> None:
        """Report to the producer how far the consumer is; this replaces a report that has not left."""
        self._ack = effect
        self._wake()

    # ---- the producer's end ---------------------------------------------------------------------

    def _join(self, number: int, post: Post) -> LocalCall:
        self._number, self._producer = number, post
        return self

    async def run(self) -> None:
        """See `Served`."""
        try:
            await self._closed.wait()
        finally:
            # The side that gives up sends and receives nothing more.
            self._producer = None
            if self._passing is not None:
                self._passing.cancel()

    def accept(self, producer_epoch: int, first: int) -> None:
        """See `Served`."""
        self._say(events.DialAccepted(self._lane, self._dial, producer_epoch, first))

    def send_block(self, effect: effects.SendBlock) -> None:
        """See `Served`."""
        self._say(events.DialBlock(self._lane, self._dial, effect.block))

    def send_spooled(self, effect: effects.SendSpooled, read: ReadPiece) -> None:
        """See `Served`."""
        del read
        raise AssertionError(
            f"a part of {effect.retained.first} on {self._lane}: there are none here"
        )

    def send_end(self, effect: effects.SendEnd) -> None:
        """See `Served`."""
        end = events.DialEnded(
            self._lane, self._dial, effect.total, effect.cut, effect.continued, effect.digest
        )
        self._say(end)

    def refuse(self, reason: str, message: str) -> None:
        """See `Served`."""
        self._reason = (reason, message)
        self.close()

    def close(self) -> None:
        """See `Served`."""
        self._closing = True
        self._wake()

    # ---- between them ---------------------------------------------------------------------------

    def _say(self, event: events.DialAccepted | events.DialBlock | events.DialEnded) -> None:
        self._down.append(event)
        self._wake()

    def _wake(self) -> None:
        if self._passing is None:
            self._passing = self._loop.call_soon(self._pass_on)

    def _pass_on(self) -> None:
        self._passing = None
        for _ in range(len(self._down)):
            event = self._down.popleft()
            self._consumer(event)
            if isinstance(event, events.DialBlock) and self._producer is not None:
                self._producer(events.CallReady(self._number, self._lane))
        ack, self._ack = self._ack, None
        if ack is not None and self._producer is not None:
            self._producer(
                events.CallAcknowledged(
                    self._number, self._lane, ack.consumed, ack.released, ack.consumed_bytes
                )
            )
        if self._closing and not self._down:
            self._closed.set()
