"""When the newest state of a subject may be told, so that what flaps is told less and less often.

Rule: what changes for the first or the second time within a spell is told at once, as an outage and its
end should be. From then on each telling is followed by a pause, which doubles up to its maximum. After
the pause the state of that moment is told, if it is another one than was told last. A spell is over
once nothing was told for twice the longest pause.

Invariant: a subject that differs from what was told of it, and stays so, has a moment at which it is
told. So the last thing that is told of each subject is how it is.

Example: a node is down for 8 s of every 10 s, all day. Told are: down, back, down, and from 10 s on
every 20, 40, … 300 s how it is then: 290 events a day instead of 17,280.

Source: route flap damping (RFC 2439), which holds back what changes often, and lets the rest pass.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Hashable
from itertools import count
from typing import Generic, TypeVar

from shoal.backoff import Backoff

KeyT = TypeVar("KeyT", bound=Hashable)

_AT_ONCE = 2
"""So many tellings of a spell are followed by no pause."""


class News(Generic[KeyT]):
    """The subjects that are to be looked at, and when; monotonic seconds.

    Args:
        pause: How long a subject is left alone once it was told of often, without jitter.
    """

    def __init__(self, pause: Backoff) -> None:
        self._pause = pause
        self._due: dict[KeyT, float] = {}
        # Lazy: an entry counts as long as `_due` says the same.
        self._looks: list[tuple[float, int, KeyT]] = []
        self._ties = count()
        # For each subject: when it was told of last, and how often within this spell.
        self._told: dict[KeyT, tuple[float, int]] = {}

    def expect(self, key: KeyT, at: float) -> None:
        """Have a subject looked at; the earlier of two moments counts."""
        before = self._due.get(key)
        if before is None or at < before:
            self._due[key] = at
            heapq.heappush(self._looks, (at, next(self._ties), key))

    def drop(self, key: KeyT) -> None:
        """Look at a subject no more, until it is expected again."""
        self._due.pop(key, None)

    def forget(self, key: KeyT) -> None:
        """Drop a subject of which nothing more is told."""
        self._due.pop(key, None)
        self._told.pop(key, None)

    def take(self, now: float, most: int = sys.maxsize) -> list[KeyT]:
        """Return the subjects that are to be looked at now, in the order of their moments, at most so many."""
        found: list[KeyT] = []
        while self._looks and self._looks[0][0] <= now and len(found) < most:
            at, _, key = heapq.heappop(self._looks)
            if self._due.get(key) == at:
                del self._due[key]
                found.append(key)
        return found

    def may_tell(self, key: KeyT, now: float) -> bool:
        """Whether a subject may be told of now; if it was told of often, it is looked at when it may."""
        at, times = self._told.get(key, (now, 0))
        quiet_until = at + self._pause.delay_seconds(times - _AT_ONCE, 0.0)
        if quiet_until > now:
            self.expect(key, quiet_until)
        return quiet_until <= now

    def told(self, key: KeyT, now: float) -> None:
        """Take down that a subject was told of."""
        at, times = self._told.get(key, (now, 0))
        over = now - at > 2 * self._pause.maximum_seconds
        self._told[key] = (now, 1 if over else times + 1)

    def deadline(self) -> float | None:
        """When `take` is next wanted."""
        while self._looks and self._due.get(self._looks[0][2]) != self._looks[0][0]:
            heapq.heappop(self._looks)
        return self._looks[0][0] if self._looks else None
