"""Orders to a stream worker are given until it took them, or refused them; the latest lanes count."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edge_agent.stream_link import StreamsError, StreamsRefusedError
from edge_agent.stream_orders import StreamOrders
from shoal.backoff import Backoff
from shoal.names import AttemptRef
from shoal.session.lane import Lane, LanePeer
from tests.kit.until import until

REF = AttemptRef("default", "p", "camera", 1, 1)
QUICK = Backoff(0.001, 0.002, jitter=0.0)
AWAY = StreamsError("DEADLINE_EXCEEDED")
UNKNOWN = StreamsRefusedError("NOT_FOUND camera is not attached")


def _lanes(address: str) -> tuple[Lane, ...]:
    return (Lane("camera.out/sink.in", output=True, port="out", peer=LanePeer(address)),)


class _Streams:
    """A worker in memory: it fails with what it was told to fail with, then takes what it is told."""

    def __init__(self) -> None:
        self.failures: list[StreamsError] = []
        self.tries = 0
        self.taken: list[object] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def _take(self, what: object) -> None:
        self.tries += 1
        await self.answers.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(what)

    async def update_lanes(self, ref: AttemptRef, lanes: tuple[Lane, ...]) -> None:
        await self._take(lanes)

    async def conclude(self, ref: AttemptRef, *, succeeded: bool) -> None:
        await self._take(succeeded)

    async def detach(self, ref: AttemptRef) -> None:
        await self._take("detach")


@asynccontextmanager
async def _giving(streams: _Streams) -> AsyncIterator[StreamOrders]:
    orders = StreamOrders(REF, streams, QUICK)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(orders.run())
        yield orders
        task.cancel()


async def test_lanes_that_were_not_taken_are_told_again() -> None:
    streams = _Streams()
    streams.failures = [AWAY] * 3
    async with _giving(streams) as orders:
        orders.update_lanes(_lanes("a:1"))
        await until(lambda: streams.taken)
    assert streams.taken == [_lanes("a:1")]
    assert streams.tries == 4


async def test_only_the_latest_lanes_are_told_and_then_how_it_ended() -> None:
    streams = _Streams()
    streams.failures = [AWAY] * 5
    async with _giving(streams) as orders:
        orders.update_lanes(_lanes("a:1"))
        await until(lambda: streams.tries)
        orders.update_lanes(_lanes("b:1"))
        orders.conclude(succeeded=True)
        orders.update_lanes(_lanes("c:1"))
        await until(lambda: len(streams.taken) == 2)
    assert streams.taken == [_lanes("c:1"), True]


async def test_what_is_wanted_in_the_middle_of_a_call_is_told_afterwards() -> None:
    streams = _Streams()
    async with _giving(streams) as orders:
        streams.answers.clear()
        orders.update_lanes(_lanes("a:1"))
        await until(lambda: streams.tries == 1)
        orders.update_lanes(_lanes("b:1"))
        streams.answers.set()
        await until(lambda: _lanes("b:1") in streams.taken)
        orders.conclude(succeeded=False)
        await until(lambda: False in streams.taken)
    assert streams.taken[-2:] == [_lanes("b:1"), False]


async def test_what_the_worker_refuses_is_not_told_again() -> None:
    streams = _Streams()
    streams.failures = [UNKNOWN]
    async with _giving(streams) as orders:
        orders.update_lanes(_lanes("a:1"))
        orders.conclude(succeeded=True)
        await until(lambda: streams.taken)
    assert streams.taken == [True]
    assert streams.tries == 2


async def test_an_attempt_is_dropped_in_one_try_or_however_long_it_takes() -> None:
    streams = _Streams()
    streams.failures = [AWAY] * 4
    orders = StreamOrders(REF, streams, QUICK)
    assert not await orders.detach()
    await orders.detach_at_last()
    assert streams.taken == ["detach"]
    assert streams.tries == 5
    streams.failures = [UNKNOWN]
    assert await orders.detach(), "there is nothing to drop"
