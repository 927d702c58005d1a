"""A program with a lease runs as long as somebody renews it, and no longer."""

import json
import signal
from dataclasses import replace

import pytest

from edge_agent.keeper.effects import Announce, RenewGuard, SignalGroup
from edge_agent.keeper.events import Ended, KillRefused, LeaseRenewed, Started
from edge_agent.keeper.machine import KeeperMachine
from edge_agent.keeper.record import ProcessRecord

RECORD = ProcessRecord("a", 7)


def test_a_lease_that_is_renewed_ends_later() -> None:
    machine = KeeperMachine()
    machine.handle(
        Started(RECORD, lease_until=2.0, lease_grace_seconds=0.5, grace_seconds=9.0), 0.0
    )
    assert machine.deadline() == 2.0
    assert list(machine.handle(LeaseRenewed("a", 6.0), 1.0)) == [RenewGuard("a", 6.5)]
    assert machine.deadline() == 6.0
    assert list(machine.tick(5.9)) == []
    assert list(machine.tick(6.0)) == [SignalGroup("a", 7, signal.SIGTERM)]
    assert list(machine.tick(6.5)) == [SignalGroup("a", 7, signal.SIGKILL)]
    [announced] = machine.handle(Ended("a", None, signal.SIGKILL, 9.0), 6.6)
    assert isinstance(announced, Announce)
    assert announced.record.lease_ended
    assert not announced.record.timed_out


def test_r5_a_renewal_that_waited_revives_nothing() -> None:
    machine = KeeperMachine()
    machine.handle(
        Started(RECORD, lease_until=2.0, lease_grace_seconds=0.5, grace_seconds=9.0), 0.0
    )
    # It was written before the lease ran out, and is read thirty seconds later.
    assert list(machine.handle(LeaseRenewed("a", 3.0), 32.0)) == [RenewGuard("a", 3.5)]
    assert list(machine.tick(32.0)) == [SignalGroup("a", 7, signal.SIGTERM)]
    assert list(machine.handle(LeaseRenewed("a", 40.0), 32.1)) == [], "it is being ended"
    assert list(machine.tick(32.5)) == [SignalGroup("a", 7, signal.SIGKILL)]


def test_r5_what_its_guard_ended_has_lost_its_lease_whatever_was_renewed_since() -> None:
    machine = KeeperMachine()
    machine.handle(Started(RECORD, lease_until=2.0, lease_grace_seconds=0.5), 0.0)
    machine.handle(LeaseRenewed("a", 40.0), 30.0)
    [announced] = machine.handle(Ended("a", None, 9, 9.0, lease_ended=True), 30.1)
    assert isinstance(announced, Announce)
    assert announced.record.lease_ended


def test_r4_what_may_not_run_twice_is_not_said_to_have_ended_while_it_runs() -> None:
    machine = KeeperMachine()
    machine.handle(Started(RECORD, lease_until=2.0, lease_grace_seconds=0.5), 0.0)
    assert list(machine.handle(KillRefused("a", "7 (sudo)", 3.0), 3.0)) == []
    [record] = machine.records()
    assert record.running
    assert record.left == "7 (sudo)"


def test_without_a_lease_nothing_ends() -> None:
    machine = KeeperMachine()
    machine.handle(Started(RECORD), 0.0)
    assert machine.deadline() is None


def test_a_record_of_an_older_keeper_can_be_read() -> None:
    old = RECORD.to_json()
    assert "lease_ended" not in old
    assert ProcessRecord.from_json(old) == RECORD


def test_a_record_crosses_the_socket_as_it_is_and_one_that_is_none_is_refused() -> None:
    ended = replace(
        RECORD, running=False, exit_code=0, end_time=2.5, timed_out=True, left="7", memory_kills=0
    )
    assert ProcessRecord.from_json(json.loads(json.dumps(ended.to_json()))) == ended
    assert ProcessRecord.from_json({**ended.to_json(), "of_a_later_keeper": 1}) == ended
    for wrong in ({"attempt": "a"}, {"pid": 1}, {"attempt": "a", "pid": "1"}):
        with pytest.raises(ValueError, match="process record"):
            ProcessRecord.from_json(wrong)
