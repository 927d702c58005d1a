"""How long this node may run what must not run twice.

The controller replaces an attempt that is `at_most_one_running` once the lease of its node has run
out. So the node ends it before that by itself: the keeper does, because it also acts when the agent
is dead or stopped. The lease is counted on this machine's monotonic clock, from the moment in which
the message that renewed it was sent (Gray and Cheriton, Leases, SOSP 1989).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

MARGIN_SECONDS: Final = 1.0
"""What ending a program may take: its grace, and a busy machine."""

_USEFUL_SECONDS: Final = 0.5
_WORTH_SECONDS: Final = 0.25


class NodeLease:
    """The lease of this node, as far as its agent knows.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = 0.0
        self._told = 0.0
        self._renewed = asyncio.Event()

    def renew(self, until: float) -> bool:
        """The node is not replaced before `until`; say whether that is worth telling the keeper."""
        self._until = max(self._until, until)
        self._renewed.set()
        if self._until - self._told < _WORTH_SECONDS:
            return False
        self._told = self._until
        return True

    @property
    def program_seconds(self) -> float:
        """How much longer a program may run; 0 or less is not at all."""
        return self._until - MARGIN_SECONDS - self._clock()

    async def wait(self) -> float:
        """Wait until a program may run, and return for how long, in seconds."""
        while (seconds := self.program_seconds) < _USEFUL_SECONDS:
            self._renewed.clear()
            await self._renewed.wait()
        return seconds
