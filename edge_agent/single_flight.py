"""Doing something once for all tasks that want it at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class SingleFlight(Generic[KeyT, ValueT]):
    """Lets one caller do the work for a key while the others wait for its turn to end.

    If the one is cancelled or fails, the next one tries for itself: a failure is its caller's own,
    and a value is not kept here, so `work` begins by looking whether it is there already.
    """

    def __init__(self) -> None:
        self._locks: dict[KeyT, tuple[asyncio.Lock, int]] = {}

    async def do(self, key: KeyT, work: Callable[[], Awaitable[ValueT]]) -> ValueT:
        """Return what `work` returns, at most one at a time for each key."""
        lock, waiting = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, waiting + 1)
        try:
            async with lock:
                return await work()
        finally:
            lock, waiting = self._locks[key]
            if waiting == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, waiting - 1)
