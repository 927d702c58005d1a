"""Watching what happens: bounded, and a watcher that cannot keep up is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class WatchEvictedError(Exception):
    """The watcher fell too far behind; read the members again and watch anew."""


class ChangeWatch(AsyncIterator[T], Generic[T]):
    """What has happened since this watch began.

    Args:
        size: Changes that may wait.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._queue: asyncio.Queue[T | None] = asyncio.Queue(size + 1)
        self._cut = False
        self._over = False

    def push(self, change: T) -> None:
        """Hand over a change, or cut the watcher off if too many wait."""
        if self._cut or self._over:
            return
        if self._queue.qsize() >= self._size:
            self._cut = True
            self._queue.put_nowait(None)
        else:
            self._queue.put_nowait(change)

    def end(self) -> None:
        """No more changes will come."""
        if not self._cut and not self._over:
            self._over = True
            self._queue.put_nowait(None)

    async def __anext__(self) -> T:
        """Wait for the next change.

        Raises:
            WatchEvictedError: Too many changes waited.
            StopAsyncIteration: The gossip ended.
        """
        change = await self._queue.get()
        if change is not None:
            return change
        if self._cut:
            raise WatchEvictedError(
                f"over {self._size} changes waited; read the members again and watch anew"
            )
        raise StopAsyncIteration
