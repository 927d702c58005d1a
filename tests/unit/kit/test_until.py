"""Waiting for a condition: what comes back, and what is said when it never comes true."""

import itertools

import pytest

from tests.kit.until import until, until_sync


async def test_returns_what_the_condition_said() -> None:
    counted = itertools.count()
    assert await until(lambda: next(counted) == 3) is True
    assert next(counted) == 4


async def test_awaits_a_condition_that_has_to_be_awaited() -> None:
    counted = itertools.count()

    async def third() -> str:
        return "there" if next(counted) == 2 else ""

    assert await until(third) == "there"


async def test_names_what_never_came_true_and_the_last_value() -> None:
    with pytest.raises(AssertionError, match=r"waited 0 s for: a leader; the last value was \[\]"):
        await until(list, 0, "a leader")


async def test_an_exception_ends_the_wait() -> None:
    with pytest.raises(ZeroDivisionError):
        await until(lambda: 1 // 0)


def test_waits_without_a_loop_too() -> None:
    counted = itertools.count()
    assert until_sync(lambda: next(counted) == 3) is True
    with pytest.raises(AssertionError, match="waited 0 s for: never"):
        until_sync(lambda: None, 0, "never")
