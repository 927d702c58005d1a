"""The one way in which a test waits: for a condition, never for a time.

This file alone may sleep; tests/architecture looks for sleeps everywhere else.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn, TypeVar, cast, overload

T = TypeVar("T")

PATIENCE = 4
"""A deadline is what a quiet machine may need; one that is shared may need this many times that.

It costs nothing but a later report of what never comes.
"""

FIRST_POLL_SECONDS = 0.002
SLOWEST_POLL_SECONDS = 0.05


@overload
async def until(
    predicate: Callable[[], Coroutine[Any, Any, T]], deadline_seconds: float = 10, what: str = ""
) -> T: ...
@overload
async def until(predicate: Callable[[], T], deadline_seconds: float = 10, what: str = "") -> T: ...
async def until(
    predicate: Callable[[], T | Awaitable[T]], deadline_seconds: float = 10, what: str = ""
) -> T:
    """Wait until `predicate` is truthy and return what it said.

    `predicate` may be a plain function or return an awaitable; an exception in it ends the wait,
    because a condition that cannot be evaluated is a mistake and not a "not yet".

    Raises:
        AssertionError: when the condition did not come true; names it and the last value seen.
    """
    give_up_at = time.monotonic() + PATIENCE * deadline_seconds
    poll_seconds = FIRST_POLL_SECONDS
    while True:
        said = predicate()
        value = cast("T", await said) if inspect.isawaitable(said) else said
        if value:
            return value
        if time.monotonic() >= give_up_at:
            _never(predicate, PATIENCE * deadline_seconds, what, value)
        await asyncio.sleep(poll_seconds)
        poll_seconds = min(poll_seconds * 1.5, SLOWEST_POLL_SECONDS)


async def turns(count: int) -> None:
    """Let the event loop turn `count` times, to meet what runs at one step of its way."""
    for _ in range(count):
        await asyncio.sleep(0)


def until_sync(predicate: Callable[[], T], deadline_seconds: float = 10, what: str = "") -> T:
    """Wait as `until` does, where there is no event loop.

    Raises:
        AssertionError: when the condition did not come true; names it and the last value seen.
    """
    give_up_at = time.monotonic() + PATIENCE * deadline_seconds
    poll_seconds = FIRST_POLL_SECONDS
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= give_up_at:
            _never(predicate, PATIENCE * deadline_seconds, what, value)
        time.sleep(poll_seconds)
        poll_seconds = min(poll_seconds * 1.5, SLOWEST_POLL_SECONDS)


def _never(predicate: object, deadline_seconds: float, what: str, last: object) -> NoReturn:
    name = what or getattr(predicate, "__qualname__", repr(predicate))
    raise AssertionError(f"waited {deadline_seconds:g} s for: {name}; the last value was {last!r}")
