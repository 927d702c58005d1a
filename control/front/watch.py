"""Watches: a snapshot, a mark at its end, then changes with revisions to resume from.

A watcher gets things as they are now, so several changes of one thing may become one. What it has
not taken yet is bounded; one that does not keep up is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from control.core.errors import ControlError, WatcherTooSlowError
from shoal.view import SnapshotEnd


class Revised(Protocol):
    """Anything that is shown with the revision of its last change."""

    @property
    def revision(self) -> int:
        """Revision of the last change."""
        ...


KeyT = TypeVar("KeyT")
ViewT = TypeVar("ViewT", bound=Revised)


class Watched(Generic[KeyT, ViewT]):
    """What changed lately among things that can be watched; the snapshot is the caller's.

    Args:
        revision: The revision at which this begins: earlier changes are not known.
        changes_kept: How many things that changed are kept, which a watcher may resume after.
        pending_max: How many things may wait for a watcher before it is cut off.
    """

    def __init__(self, revision: int, changes_kept: int, pending_max: int) -> None:
        self._revision = revision
        self._known_from = revision
        self._changes_kept = changes_kept
        self._changed: dict[KeyT, ViewT] = {}  # in the order of their revisions
        self._pending_max = pending_max
        self._watchers: set[_Watcher[KeyT, ViewT]] = set()

    def changed(self, key: KeyT) -> ViewT | None:
        """A thing as it is, if it is among those that changed lately."""
        return self._changed.get(key)

    def show(self, key: KeyT, view: ViewT) -> None:
        """Show something as it is from now on; its revision only rises."""
        self._changed.pop(key, None)
        self._changed[key] = view
        self._revision = max(self._revision, view.revision)
        while len(self._changed) > self._changes_kept:
            self._known_from = self._changed.pop(next(iter(self._changed))).revision
        for watcher in self._watchers:
            watcher.offer(key, view)

    def stir(self, key: KeyT, view: ViewT) -> None:
        """Show something again of which nothing was recorded, to watchers that asked for that; it has no revision."""
        for watcher in self._watchers:
            if watcher.stirred:
                watcher.offer(key, view)

    def forget(self, key: KeyT) -> None:
        """Show something no longer; watchers are not told."""
        self._changed.pop(key, None)

    def cut_off(self, error: ControlError) -> None:
        """End all watches with an error."""
        for watcher in self._watchers:
            watcher.end(error)

    @contextmanager
    def watch(
        self,
        since_revision: int,
        match: Callable[[KeyT], bool],
        snapshot: Callable[[], AsyncIterator[ViewT]],
        *,
        stirred: bool = False,
    ) -> Iterator[Changes[ViewT]]:
        """Watch everything whose key matches; `snapshot` shows all of it, as it is when it comes to it.

        With `stirred`, things are also shown of which nothing was recorded.
        """
        watcher: _Watcher[KeyT, ViewT] = _Watcher(match, self._pending_max, stirred=stirred)
        whole = not self._known_from <= since_revision <= self._revision
        if not whole:
            for key, view in self._changed.items():
                if view.revision > since_revision:
                    watcher.offer(key, view)
        self._watchers.add(watcher)
        try:
            shown = watcher.follow(snapshot() if whole else None, self._revision)
            yield Changes(shown, whole=whole)
        finally:
            self._watchers.discard(watcher)


async def each(views: Iterable[ViewT]) -> AsyncIterator[ViewT]:
    """Show what is there, as a snapshot."""
    for view in views:
        yield view


class Changes(Generic[ViewT]):
    """What one watcher is shown, one after the other.

    Args:
        shown: The things, and the mark after a snapshot.
        whole: Whether it begins with a snapshot.
    """

    def __init__(self, shown: AsyncIterator[ViewT | SnapshotEnd], *, whole: bool) -> None:
        self._shown = shown
        self._within = whole
        self.resume = 0
        """The revision to watch again from after what was shown last; 0 within a snapshot.

        Things of a snapshot come in no order of their revisions: a watcher that is cut off there begins again.
        """

    def __aiter__(self) -> AsyncIterator[ViewT | SnapshotEnd]:
        """Show what comes."""
        return self

    async def __anext__(self) -> ViewT | SnapshotEnd:
        """Return what comes next.

        Raises:
            ControlError: This watcher was cut off; the message says why.
        """
        item = await anext(self._shown)
        if isinstance(item, SnapshotEnd):
            self._within = False
        # What was only stirred shows an old revision again.
        self.resume = 0 if self._within else max(self.resume, item.revision)
        return item


class _Watcher(Generic[KeyT, ViewT]):
    """What one watcher has not taken yet."""

    def __init__(self, match: Callable[[KeyT], bool], pending_max: int, *, stirred: bool) -> None:
        self.stirred = stirred
        self._match = match
        self._pending_max = pending_max
        self._pending: dict[KeyT, ViewT] = {}
        self._wake = asyncio.Event()
        self._error: ControlError | None = None

    def offer(self, key: KeyT, view: ViewT) -> None:
        if self._error is not None or not self._match(key):
            return
        self._pending.pop(key, None)  # it moves to the end: revisions rise
        self._pending[key] = view
        if len(self._pending) > self._pending_max:
            self._pending.clear()
            self.end(
                WatcherTooSlowError(
                    f"{self._pending_max} changes waited for this watcher: watch again from the "
                    "last revision, and take them faster"
                )
            )
        self._wake.set()

    def end(self, error: ControlError) -> None:
        self._error = self._error or error
        self._wake.set()

    async def follow(
        self, snapshot: AsyncIterator[ViewT] | None, revision: int
    ) -> AsyncIterator[ViewT | SnapshotEnd]:
        if snapshot is not None:
            async for view in snapshot:
                if self._error is not None:
                    raise self._error
                yield view
            yield SnapshotEnd(revision)
        while True:
            while self._pending:
                yield self._pending.pop(next(iter(self._pending)))
            if self._error is not None:
                raise self._error
            # No deadline: nothing may change for days; the caller's cancellation ends it.
            self._wake.clear()
            await self._wake.wait()
