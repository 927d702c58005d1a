"""Callers that wait for the answer to an event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count

from control.core import events
from control.core.effects import AnswerValue
from control.core.errors import ControlError
from control.leader.inbox import Inbox


class Calls:
    """Gives each caller a number, and its answer once the leader has it.

    Args:
        inbox: Where the events go.
        calls_max: How many requests may wait at once; more wait for their turn.
        check_open: Raises if nothing is answered for now.
    """

    def __init__(self, inbox: Inbox, calls_max: int, check_open: Callable[[], None]) -> None:
        self._inbox = inbox
        self._check_open = check_open
        self._room = asyncio.Semaphore(calls_max)
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[AnswerValue]] = {}

    async def ask(self, makes: Sequence[Callable[[int], events.Event]]) -> Sequence[AnswerValue]:
        """Post the event that each function makes of a number; returns their answers, in order."""
        async with self._room:
            self._check_open()
            calls = {next(self._numbers): make for make in makes}
            loop = asyncio.get_running_loop()
            futures: list[asyncio.Future[AnswerValue]] = [loop.create_future() for _ in calls]
            self._waiting.update(zip(calls, futures, strict=True))
            self._inbox.ask(make(call) for call, make in calls.items())
            try:
                # No deadline: the leader answers after its next commit, or fails all callers.
                return await asyncio.gather(*futures)
            finally:
                for call in calls:
                    self._waiting.pop(call, None)

    def answer(self, call: int, value: AnswerValue) -> None:
        """Let a caller go on, if it still waits."""
        future = self._waiting.get(call)
        if future is not None and not future.done():
            future.set_result(value)

    def fail(self, call: int, error: ControlError) -> None:
        """Let a caller have an error, if it still waits."""
        future = self._waiting.get(call)
        if future is not None and not future.done():
            future.set_exception(error)

    def fail_all(self, error: ControlError) -> None:
        """Let all callers have an error of this kind and text."""
        for call in self._waiting:
            self.fail(call, type(error)(str(error)))
