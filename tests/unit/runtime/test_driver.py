"""The shell around a machine: what it does in which order, and how it ends."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from services.runtime.driver import Driver, OutcomesOverflowError
from tests.kit.until import until


@dataclass
class Recorder:
    """A machine that says what it was asked: `tick` and `handle` each ask for two effects."""

    due: float | None = None
    calls: list[str] = field(default_factory=list[str])

    def handle(self, event: str, now: float) -> Sequence[str]:
        self.calls.append(f"handle {event} at {now:g}")
        return [f"record {event}", f"act {event}"]

    def tick(self, now: float) -> Sequence[str]:
        self.calls.append(f"tick at {now:g}")
        self.due = None
        return ["ticked"]

    def deadline(self) -> float | None:
        return self.due


@asynccontextmanager
async def running(driver: Driver[str, str]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(driver.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=5)


async def at_rest(driver: Driver[str, str], machine: Recorder) -> None:
    """Wait until the task of the driver has taken an event, and waits for the next one."""
    await driver.post("first")
    await until(lambda: machine.calls, what="the first event handled")


async def test_performs_effects_in_order_and_one_at_a_time() -> None:
    performed: list[str] = []
    go = asyncio.Event()

    async def act(effect: str) -> None:
        performed.append(f"begin {effect}")
        if effect == "record a":
            await go.wait()
        performed.append(f"end {effect}")

    driver = Driver(Recorder(), act, lambda: 0.0)
    async with running(driver):
        await driver.post("a")
        await until(lambda: performed == ["begin record a"], what="the recording begun alone")
        go.set()
        await until(lambda: len(performed) == 4, what="both effects performed")
    assert performed == ["begin record a", "end record a", "begin act a", "end act a"]


async def test_performs_at_once_what_nothing_waits_for() -> None:
    machine, performed = Recorder(), list[str]()
    driver = Driver(machine, performed.append, lambda: 0.0)
    async with running(driver):
        await at_rest(driver, machine)
        performed.clear()
        assert driver.hand("a") is None
        assert performed == ["record a", "act a"]


async def test_what_an_effect_waits_for_holds_up_the_others_and_not_who_hands_over() -> None:
    performed: list[str] = []
    go = asyncio.Event()

    async def waiting(effect: str) -> None:
        await go.wait()
        performed.append(effect)

    def act(effect: str) -> Coroutine[None, None, None] | None:
        if effect == "record a":
            return waiting(effect)
        performed.append(effect)
        return None

    machine = Recorder()
    driver = Driver(machine, act, lambda: 0.0)
    async with running(driver):
        await at_rest(driver, machine)
        performed.clear()
        assert driver.offer("a")
        assert driver.offer("b")
        assert not performed
        go.set()
        await until(lambda: len(performed) == 4, what="the effects of both events")
    assert performed == ["record a", "act a", "record b", "act b"]


async def test_takes_what_an_effect_hands_over_after_all_effects_of_its_cause() -> None:
    performed: list[str] = []

    def act(effect: str) -> None:
        performed.append(effect)
        if effect == "record a":
            assert driver.offer("b")

    machine = Recorder()
    driver = Driver(machine, act, lambda: 0.0)
    async with running(driver):
        await at_rest(driver, machine)
        performed.clear()
        assert driver.offer("a")
        assert performed == ["record a", "act a", "record b", "act b"]


async def test_a_failure_ends_the_driver_and_not_who_hands_over() -> None:
    def act(effect: str) -> None:
        if effect == "record a":
            raise OSError(f"cannot {effect}")

    machine = Recorder()
    driver = Driver(machine, act, lambda: 0.0)
    task = asyncio.create_task(driver.run())
    await at_rest(driver, machine)
    assert driver.offer("a")
    with pytest.raises(OSError, match="cannot record a"):
        await asyncio.wait_for(task, timeout=10)


async def test_looks_at_the_deadline_before_it_takes_an_event() -> None:
    machine = Recorder(due=5.0)
    driver = Driver(machine, lambda _: None, lambda: 7.0)
    await driver.post("a")
    await driver.post("b")
    async with running(driver):
        await until(lambda: len(machine.calls) == 3, what="a tick and two events")
    assert machine.calls == ["tick at 7", "handle a at 7", "handle b at 7"]


async def test_takes_one_event_between_two_looks_at_the_deadline() -> None:
    machine = Recorder()
    now = 0.0

    def act(effect: str) -> None:
        nonlocal now
        if effect == "act a":
            machine.due, now = 1.0, 2.0

    driver = Driver(machine, act, lambda: now)
    await driver.post("a")
    await driver.post("b")
    async with running(driver):
        await until(lambda: len(machine.calls) == 3, what="an event, a tick and an event")
    assert machine.calls == ["handle a at 0", "tick at 2", "handle b at 2"]


async def test_wakes_up_for_a_deadline_without_any_event() -> None:
    loop = asyncio.get_running_loop()
    machine = Recorder(due=loop.time() + 0.01)
    async with running(Driver(machine, lambda _: None, loop.time)):
        await until(lambda: len(machine.calls) == 1, what="the tick")


async def test_lets_others_run_while_its_inbox_is_never_empty() -> None:
    machine = Recorder()
    driver = Driver(machine, lambda _: None, lambda: 0.0)
    turns = 0

    async def neighbour() -> None:
        nonlocal turns
        while turns < 100:
            turns += 1
            driver.offer("more")
            driver.offer("and more")
            await driver.post("once again")

    async with running(driver):
        await asyncio.wait_for(neighbour(), timeout=10)
    assert turns == 100


async def test_refuses_what_finds_no_room() -> None:
    driver = Driver(Recorder(), lambda _: None, lambda: 0.0, inbox_size=1)
    assert driver.offer("a")
    assert not driver.offer("b")


async def test_posting_waits_for_room() -> None:
    machine = Recorder()
    driver = Driver(machine, lambda _: None, lambda: 0.0, inbox_size=1)
    await driver.post("a")
    posting = asyncio.create_task(driver.post("b"))
    async with running(driver):
        await asyncio.wait_for(posting, timeout=10)
        await until(lambda: len(machine.calls) == 2, what="both events handled")


async def test_an_outcome_posted_while_acting_does_not_wait_for_a_full_inbox() -> None:
    machine = Recorder()
    driver: Driver[str, str]

    async def act(effect: str) -> None:
        if effect == "act a":
            assert driver.offer("queued")
            await driver.post("outcome")

    driver = Driver(machine, act, lambda: 0.0, inbox_size=2)
    await driver.post("a")
    await driver.post("b")
    async with running(driver):
        await until(lambda: len(machine.calls) == 4, what="every event handled")
    assert machine.calls == [f"handle {event} at 0" for event in ("a", "queued", "outcome", "b")]


async def test_outcomes_have_a_limit_too() -> None:
    driver: Driver[str, str]

    async def act(effect: str) -> None:
        for _ in range(3):
            await driver.post(effect)

    driver = Driver(Recorder(), act, lambda: 0.0, inbox_size=2)
    await driver.post("a")
    with pytest.raises(OutcomesOverflowError, match="record a"):
        await driver.run()


async def test_an_event_that_counts_as_false_is_an_event() -> None:
    seen: list[int] = []

    class Counter:
        def handle(self, event: int, now: float) -> Sequence[int]:
            return [event]

        def tick(self, now: float) -> Sequence[int]:
            return []

        def deadline(self) -> float | None:
            return None

    driver: Driver[int, int] = Driver(Counter(), seen.append, lambda: 0.0)
    await driver.post(0)
    task = asyncio.create_task(driver.run())
    await until(lambda: seen == [0], what="the event 0 handled")
    task.cancel()


async def test_ends_with_what_an_effect_raised() -> None:
    def act(effect: str) -> None:
        raise OSError(f"cannot {effect}")

    driver = Driver(Recorder(), act, lambda: 0.0)
    await driver.post("a")
    with pytest.raises(OSError, match="cannot record a"):
        await driver.run()


async def test_ends_when_cancelled_and_runs_only_once_at_a_time() -> None:
    machine = Recorder()
    driver = Driver(machine, lambda _: None, lambda: 0.0)
    await driver.post("a")
    async with running(driver) as task:
        await until(lambda: machine.calls, what="the driver running")
        with pytest.raises(RuntimeError, match="runs already"):
            await driver.run()
    assert task.cancelled()


def test_refuses_an_inbox_without_room() -> None:
    with pytest.raises(ValueError, match="inbox_size is 0"):
        Driver(Recorder(), lambda _: None, lambda: 0.0, inbox_size=0)
