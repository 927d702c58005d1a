"""How long this node may run what must not run twice.

The controller replaces an attempt that is `at_most_one_running` once the lease of its node has run out, counted from
when the last message that it answered had arrived. The node's own lease is counted from when that message was *sent*
(Gray and Cheriton, Leases, SOSP 1989), as a moment on the machine's clock that also counts sleep. So the node's moment
is before the controller's, whatever was delayed where: a request or an answer that waits makes the node's lease no
longer, only the controller's.

    sent ------ arrived                          node's end    controller's end
     |             |                                 |               |
     |---- lease - margin -------------------------->|               |
                   |---- lease ------------------------------------->|

The margin pays for ending the program (half of it for SIGTERM, then SIGKILL) and for clocks that run apart. It is ended
by its guard, `edge_agent.keeper.guard`.
"""

import asyncio
from collections.abc import Callable
from typing import Final

MARGIN_SECONDS: Final = 1.0
"""What ending a program may take on a busy machine, at most; of a short lease it is a quarter."""

_USEFUL_SECONDS: Final = 0.5
_WORTH_SECONDS: Final = 0.25


class NodeLease:
    """The lease of this node, as far as its agent knows.

    Args:
        clock: seconds on the machine's clock of leases, `edge_agent.keeper.boottime`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = 0.0
        self._told = 0.0
        self._margin_seconds = MARGIN_SECONDS
        self._renewed = asyncio.Event()

    def renew(self, until: float, lease_seconds: float) -> bool:
        """The node is not replaced before `until`; say whether that is worth telling the keeper."""
        self._margin_seconds = min(MARGIN_SECONDS, lease_seconds / 4)
        self._until = max(self._until, until)
        self._renewed.set()
        if self._until - self._told < min(_WORTH_SECONDS, self._margin_seconds):
            return False
        self._told = self._until
        return True

    @property
    def program_until(self) -> float:
        """The moment at which a program is asked to end."""
        return self._until - self._margin_seconds

    @property
    def grace_seconds(self) -> float:
        """How long after that moment it has to be gone."""
        return self._margin_seconds / 2

    def over(self) -> bool:
        """Whether no program may run any more."""
        return self._clock() >= self.program_until

    async def wait(self) -> float:
        """Wait until a program may run, and return until when."""
        while self.program_until - self._clock() < min(_USEFUL_SECONDS, self._margin_seconds):
            self._renewed.clear()
            await self._renewed.wait()
        return self.program_until
