"""Where a producer that dials in meets the consumer here, by lane."""

import asyncio

from services.streams.worker.call import BROKEN_CALL, ServerContext
from shoal.v1.streams_service_pb2 import FeedOpen, FeedResponse, PullRefusal

LaneKey = tuple[str, str, str, int]
"""Namespace, pipeline, lane, epoch of the consumer."""


class OfferedCall:
    """A producer's call; it ends when `over` is set.

    Args:
        context: of the call.
        epoch: of the producer.
    """

    def __init__(self, context: ServerContext, epoch: int) -> None:
        self.context = context
        self.epoch = epoch
        self.over = asyncio.Event()
        self.refusal: PullRefusal | None = None

    def refuse(self, reason: str, message: str) -> None:
        """End the call and say why."""
        self.refusal = PullRefusal(reason=reason, message=message)
        self.over.set()


class Rendezvous:
    """Where producers that dial wait for the consumers here, one for each lane."""

    def __init__(self) -> None:
        self._waiting: dict[LaneKey, OfferedCall] = {}
        self._arrival = asyncio.Condition()

    async def offer(self, opened: FeedOpen, context: ServerContext) -> None:
        """Hold a producer's call until it is over; of several, that of the highest epoch counts.

        A later call of the same epoch takes the place of the earlier one, which is cut.
        """
        key = (opened.namespace, opened.pipeline, opened.lane, opened.consumer_epoch)
        call = OfferedCall(context, opened.producer_epoch)
        earlier = self._waiting.get(key)
        if earlier is not None and earlier.epoch > call.epoch:
            call.refuse("FENCED", f"a later client feeds lane {opened.lane}")
        else:
            if earlier is not None and earlier.epoch < call.epoch:
                earlier.refuse("FENCED", f"a later client feeds lane {opened.lane}")
            elif earlier is not None:
                earlier.over.set()
            async with self._arrival:
                self._waiting[key] = call
                self._arrival.notify_all()
        try:
            await call.over.wait()
            if call.refusal is not None:
                await context.write(FeedResponse(refusal=call.refusal).SerializeToString())
        except BROKEN_CALL:
            pass  # it is gone already
        finally:
            call.over.set()
            if self._waiting.get(key) is call:
                del self._waiting[key]

    async def take(self, key: LaneKey) -> OfferedCall:
        """Wait for a producer's call on a lane; for as long as it takes."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: key in self._waiting)
            return self._waiting[key]
