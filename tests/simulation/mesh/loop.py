"""An event loop in virtual time, in which the order of everything follows from a seed.

Rule: nothing here waits. When no callback is ready, time jumps to the next timer, so that an hour
of a cluster takes as long as its work. Callbacks that are due at one moment run in the order in
which they were scheduled.

Invariant: two runs of one program with one seed run the same callbacks in the same order. asyncio
keeps tasks and futures in sets, whose order follows from `hash`, which by default is an address in
memory: those of this loop are numbered instead. Work for threads runs at once, where it is asked
for. (trio's MockClock with autojump is the model for the time.)

A callback belongs to the process (`process.py`) that it was scheduled in. Those of a process that
was killed never run, and those of one that is frozen wait until it is thawed.
"""

# A loop looks into handles and replaces methods whose types no subclass can write down on 3.11.
# mypy: disable-error-code="override, has-type, attr-defined"

import asyncio
import heapq
from asyncio import base_events, events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, Protocol, cast

TURNS_MAX = 200_000
"""Most callbacks at one moment: more than that is a loop of something that does not wait."""


class Owner(Protocol):
    """Whose callbacks these are."""

    dead: bool
    frozen: bool
    waiting: deque[events.Handle]
    tasks: set[asyncio.Task[Any]]


OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)
"""The process that the running callback belongs to; None for the world itself."""


class StuckError(Exception):
    """Callbacks followed each other without end at one moment, or nothing is left to happen."""


class _Task(asyncio.Task[Any]):
    """A task with a number for its hash."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, number: int, **more: Any) -> None:
        self.number = number
        super().__init__(coro, **more)

    def __hash__(self) -> int:
        return self.number


class _Future(asyncio.Future[Any]):
    """A future with a number for its hash."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(base_events.BaseEventLoop):
    """The loop; `run_until_complete` runs until its future is done, as in any loop."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual_now = 0.0
        self._number = 0
        self.callbacks = 0
        """How many have run."""
        self._soon: deque[events.Handle] = deque()
        self._timers: list[tuple[float, int, events.TimerHandle]] = []
        self.graveyard: list[asyncio.Task[Any]] = []
        """Tasks of killed processes: kept, so that nothing of them runs when they are collected."""
        self.set_task_factory(cast("Any", self._make_task))

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **more: Any
    ) -> asyncio.Task[Any]:
        self._number += 1
        task = _Task(coro, number=self._number, loop=loop, **more)
        context = more.get("context")
        owner = OWNER.get() if context is None else context.get(OWNER)
        if owner is not None:
            owner.tasks.add(task)
            task.add_done_callback(owner.tasks.discard)
        return task

    def create_future(self) -> asyncio.Future[Any]:
        future = _Future(loop=self)
        self._number += 1
        future.number = self._number
        return future

    def time(self) -> float:
        return self._virtual_now

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> events.Handle:
        handle = events.Handle(callback, args, self, context)
        self._soon.append(handle)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> events.TimerHandle:
        timer = events.TimerHandle(when, callback, args, self, context)
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, timer))
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> events.TimerHandle:
        return self.call_at(self._virtual_now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        """Nothing to count: a cancelled timer is dropped when its moment comes."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Do it at once."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the caller's, as from a thread
            future.set_exception(error)
        return future

    def run_forever(self) -> None:
        previous = events._get_running_loop()
        events._set_running_loop(self)
        try:
            while not self._stopping:
                self._turn()
        finally:
            self._stopping = False
            events._set_running_loop(previous)

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def thaw(self, owner: Owner) -> None:
        """Let the callbacks of a process run that waited while it was frozen."""
        self._soon.extend(owner.waiting)
        owner.waiting.clear()

    def _turn(self) -> None:
        """Run what is ready; if nothing is, go to the next moment at which something is."""
        soon, timers = self._soon, self._timers
        if not soon:
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)
            if not timers:
                raise StuckError("nothing is left to happen, and yet something is waited for")
            self._virtual_now = max(self._virtual_now, timers[0][0])
            while timers and timers[0][0] <= self._virtual_now:
                timer = heapq.heappop(timers)[2]
                if not timer._cancelled:
                    soon.append(timer)
        left = TURNS_MAX
        while soon and not self._stopping:
            handle = soon.popleft()
            if handle._cancelled:
                continue
            owner = handle._context.get(OWNER)
            if owner is not None:
                if owner.dead:
                    continue
                if owner.frozen:
                    owner.waiting.append(handle)
                    continue
            self.callbacks += 1
            handle._run()
            left -= 1
            if not left:
                raise StuckError(f"{TURNS_MAX} callbacks at {self._virtual_now} s, last {handle!r}")

    def _check_closed(self) -> None:
        """Never closed: it goes with its history."""
