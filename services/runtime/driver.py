"""The asyncio shell around one machine."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
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
        self._inbox: deque[EventT] = deque()
        # What `act` posts while the driver waits for it: the inbox may be full, and only the
        # driver empties it, so these may not wait there.
        self._outcomes: deque[EventT] = deque()
        self._task: asyncio.Task[object] | None = None
        self._acting = False
        """Whether what is posted comes from `act`, while that does not wait."""
        self._act_waits = False
        self._room: asyncio.Future[None] | None = None
        """Done once there is room in the inbox again."""
        self._asleep: asyncio.Future[None] | None = None
        # Wakes the driver when it is time. One that goes off early costs less than a new one each time.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    async def post(self, event: EventT) -> None:
        """Hand over an event and wait for room in the inbox, which slows a busy source down.

        Raises:
            OutcomesOverflowError: when called from `act` more often than the inbox is large.
        """
        while not self.offer(event):
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    def offer(self, event: EventT) -> bool:
        """Hand over an event if there is room, and say whether there was.

        For sources that cannot wait, such as datagrams.

        Raises:
            OutcomesOverflowError: when called from `act` more often than the inbox is large.
        """
        if self._acting or (self._act_waits and asyncio.current_task() is self._task):
            self._keep_outcome(event)
            return True
        if len(self._inbox) >= self.inbox_size:
            return False
        self._inbox.append(event)
        if self._asleep is not None:
            self._wake()
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
            while True:
                await (asyncio.sleep(0) if await self._turn() else self._sleep())
        finally:
            self._task = None
            self._acting = self._act_waits = False
            if self._timer is not None:
                self._timer.cancel()

    async def _turn(self) -> bool:
        """Do what is due and take what waits; say whether there may be more, and the other tasks are to have a turn."""
        machine, clock, outcomes, inbox = self.machine, self.clock, self._outcomes, self._inbox
        for _ in range(_STEPS_A_TURN):
            now = clock()
            deadline = machine.deadline()
            due = deadline is not None and deadline <= now
            if due:
                doing = self._perform(machine.tick(now))
                if doing is not None:
                    await doing
                now = clock()
            if outcomes:
                event = outcomes.popleft()
            elif inbox:
                event = inbox.popleft()
                if self._room is not None:
                    self._room.set_result(None)
                    self._room = None
            elif due:
                continue
            else:
                return False
            doing = self._perform(machine.handle(event, now))
            if doing is not None:
                await doing
        return True

    def _perform(self, effects: Iterable[EffectT]) -> Awaitable[None] | None:
        """Perform effects up to one that waits; what is returned waits for it and performs the others."""
        left = map(self.act, effects)
        self._acting = True
        for doing in left:
            if doing is not None:
                return self._go_on(doing, left)
        self._acting = False
        return None

    async def _go_on(
        self, doing: Awaitable[None] | None, left: Iterator[Awaitable[None] | None]
    ) -> None:
        while doing is not None:
            self._acting, self._act_waits = False, True
            await doing
            self._acting, self._act_waits = True, False
            doing = next((one for one in left if one is not None), None)
        self._acting = False

    async def _sleep(self) -> None:
        """Wait until something is posted, or is due."""
        deadline = self.machine.deadline()
        if deadline is not None:
            self._wake_at(deadline, deadline - self.clock())
        asleep = self._asleep = asyncio.get_running_loop().create_future()
        try:
            await asleep
        finally:
            self._asleep = None

    def _wake_at(self, at: float, seconds: float) -> None:
        """See to it that the driver wakes up at a time of its clock, which is so many seconds away."""
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(
            max(seconds, _SOON_SECONDS), self._is_time
        )

    def _is_time(self) -> None:
        self._timer = None
        self._wake()

    def _wake(self) -> None:
        if self._asleep is not None:
            if not self._asleep.done():
                self._asleep.set_result(None)
            self._asleep = None

    def _keep_outcome(self, event: EventT) -> None:
        if len(self._outcomes) >= self.inbox_size:
            raise OutcomesOverflowError(
                f"performing effects posted {self.inbox_size} events that are not taken yet, "
                f"the next one is {event!r}; post from a task of its own instead"
            )
        self._outcomes.append(event)
