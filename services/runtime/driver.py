"""The asyncio shell around one machine.

**Rule.** A machine is driven where its event arises, as long as nothing has to be waited for: the call that hands over
an event returns once its effects are performed. Only where an effect waits, or where much comes at once, the driver's
task goes on, and what comes meanwhile waits in the inbox.

**Why.** A task that is woken for each event costs more than most events do.

**What stays.** The deadline counts before an event. Effects are performed one at a time and in order, also those of
what an effect hands over: that is an outcome, and is taken once all effects of its cause are performed. A machine or an
effect that fails ends the task, and the call that handed over the event returns as always.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
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
        # What `act` posts: the inbox may be full, and only the driver empties it, so these may not wait there.
        self._outcomes: deque[EventT] = deque()
        self._task: asyncio.Task[object] | None = None
        self._acting = False
        """Whether what is posted comes from `act`, while that does not wait."""
        self._act_waits = False
        self._ticked = False
        """Whether an event is next, since what was due is done."""
        self._more = False
        """Whether there may be more to do."""
        self._room: asyncio.Future[None] | None = None
        """Done once there is room in the inbox again."""
        self._asleep: asyncio.Future[None] | None = None
        """What the task waits for; while it does, the machine is driven where its events arise."""
        self._doing: Coroutine[object, object, None] | None = None
        """What the task has to wait for first."""
        self._failure: Exception | None = None
        self._due_at: float | None = None
        """The machine's deadline after the last step."""
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

    def hand(self, event: EventT) -> Coroutine[object, object, None] | None:
        """Hand over an event; what is returned has to be awaited, and waits for room as `post` does.

        Raises:
            OutcomesOverflowError: when called from `act` more often than the inbox is large.
        """
        return None if self.offer(event) else self.post(event)

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
            self._drive()
        return True

    async def run(self) -> None:
        """Drive the machine until cancelled or until `act` raises.

        Raises:
            RuntimeError: when it runs already.
        """
        if self._task is not None:
            raise RuntimeError("this driver runs already; build one driver for each machine")
        self._task = asyncio.current_task()
        self._due_at = self.machine.deadline()
        try:
            self._doing = self._advance()
            while True:
                if self._doing is not None:
                    doing, self._doing = self._doing, None
                    await doing
                elif self._more:
                    await asyncio.sleep(0)
                else:
                    await self._sleep()
                    continue
                self._doing = self._advance()
        finally:
            self._task = self._asleep = None
            self._acting = self._act_waits = False
            if self._doing is not None:
                self._doing.close()
            if self._timer is not None:
                self._timer.cancel()

    def _advance(self) -> Coroutine[object, object, None] | None:
        """Do what is due and take what waits, up to an effect that waits: what is returned waits for that."""
        machine, clock, outcomes, inbox = self.machine, self.clock, self._outcomes, self._inbox
        for _ in range(_STEPS_A_TURN):
            now = clock()
            due, self._ticked = self._ticked, False
            if not due and self._due_at is not None and self._due_at <= now:
                due = True
                doing = self._perform(machine.tick(now))
                self._due_at = machine.deadline()
                if doing is not None:
                    self._ticked = True
                    return doing
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
                break
            doing = self._perform(machine.handle(event, now))
            self._due_at = machine.deadline()
            if doing is not None:
                return doing
            if not (outcomes or inbox) and (self._due_at is None or self._due_at > now):
                break
        else:
            self._more = True
            return None
        self._more = False
        return None

    def _perform(self, effects: Iterable[EffectT]) -> Coroutine[object, object, None] | None:
        """Perform effects up to one that waits; what is returned waits for it and performs the others."""
        act, left = self.act, iter(effects)
        self._acting = True
        for effect in left:
            doing = act(effect)
            if doing is not None:
                self._acting, self._act_waits = False, True
                return self._go_on(doing, map(act, left))
        self._acting = False
        return None

    async def _go_on(
        self, doing: Awaitable[None] | None, left: Iterator[Awaitable[None] | None]
    ) -> None:
        while doing is not None:
            await doing
            self._acting, self._act_waits = True, False
            doing = next((one for one in left if one is not None), None)
            self._acting, self._act_waits = False, doing is not None

    async def _sleep(self) -> None:
        """Let the machine be driven where its events arise, until something is left to the task.

        Raises:
            Exception: what the machine or an effect raised meanwhile.
        """
        self._wake_in_time()
        asleep = self._asleep = asyncio.get_running_loop().create_future()
        try:
            await asleep
        finally:
            self._asleep = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _drive(self) -> None:
        """Take what there is here and now, while the task sleeps; what has to wait is left to that."""
        asleep, self._asleep = self._asleep, None  # what comes meanwhile is an outcome
        try:
            self._doing = self._advance()
        except Exception as failure:  # noqa: BLE001 - the task raises it
            self._failure = failure
        if self._doing is None and not self._more and self._failure is None:
            at = self._due_at
            if at is not None and (self._timer is None or self._timer_at > at):
                self._wake_in_time()
            self._asleep = asleep
        elif asleep is not None and not asleep.done():
            asleep.set_result(None)

    def _wake_in_time(self) -> None:
        """See to it that the machine is driven when something is due."""
        at = self._due_at
        if at is None:
            return
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(
            max(at - self.clock(), _SOON_SECONDS), self._is_time
        )

    def _is_time(self) -> None:
        self._timer = None
        if self._asleep is not None:
            self._drive()

    def _keep_outcome(self, event: EventT) -> None:
        if len(self._outcomes) >= self.inbox_size:
            raise OutcomesOverflowError(
                f"performing effects posted {self.inbox_size} events that are not taken yet, "
                f"the next one is {event!r}; post from a task of its own instead"
            )
        self._outcomes.append(event)
