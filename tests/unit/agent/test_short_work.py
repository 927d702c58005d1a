"""Short work on its thread: what it returns, and when the loop hears of it."""

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial

import pytest

from edge_agent.short_work import ShortWork
from tests.kit.until import until


@pytest.fixture
async def work() -> AsyncIterator[ShortWork]:
    made = ShortWork()
    yield made
    made.close()


def _fails() -> int:
    raise OSError(2, "no such file")


def _noted(done: list[int], number: int) -> int:
    done.append(number)
    return number


async def test_returns_what_work_returns_or_raises_in_order(work: ShortWork) -> None:
    done: list[int] = []
    pieces = [work.do(partial(_noted, done, number)) for number in range(5)]
    failed = work.do(_fails, quietly=True)
    assert await asyncio.wait_for(asyncio.gather(*pieces), timeout=10) == [0, 1, 2, 3, 4]
    assert done == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="no such file"):
        await asyncio.wait_for(failed, timeout=10)


async def test_quiet_work_is_there_for_the_one_that_looks(work: ShortWork) -> None:
    done: list[int] = []
    piece = work.do(partial(_noted, done, 7), quietly=True)
    await until(lambda: done == [7], what="the work done")
    await until(lambda: work.look(piece), what="the look that finds it")
    assert piece.result() == 7


async def test_what_is_looked_for_too_early_wakes_the_loop(work: ShortWork) -> None:
    go = threading.Event()
    piece = work.do(lambda: go.wait(60), quietly=True)
    assert not work.look(piece)
    go.set()
    assert await asyncio.wait_for(piece, timeout=10)


async def test_quiet_work_that_is_never_looked_for_is_told_all_the_same(work: ShortWork) -> None:
    pieces = [work.do(partial(int, number), quietly=True) for number in range(3)]
    assert await asyncio.wait_for(asyncio.gather(*pieces), timeout=10) == [0, 1, 2]


async def test_quiet_work_that_was_given_up_harms_no_other(work: ShortWork) -> None:
    go = threading.Event()
    first = work.do(lambda: go.wait(60), quietly=True)
    second = work.do(lambda: 2, quietly=True)
    first.cancel()
    go.set()
    assert await asyncio.wait_for(second, timeout=10) == 2
