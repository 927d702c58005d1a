"""The asyncio shell around one machine."""

import asyncio
import enum
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Final, Generic, TypeVar

from services.runtime.machine import Machine

EventT = TypeVar("EventT")
EffectT = TypeVar("EffectT")

_STEPS_A_TURN: Final = 32
"""Most steps that are taken before the other tasks have their turn."""


class OutcomesOverflowError(RuntimeError):
    """An effect's performer posted more events than the inbox may hold."""


_SOON_SECONDS: Final = 0.001
"""The least time that every loop can wait: for less, one may not wait at all, and the driver would go round."""


class _Wake(enum.Enum):
    """What lies in the inbox in the place of an event."""

    DUE = "due"
    """A deadline may have passed."""


@dataclass(eq=False)
class Driver(Generic[EventT, EffectT]):
    """Drives one machine: the deadline first, then one event; after some of those the other tasks.

    The other order starves timers on a busy inbox. Effects are performed one at a time and in
    order, so an effect that records is done before the one that acts begins. Stop it by cancelling
    `run`; whatever `act` raises ends `run`, since a failure that the machine should know about has
    to come back as an event.

    Args:
        machine: the core.
        act: performs one effect; a plain function or one that returns an awaitable.
        clock: seconds on a monotonic clock, the one that the machine's deadlines are on.
        inbox_size: how many events may wait.
    """

    machine: Machine[EventT, EffectT]
    act: Callable[[EffectT], Awaitable[None] | None]
    clock: Callable[[], float]
    _: KW_ONLY
    inbox_size: int = 1024

    def __post_init__(self) -> None:
        if self.inbox_size < 1:
            raise ValueError(f"inbox_size is {self.inbox_size}; it has to be at least 1")
        self._inbox: asyncio.Queue[EventT | _Wake] = asyncio.Queue(self.inbox_size)
        # What `act` posts while the driver waits for it: the inbox may be full, and only the
        # driver empties it, so these may not wait there.
        self._outcomes: deque[EventT] = deque()
        self._task: asyncio.Task[object] | None = None
        # Wakes the driver when it is time. One that goes off early costs less than a new one each time.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    async def post(self, event: EventT) -> None:
        """Hand over an event and wait for room in the inbox, which slows a busy source down.

        Raises:
            OutcomesOverflowError: when called from `act` more often than the inbox is large.
        """
        if self._acting():
            self._keep_outcome(event)
        else:
            try:
                self._inbox.put_nowait(event)
            except asyncio.QueueFull:
                await self._inbox.put(event)

    def offer(self, event: EventT) -> bool:
        """Hand over an event if there is room, and say whether there was.

        For sources that cannot wait, such as datagrams.

        Raises:
            OutcomesOverflowError: when called from `act` more often than the inbox is large.
        """
        if self._acting():
            self._keep_outcome(event)
            return True
        try:
            self._inbox.put_nowait(event)
        except asyncio.QueueFull:
            return False
        return True

    async def run(self) -> None:
        """Drive the machine until cancelled or until `act` raises.

        Raises:
            RuntimeError: when it runs already.
        """
        if self._task is not None:
            raise RuntimeError("this driver runs already; build one driver for each machine")
        self._task = asyncio.current_task()
        try:
            taken = 0
            while True:
                taken = 0 if await self._step() else taken + 1
                if taken >= _STEPS_A_TURN:
                    # One turn for the other tasks, even when the inbox is never empty.
                    taken = 0
                    await asyncio.sleep(0)
        finally:
            self._task = None
            if self._timer is not None:
                self._timer.cancel()

    async def _step(self) -> bool:
        """Do what is due, or take an event; say whether one was waited for, so that others had a turn."""
        now = self.clock()
        deadline = self.machine.deadline()
        waited = False
        if deadline is not None and deadline <= now:
            await self._perform(self.machine.tick(now))
            event = self._waiting()
        else:
            event = self._waiting()
            if event is None:
                waited = True
                if deadline is not None:
                    self._wake_at(deadline, deadline - now)
                event = await self._inbox.get()
        if event is not None and not isinstance(event, _Wake):
            await self._perform(self.machine.handle(event, self.clock()))
        return waited

    async def _perform(self, effects: Sequence[EffectT]) -> None:
        for effect in effects:
            doing = self.act(effect)
            if doing is not None:
                await doing

    def _waiting(self) -> EventT | _Wake | None:
        if self._outcomes:
            return self._outcomes.popleft()
        return None if self._inbox.empty() else self._inbox.get_nowait()

    def _wake_at(self, at: float, seconds: float) -> None:
        """See to it that the driver wakes up at a time of its clock, which is so many seconds away."""
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(max(seconds, _SOON_SECONDS), self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self._inbox.empty():  # else it is not asleep
            self._inbox.put_nowait(_Wake.DUE)

    def _acting(self) -> bool:
        return self._task is not None and asyncio.current_task() is self._task

    def _keep_outcome(self, event: EventT) -> None:
        if len(self._outcomes) >= self.inbox_size:
            raise OutcomesOverflowError(
                f"performing effects posted {self.inbox_size} events that are not taken yet, "
                f"the next one is {event!r}; post from a task of its own instead"
            )
        self._outcomes.append(event)
