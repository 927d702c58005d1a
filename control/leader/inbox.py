"""What waits for the leader's next step."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from control.core import events
from shoal.model import MemberState
from shoal.names import AttemptRef


class Inbox:
    """Events in their order; of those that come without a caller only the latest of each is kept.

    Args:
        batch_max: How many events with a caller one step takes.
    """

    def __init__(self, batch_max: int) -> None:
        self._batch_max = batch_max
        self._wake = asyncio.Event()
        self._asked: deque[events.Event] = deque()
        self._verdicts: dict[str, MemberState] = {}
        self._members: dict[str, MemberState] = {}
        self._progress: dict[AttemptRef, events.Progressed] = {}
        self._conditions: dict[str, events.Conditioned] = {}
        self._bundles: dict[str, events.BundlesReported] = {}

    def ask(self, asked: Iterable[events.Event]) -> None:
        """Take events that callers wait for."""
        self._asked.extend(asked)
        self._wake.set()

    def member_verdict(self, member: str, state: MemberState) -> None:
        """Take what gossip believes of a member."""
        self._members[member] = self._verdicts[member] = state
        self._wake.set()

    def progress(self, event: events.Progressed) -> None:
        """Take counters of an attempt."""
        self._progress[event.progress.ref] = event
        self._wake.set()

    def condition(self, event: events.Conditioned) -> None:
        """Take how a node stands; what it said before and was not taken is no news any more."""
        self._conditions[event.node] = event
        self._wake.set()

    def bundles(self, event: events.BundlesReported) -> None:
        """Take which bundles a node has; what it said before and was not taken is no news any more."""
        self._bundles[event.node] = event
        self._wake.set()

    def begin(self) -> None:
        """Let a new machine learn what gossip believes: gossip says things only once."""
        self._verdicts = dict(self._members)

    def clear(self) -> None:
        """Drop what waits, but for what gossip believes."""
        self._asked.clear()
        self._progress.clear()
        self._conditions.clear()
        self._bundles.clear()

    def take(self) -> Iterable[events.Event]:
        """Take what one step takes."""
        for member, state in self._verdicts.items():
            yield events.MemberVerdict(member, state)
        self._verdicts.clear()
        # Before what was asked, which may hold the end of the attempt whose last counters these are.
        yield from self._progress.values()
        self._progress.clear()
        yield from self._conditions.values()
        self._conditions.clear()
        yield from self._bundles.values()
        self._bundles.clear()
        for _ in range(min(len(self._asked), self._batch_max)):
            yield self._asked.popleft()

    def __bool__(self) -> bool:
        """Whether something waits."""
        told = self._progress or self._conditions or self._bundles
        return bool(self._asked or self._verdicts or told)

    async def wait(self, within: float | None) -> None:
        """Wait until something is there, for at most so many seconds; None for ever."""
        if self or (within is not None and within <= 0):
            return
        self._wake.clear()
        try:
            async with asyncio.timeout(within):
                await self._wake.wait()
        except TimeoutError:
            return
