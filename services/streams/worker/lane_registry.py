"""Finds the attempt here that produces a lane, and waits for an attempt that is not here yet."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from services.streams.effects import SendBlock, SendEnd, SendSpooled
from services.streams.events import Event
from shoal.names import AttemptRef
from shoal.v1.streams_service_pb2 import PullOpen

PARK_SECONDS = 10.0
"""A call for an attempt that is not here yet waits so long for it."""

Post = Callable[[Event], None]

ReadPiece = Callable[[int, int], Awaitable[bytes | memoryview]]
"""Returns the piece of a body at an offset, with a length, in bytes."""


class Served(Protocol):
    """A consumer's call as its producer sees it.

    `parts` says that a large block need not be in memory as a whole to be sent.
    """

    parts: bool

    def accept(self, producer_epoch: int, first: int) -> None:
        """Open the lane."""
        ...

    def send_block(self, effect: SendBlock) -> None:
        """Send a block after what was sent before; it is confirmed with CallReady."""
        ...

    def send_spooled(self, effect: SendSpooled, read: ReadPiece) -> None:
        """Send a large block, of which `read` reads the body; only where `parts` is set."""
        ...

    def send_end(self, effect: SendEnd) -> None:
        """Say that the lane has ended."""
        ...

    def refuse(self, reason: str, message: str) -> None:
        """Say why there is no lane, and close."""
        ...

    def close(self) -> None:
        """End the call after what is still to be sent."""
        ...

    def run(self) -> Awaitable[None]:
        """Carry the call until one of both sides ends it."""
        ...


class Producer(Protocol):
    """Carries a lane to its consumer."""

    async def serve(self, opened: PullOpen, make: Callable[[int, Post], Served]) -> None:
        """Carry a consumer's call, which `make` makes with a number and with what takes events."""
        ...


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no such lane here; `reason` and `message` go into the refusal."""

    reason: str
    message: str


class LaneRegistry:
    """The lanes that the attempts of this worker produce, by epoch."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[str, str, str], dict[int, Producer]] = {}
        self._arrival = asyncio.Condition()

    def add(self, ref: AttemptRef, lanes: Iterable[str], producer: Producer) -> None:
        """Enter the producer of these lanes."""
        for lane in lanes:
            self._lanes.setdefault((ref.namespace, ref.pipeline, lane), {})[ref.epoch] = producer

    def remove(self, ref: AttemptRef, lanes: Iterable[str], producer: Producer) -> None:
        """Take the producer of these lanes out."""
        for lane in lanes:
            key = (ref.namespace, ref.pipeline, lane)
            epochs = self._lanes.get(key, {})
            if epochs.get(ref.epoch) is producer:
                del epochs[ref.epoch]
            if not epochs:
                self._lanes.pop(key, None)

    async def announce(self) -> None:
        """Let the consumers that wait for a producer look again."""
        async with self._arrival:
            self._arrival.notify_all()

    async def find(self, opened: PullOpen) -> Producer | Missing:
        """Return the producer of a lane, waiting a while for it to be attached.

        A consumer often learns of its producer before the producer's program is started; so it
        goes on at once, and need not ask again and again.
        """
        key = (opened.namespace, opened.pipeline, opened.lane)
        epoch = opened.producer_epoch

        def settled() -> bool:
            epochs = self._lanes.get(key, {})
            return epoch in epochs or any(other > epoch for other in epochs)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PARK_SECONDS), self._arrival:
                await self._arrival.wait_for(settled)
        epochs = self._lanes.get(key, {})
        if epoch in epochs:
            return epochs[epoch]
        here = f"epochs {sorted(epochs)} of it are here" if epochs else "it is not here"
        return Missing(
            "FENCED" if epochs else "UNKNOWN_LANE",
            f"lane {opened.lane} at producer epoch {epoch}: {here}",
        )
