"""Work that may take long and touches the disk: walking, hashing, laying out, removing.

It is written as steps, a generator that yields after each entry or chunk, and is done in slices by
a few threads of its own. What waits takes turns slice by slice, so that one attempt with a file of a
terabyte delays the others by a slice and not by an hour; and giving up means to do no further slice,
so that a cancelled attempt is rid of its work at once.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Self, TypeAlias, TypeVar

from edge_agent.short_work import ShortWork

LOG = logging.getLogger(__name__)

ValueT = TypeVar("ValueT")

Steps: TypeAlias = Generator[None, None, ValueT]
"""Work that stops after each step, and what it returns."""

_THREADS: Final = 4
_SLICE_SECONDS: Final = 0.1
_GIVE_UP_SECONDS: Final = 10.0


def done_at_once(steps: Steps[ValueT]) -> ValueT:
    """Do all steps here and now, where they are known to be few."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            value: ValueT = done.value
            return value


class LongWork:
    """Does steps on threads of its own; use it with `async with`.

    Args:
        clock: seconds on a monotonic clock; used by several threads.
        slice_seconds: after how long it is another task's turn.
    """

    def __init__(
        self, clock: Callable[[], float], *, slice_seconds: float = _SLICE_SECONDS
    ) -> None:
        self.clock = clock
        self._slice_seconds = slice_seconds
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="long-work")
        self.short = ShortWork()
        """Does what is no more than a few system calls."""

    async def __aenter__(self) -> Self:
        """Nothing is opened before there is work."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.short.close()

    async def run(self, steps: Steps[ValueT]) -> ValueT:
        """Do the steps and return what they return; a cancellation ends them within a step.

        Raises:
            Exception: whatever a step raises.
        """
        loop = asyncio.get_running_loop()

        def advance() -> tuple[ValueT] | None:
            until = self.clock() + self._slice_seconds
            try:
                while self.clock() < until:
                    next(steps)
            except StopIteration as done:
                return (done.value,)
            return None

        value: tuple[ValueT] | None = None
        try:
            while value is None:
                value = await _to_its_end(loop.run_in_executor(self._threads, advance))
        except BaseException:
            # The steps' own endings close what they have open; they may take a moment, too.
            with contextlib.suppress(RuntimeError, ValueError):
                await _to_its_end(loop.run_in_executor(self._threads, steps.close))
            raise
        return value[0]


async def _to_its_end(slice_: asyncio.Future[ValueT]) -> ValueT:
    """Wait for a slice, which no cancellation can stop; then be cancelled."""
    try:
        return await asyncio.shield(slice_)
    except asyncio.CancelledError:
        # The task that cancelled may remove what the slice works on as soon as this returns.
        _, stuck = await asyncio.wait({slice_}, timeout=_GIVE_UP_SECONDS)
        if stuck:
            LOG.warning("a thread hangs in the disk; its work is left to itself")
        elif not slice_.cancelled():
            slice_.exception()  # seen, and of no interest any more
        raise
