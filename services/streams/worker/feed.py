"""A lane whose producer dials: a client behind a firewall feeds the portal of its local job.

The messages are those of `pull`, but the producer opens the call. It waits at the rendezvous until
the consumer's machine dials, and carries that one dial. When the machine hangs up, the call ends,
and the producer dials again.
"""

import asyncio

from services.streams import effects
from services.streams.block import Block
from services.streams.worker.call import BROKEN_CALL, ServerContext
from services.streams.worker.lane_dial import LaneDial
from services.streams.worker.lane_registry import Post
from services.streams.worker.rendezvous import OfferedCall, Rendezvous
from services.streams.worker.wire import BadBlock, Part, read_message
from shoal.names import AttemptRef
from shoal.v1 import streams_service_pb2 as v1


class FeedCall(LaneDial):
    """One dial of a machine, carried by the call of a producer that dialled in.

    Args:
        effect: which dial of the machine this is.
        opened: the first message to the producer.
        ref: the consumer's attempt.
        rendezvous: where producers wait.
        post: takes events.
    """

    def __init__(
        self,
        effect: effects.DialLane,
        opened: v1.PullOpen,
        ref: AttemptRef,
        rendezvous: Rendezvous,
        post: Post,
    ) -> None:
        super().__init__(effect, opened, post)
        self._key = (ref.namespace, ref.pipeline, effect.lane, ref.epoch)
        self._rendezvous = rendezvous

    async def dial(self) -> None:
        """Carry the call until it ends, which is posted, or until this is cancelled."""
        call = await self._rendezvous.take(self._key)
        try:
            reason, message = await self._carry(call)
        except* BROKEN_CALL:
            reason, message = "UNAVAILABLE", "the client is gone"
        finally:
            call.over.set()
        self._ended(reason, message)

    async def _carry(self, call: OfferedCall) -> tuple[str, str]:
        context = call.context
        async with asyncio.TaskGroup() as tasks:
            await context.write(v1.FeedResponse(open=self._opened).SerializeToString())
            running = (
                tasks.create_task(
                    self._write(
                        lambda ack: context.write(v1.FeedResponse(ack=ack).SerializeToString())
                    )
                ),
                reading := tasks.create_task(
                    self._read(context.read, producer="the client", client=True)
                ),
                tasks.create_task(call.over.wait()),
            )
            try:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in running:
                    task.cancel()
        if reading.cancelled():
            return "UNAVAILABLE", "the client dialled again"
        return reading.result()


def read_feed(data: bytes) -> v1.FeedRequest | v1.PullResponse | Block | Part | BadBlock:
    """Read what a producer that dials says; all but its first message is as from one that is dialled."""
    if data and data[0] == v1.FeedRequest.OPEN_FIELD_NUMBER << 3 | 2:
        return v1.FeedRequest.FromString(data)
    return read_message(data)


async def first_open(context: ServerContext) -> v1.FeedOpen | None:
    """Read the first message of a producer's call; None if it is something else."""
    message = await context.read()
    return message.open if isinstance(message, v1.FeedRequest) else None
