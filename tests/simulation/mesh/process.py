"""A process of the simulated mesh: tasks that can be killed or frozen together, as by a signal."""

import asyncio
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

from tests.simulation.mesh.loop import OWNER, VirtualLoop


class Process:
    """What runs under one pid, on the host of that name.

    Args:
        loop: the loop of the world.
        name: for the trace, such as `node-1/agent`.
        host: where it runs; the network cuts hosts off.
    """

    def __init__(self, loop: VirtualLoop, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.dead = False
        self.frozen = False
        self.failure: BaseException | None = None
        """What its main task raised; a crash that nobody ordered."""
        self.waiting: deque[events.Handle] = deque()
        self.tasks: set[asyncio.Task[Any]] = set()
        self._loop = loop
        self._context = copy_context()
        self._context.run(OWNER.set, self)
        self._ends: list[Callable[[], None]] = []

    def run(self, main: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin; when `main` ends, the process does."""
        task = self._loop.create_task(main, context=self._context)
        # As its own work: who started it may be gone when it ends.
        task.add_done_callback(self._ended, context=self._context)
        return task

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Let a task run in the process beside its main one, as a server does for a call."""
        return self._loop.create_task(work, context=self._context)

    def on_end(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back once the process is gone, however; returns what takes that back."""
        self._ends.append(callback)

        def take_back() -> None:
            if callback in self._ends:
                self._ends.remove(callback)

        return take_back

    def kill(self) -> None:
        """SIGKILL: nothing of it ever runs again, and nothing is cleaned up."""
        if self.dead:
            return
        self.dead = True
        self._loop.graveyard.extend(self.tasks)
        for task in self.tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self.waiting.clear()
        ends, self._ends = self._ends, []
        for callback in ends:
            callback()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT."""
        if self.frozen:
            self.frozen = False
            self._loop.thaw(self)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if self.dead:
            return
        if not task.cancelled():
            self.failure = task.exception()
        self.kill()
