"""Watches: a snapshot, a mark at its end, then changes with revisions to resume from.

A watcher gets things as they are now: of each thing the newest picture waits for it, in the place of one that
it has not taken, and none that is older follows. So one that takes things slower than they change sees fewer
pictures, and every last one. How many things may wait for it is bounded; beyond that it is cut off.

A watcher may have things held that go on changing: for a while it is shown only those that have come to their end,
and the others later, as they are then. It resumes before the first one that is held.

Those that watch one thing are found by it, so that a thousand that each wait for the end of another pipeline cost
nothing where no pipeline of theirs changes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import Any, Generic, Protocol, TypeVar

from control.core.errors import ControlError, WatcherTooSlowError
from shoal.view import SnapshotEnd


class Revised(Protocol):
    """Anything that is shown with the revision of its last change."""

    @property
    def revision(self) -> int:
        """Revision of the last change."""
        ...


_NOTHING = 1 << 63
"""Above all revisions."""

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
        self._of_one: dict[KeyT, set[_Watcher[KeyT, ViewT]]] = {}

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
        for watcher in self._interested(key, view):
            watcher.offer(key, view)

    def _interested(self, key: KeyT, view: ViewT) -> Iterable[_Watcher[KeyT, ViewT]]:
        found = [watcher for watcher in self._watchers if watcher.match(view)]
        of_one = self._of_one.get(key)
        if of_one is None:
            return found
        return [*found, *(watcher for watcher in of_one if watcher.match(view))]

    def stir(self, key: KeyT, view: ViewT) -> None:
        """Show something again of which nothing was recorded, to watchers that asked for that; it has no revision."""
        for watcher in self._interested(key, view):
            if watcher.stirred:
                watcher.offer(key, view)

    def cut_off(self, error: ControlError) -> None:
        """End all watches with an error."""
        for watcher in chain(self._watchers, *self._of_one.values()):
            watcher.end(error)

    @contextmanager
    def watch(
        self,
        since_revision: int,
        match: Callable[[ViewT], bool],
        snapshot: Callable[[], AsyncIterator[ViewT]],
        *,
        only: KeyT | None = None,
        stirred: bool = False,
        at_once: int = 1,
        ended: Callable[[ViewT], bool] = lambda _: True,
    ) -> Iterator[Changes[ViewT]]:
        """Watch things; `snapshot` shows all of them, as they are when it comes to them.

        Args:
            since_revision: Up to where changes are known.
            match: Says whether a thing is watched, by what never changes of it.
            snapshot: Shows all that are watched.
            only: The one key that is watched, if there is but one; `match` is asked all the same.
            stirred: Whether things are shown, too, of which nothing was recorded.
            at_once: Most things that are taken together.
            ended: Says of a thing whether it has come to its end, so that it is shown while others are held.
        """
        watcher: _Watcher[KeyT, ViewT] = _Watcher(match, self._pending_max, ended, stirred=stirred)
        whole = not self._known_from <= since_revision <= self._revision
        if not whole:
            known = self._changed if only is None else {only: self._changed.get(only)}
            for key, view in known.items():
                if view is not None and view.revision > since_revision and match(view):
                    watcher.offer(key, view)
        watchers = self._watchers if only is None else self._of_one.setdefault(only, set())
        watchers.add(watcher)
        try:
            shown = watcher.follow(snapshot() if whole else None, self._revision, at_once)
            yield Changes(shown, watcher, whole=whole)
        finally:
            watchers.discard(watcher)
            if only is not None and not watchers and self._of_one.get(only) is watchers:
                del self._of_one[only]


async def each(views: Iterable[ViewT]) -> AsyncIterator[ViewT]:
    """Show what is there, as a snapshot."""
    for view in views:
        yield view


class Changes(Generic[ViewT]):
    """What one watcher is shown, one after the other, or several together.

    Args:
        shown: The things, several at a time, and the mark after a snapshot, which comes alone.
        watcher: What is not taken yet.
        whole: Whether it begins with a snapshot.
    """

    def __init__(
        self,
        shown: AsyncIterator[Sequence[ViewT | SnapshotEnd]],
        watcher: _Watcher[Any, ViewT],
        *,
        whole: bool,
    ) -> None:
        self._shown = shown
        self._watcher = watcher
        self._within = whole
        self._waiting: deque[ViewT | SnapshotEnd] = deque()
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
        if not self._waiting:
            self._waiting.extend(await anext(self._shown))
        item = self._waiting.popleft()
        if isinstance(item, SnapshotEnd):
            self._within = False
        # What was only stirred shows an old revision again.
        seen = min(item.revision, self._watcher.held_from)
        self.resume = 0 if self._within else max(self.resume, seen)
        return item

    def hold(self, until: float) -> None:
        """Until a time of the event loop's clock, show only things that have come to their end."""
        self._watcher.held_until = until

    @property
    def within(self) -> bool:
        """Whether a snapshot is being shown, or comes next."""
        return self._within

    @property
    def more(self) -> bool:
        """Whether something was taken together with what was shown last, and is shown next without a wait."""
        return bool(self._waiting)


class _Watcher(Generic[KeyT, ViewT]):
    """What one watcher has not taken yet."""

    def __init__(
        self,
        match: Callable[[ViewT], bool],
        pending_max: int,
        ended: Callable[[ViewT], bool],
        *,
        stirred: bool,
    ) -> None:
        self.stirred = stirred
        self.match = match
        self.held_until = 0.0
        self.held_from = _NOTHING
        """The revision before that of the first thing that was left behind by what was taken last."""
        self._ended = ended
        self._pending_max = pending_max
        self._pending: dict[KeyT, ViewT] = {}
        self._wake = asyncio.Event()
        self._error: ControlError | None = None

    def offer(self, key: KeyT, view: ViewT) -> None:
        if self._error is not None:
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
        self, snapshot: AsyncIterator[ViewT] | None, revision: int, at_once: int
    ) -> AsyncIterator[Sequence[ViewT | SnapshotEnd]]:
        if snapshot is not None:
            shown: list[ViewT | SnapshotEnd] = []
            async for view in snapshot:
                if self._error is not None:
                    raise self._error
                shown.append(view)
                if len(shown) >= at_once:
                    yield shown
                    shown = []
            if shown:
                yield shown
            yield [SnapshotEnd(revision)]
        now = asyncio.get_running_loop().time
        while True:
            while taken := self._take(at_once, holding=now() < self.held_until):
                yield taken
            if self._error is not None:
                raise self._error
            self._wake.clear()
            # Unless something is held there is no deadline: nothing may change for days; the caller's
            # cancellation ends it.
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self.held_until if self._pending else None):
                    await self._wake.wait()

    def _take(self, at_once: int, *, holding: bool) -> Sequence[ViewT]:
        """Take what waits, in the order of the changes, without what is held."""
        if holding:
            ended = (key for key, view in self._pending.items() if self._ended(view))
            keys = list(islice(ended, at_once))
        elif len(self._pending) <= at_once:
            taken, self._pending = self._pending, {}
            self.held_from = _NOTHING
            return list(taken.values())
        else:
            keys = list(islice(self._pending, at_once))
        shown = [self._pending.pop(key) for key in keys]
        left = next(iter(self._pending.values()), None)
        self.held_from = _NOTHING if left is None else left.revision - 1
        return shown
