"""Sends samples of the records that pass on a port, as often as an eye can follow."""

import asyncio
import contextlib
from collections.abc import Callable

from services.streams.machine import AttemptStreamsMachine
from services.streams.worker.call import ServerContext
from services.streams.worker.shell import PortTap
from shoal.v1.records_service_pb2 import TapConsumer, TapRecord, TapSample
from shoal.v1.streams_service_pb2 import TapResponse
from shoal.wire.state import encode_stream_counters

QUIET_SECONDS = 0.5
"""Counters are sent so often while nothing passes."""

_PAUSE_SECONDS = 0.05
"""Records that pass within it travel together."""


async def show(
    machine: AttemptStreamsMachine, tap: PortTap, context: ServerContext, clock: Callable[[], float]
) -> None:
    """Send samples until the stream has ended or its attempt is let go of.

    Writing waits for the viewer; meanwhile the sampler drops, and the stream goes on.
    """
    output = machine.output(tap.port)
    while True:
        tap.wake.clear()
        counters = output.counters(clock())
        ended = counters.ended or tap.gone
        sample = TapSample(
            records=[
                TapRecord(
                    sequence=one.sequence, size_bytes=one.size, data=one.data, headers=one.headers
                )
                for one in tap.sampler.take()
            ],
            dropped=tap.sampler.dropped,
            port=encode_stream_counters(counters),
            consumers=[
                TapConsumer(
                    lane=lag.lane,
                    behind_records=lag.records,
                    behind_bytes=lag.bytes,
                    done=lag.done,
                )
                for lag in output.lags()
            ],
            ended=counters.ended,
        )
        await context.write(TapResponse(sample=sample))
        if ended:
            return
        await asyncio.sleep(_PAUSE_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIET_SECONDS):
                await tap.wake.wait()
