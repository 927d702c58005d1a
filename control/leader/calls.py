"""Callers that wait for the answer to an event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count, islice

from control.core import events
from control.core.effects import AnswerValue
from control.core.errors import ControlError
from control.leader.inbox import Inbox


@dataclass(slots=True)
class _Asked:
    """The calls of one caller, which goes on once all of them are answered."""

    over: asyncio.Future[None]
    calls: Sequence[int]
    answers: dict[int, AnswerValue] = field(default_factory=dict[int, AnswerValue])


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
        self._waiting: dict[int, _Asked] = {}

    async def ask(self, makes: Sequence[Callable[[int], events.Event]]) -> Sequence[AnswerValue]:
        """Post the event that each function makes of a number; returns their answers, in order."""
        async with self._room:
            self._check_open()
            if not makes:
                return []
            calls = list(islice(self._numbers, len(makes)))
            asked = _Asked(asyncio.get_running_loop().create_future(), calls)
            self._waiting |= dict.fromkeys(calls, asked)
            self._inbox.ask([make(call) for make, call in zip(makes, calls, strict=True)])
            try:
                # No deadline: the leader answers after its next commit, or fails all callers.
                await asked.over
            finally:
                for call in calls:
                    self._waiting.pop(call, None)
            return [asked.answers[call] for call in calls]

    def answer(self, call: int, value: AnswerValue) -> None:
        """Let a caller go on, if it still waits."""
        asked = self._waiting.pop(call, None)
        if asked is not None:
            asked.answers[call] = value
            if len(asked.answers) == len(asked.calls) and not asked.over.done():
                asked.over.set_result(None)

    def fail(self, call: int, error: ControlError) -> None:
        """Let a caller have an error, if it still waits."""
        asked = self._waiting.pop(call, None)
        if asked is not None and not asked.over.done():
            asked.over.set_exception(error)

    def fail_all(self, error: ControlError) -> None:
        """Let all callers have an error of this kind and text."""
        for call in tuple(self._waiting):
            self.fail(call, type(error)(str(error)))
