"""The calls of a client's lane."""

import asyncio
import contextlib

from shoal.local.lane import _together


async def test_a_lane_that_is_cancelled_as_its_call_breaks_does_end() -> None:
    """It dials again after each broken call, so that a cancellation which is dropped is one for ever."""
    dials = 0

    async def hear() -> None:
        if dials == 1:  # in the same turn of the loop in which the call breaks
            asyncio.get_running_loop().call_soon(running.cancel)
        raise ConnectionError

    async def say() -> None:
        await asyncio.Event().wait()

    async def lane() -> None:
        nonlocal dials
        while dials < 100:
            dials += 1
            with contextlib.suppress(ConnectionError):
                await _together(hear(), say())

    running = asyncio.create_task(lane())
    await asyncio.wait([running])
    assert running.cancelled()
    assert dials == 1
