"""What a stream worker is to be told of an attempt that it carries, until it has taken it.

A worker that is busy, or stands still, lets a call run out, and the agent cannot tell whether it took it.
If the agent gave up then, a lane would lead to where its peer no longer is, and a scale would never
settle. So an order is given again, less and less often, until it was *taken* or is *void*:

- The latest lanes replace those that were not taken; each order names all lanes, so none is missed.
- Orders are harmless when they are given twice.
- An order is void when the worker refuses it. It does not know the attempt: then it is another
  worker, and the loss of the one before is told by itself. Or the order breaks the contract: then
  it never gets better.

What an agent does first (`attempts.events.Restored`) covers the orders that the agent before it still
had to give.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from edge_agent.stream_link import StreamsError, StreamsRefusedError
from services.runtime.log import fields
from shoal.backoff import Backoff
from shoal.names import AttemptRef
from shoal.session.lane import Lane

LOG = logging.getLogger(__name__)

ORDER_BACKOFF: Final = Backoff(0.5, 10.0, jitter=0.0)
"""How often an order is given again; each call has a deadline of its own beside that."""


class OrderedStreams(Protocol):
    """A stream worker that takes orders; each raises `StreamsError` when it did not take it."""

    async def update_lanes(self, ref: AttemptRef, lanes: tuple[Lane, ...]) -> None:
        """Tell it where the peers of an attempt are now."""
        ...

    async def conclude(self, ref: AttemptRef, *, succeeded: bool) -> None:
        """Tell it how a program ended."""
        ...

    async def detach(self, ref: AttemptRef) -> None:
        """Let it drop an attempt."""
        ...


class StreamOrders:
    """The orders about one attempt.

    Args:
        ref: which attempt.
        streams: the worker that carries it.
        backoff: how often an order is given again.
    """

    def __init__(
        self, ref: AttemptRef, streams: OrderedStreams, backoff: Backoff = ORDER_BACKOFF
    ) -> None:
        self._ref = ref
        self._streams = streams
        self._backoff = backoff
        self._lanes: tuple[Lane, ...] | None = None
        self._succeeded: bool | None = None
        self._wanted = asyncio.Event()

    def update_lanes(self, lanes: tuple[Lane, ...]) -> None:
        """Want the worker to know these lanes, and none from before."""
        self._lanes = lanes
        self._wanted.set()

    def conclude(self, *, succeeded: bool) -> None:
        """Want the worker to know how the program ended."""
        self._succeeded = succeeded
        self._wanted.set()

    async def run(self) -> None:
        """Give the orders until cancelled."""
        while True:
            # No deadline: nothing may be wanted for days.
            await self._wanted.wait()
            self._wanted.clear()
            await self._until_taken(self._give)

    async def detach(self) -> bool:
        """Let the worker drop the attempt, in one try; say whether there is nothing left to drop."""
        return await self._taken(self._streams.detach(self._ref))

    async def detach_at_last(self) -> None:
        """Let the worker drop the attempt, however long that takes."""
        await self._until_taken(self.detach)

    async def _give(self) -> bool:
        lanes, succeeded = self._lanes, self._succeeded
        if lanes is not None:
            if not await self._taken(self._streams.update_lanes(self._ref, lanes)):
                return False
            if self._lanes is lanes:
                self._lanes = None
        if succeeded is not None:
            if not await self._taken(self._streams.conclude(self._ref, succeeded=succeeded)):
                return False
            self._succeeded = None
        return True

    async def _until_taken(self, give: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        failures = 0
        while not await give():
            failures += 1
            await asyncio.sleep(self._backoff.delay_seconds(failures, 0.0))

    async def _taken(self, telling: Coroutine[Any, Any, None]) -> bool:
        try:
            await telling
        except StreamsRefusedError as error:
            LOG.info(
                "the stream worker refused an order", extra=fields(name=self._ref.name, error=error)
            )
        except StreamsError as error:
            LOG.warning(
                "the stream worker does not listen", extra=fields(name=self._ref.name, error=error)
            )
            return False
        return True
