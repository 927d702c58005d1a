"""The keeper's decisions, on a clock that the test drives."""

import signal
from random import Random

import pytest

from edge_agent.keeper.effects import Announce, Release, SignalGroup
from edge_agent.keeper.events import Ended, ForgetAsked, KillRefused, Started, StopAsked
from edge_agent.keeper.machine import KeeperMachine, UnknownAttemptError
from edge_agent.keeper.record import ProcessRecord


def _started(timeout_seconds: float = 0.0, grace_seconds: float = 5.0) -> KeeperMachine:
    machine = KeeperMachine()
    record = ProcessRecord("a", 42, start_time=1.0)
    assert machine.handle(Started(record, timeout_seconds, grace_seconds), 0.0) == ()
    return machine


def test_a_program_over_its_timeout_is_terminated_then_killed_half_a_second_later() -> None:
    machine = _started(timeout_seconds=2.0)
    assert machine.deadline() == 2.0
    assert machine.tick(1.9) == []
    assert machine.tick(2.0) == [SignalGroup("a", 42, signal.SIGTERM)]
    assert machine.deadline() == 2.5
    assert machine.tick(2.5) == [SignalGroup("a", 42, signal.SIGKILL)]
    [announced] = machine.handle(Ended("a", None, 9, 3.0), 2.6)
    assert isinstance(announced, Announce)
    assert announced.record.timed_out
    assert announced.record.signal == 9
    assert machine.deadline() is None


def test_a_stop_gives_the_grace_that_was_asked_for_and_a_second_one_only_shortens_it() -> None:
    machine = _started(grace_seconds=10.0)
    assert machine.handle(StopAsked("a"), 1.0) == (SignalGroup("a", 42, signal.SIGTERM),)
    assert machine.deadline() == 11.0
    assert machine.handle(StopAsked("a", 2.0), 2.0) == ()
    assert machine.deadline() == 4.0
    assert machine.handle(StopAsked("a", 60.0), 2.0) == ()
    assert machine.deadline() == 4.0
    assert machine.handle(StopAsked("a", 0.0), 3.0) == (SignalGroup("a", 42, signal.SIGKILL),)


def test_a_stop_after_the_end_does_nothing() -> None:
    machine = _started()
    machine.handle(Ended("a", 0, None, 2.0), 1.0)
    assert machine.handle(StopAsked("a"), 2.0) == ()
    assert machine.record("a") == ProcessRecord("a", 42, False, False, 0, None, False, 1.0, 2.0)


def test_what_is_forgotten_while_it_runs_is_killed_and_its_end_tells_nobody() -> None:
    machine = _started()
    assert machine.handle(ForgetAsked("a"), 1.0) == (
        SignalGroup("a", 42, signal.SIGKILL),
        Release("a"),
    )
    assert machine.records() == []
    assert machine.handle(Ended("a", None, 9, 2.0), 1.1) == ()
    assert machine.handle(Started(ProcessRecord("a", 43)), 2.0) == ()


@pytest.mark.parametrize("event", [StopAsked("b"), ForgetAsked("b")])
def test_an_unknown_attempt_is_refused_by_name(event: StopAsked | ForgetAsked) -> None:
    with pytest.raises(UnknownAttemptError, match="'b'"):
        _started().handle(event, 0.0)


def test_what_is_off_the_table_raises() -> None:
    machine = _started()
    with pytest.raises(ValueError, match="started already"):
        machine.handle(Started(ProcessRecord("a", 7)), 0.0)
    machine.handle(Ended("a", 0, None, 2.0), 1.0)
    with pytest.raises(ValueError, match="did not run"):
        machine.handle(Ended("a", 0, None, 2.0), 1.0)


def test_r4_a_program_that_refuses_to_be_killed_is_over_and_what_is_left_is_said() -> None:
    machine = _started(timeout_seconds=2.0)
    machine.tick(2.0)
    machine.tick(2.5)
    [announced] = machine.handle(KillRefused("a", "42 (sudo): Operation not permitted", 3.0), 2.6)
    assert isinstance(announced, Announce)
    assert not announced.record.running
    assert announced.record.timed_out
    assert announced.record.left == "42 (sudo): Operation not permitted"
    assert machine.deadline() is None
    assert machine.handle(KillRefused("a", "again", 3.0), 2.7) == ()


@pytest.mark.parametrize("seed", range(20))
def test_each_of_many_programs_is_ended_at_its_moment_whatever_the_others_do(seed: int) -> None:
    """The next moment is found without a look at every program, also once many have ended before their timeout."""
    rng, machine, now = Random(seed), KeeperMachine(), 0.0
    due: dict[str, float] = {}
    for number in range(1000):
        name = f"p{number}"
        timeout = rng.choice((0.0, rng.uniform(1.0, 50.0), 1e8))
        machine.handle(Started(ProcessRecord(name, number + 1), timeout, 5.0), now)
        if timeout:
            due[name] = now + timeout
        now += rng.uniform(0.0, 0.2)
        if rng.random() < 0.9:
            ended = rng.choice([one.attempt for one in machine.records() if one.running])
            machine.handle(Ended(ended, 0, None, now), now)
            machine.handle(ForgetAsked(ended), now)
            due.pop(ended, None)
        expected = min(due.values(), default=None)
        assert machine.deadline() == expected
        if expected is not None and expected <= now:
            late = [name for name in due if due[name] <= now]
            assert [
                one.attempt for one in machine.tick(now) if isinstance(one, SignalGroup)
            ] == late
            for name in late:
                machine.handle(Ended(name, None, 9, now), now)
                del due[name]
