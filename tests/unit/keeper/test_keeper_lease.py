"""A program with a lease runs as long as somebody renews it, and no longer."""

import signal

from edge_agent.keeper.machine import (
    Announce,
    Ended,
    KeeperMachine,
    LeaseRenewed,
    SignalGroup,
    Started,
)
from edge_agent.keeper.record import ProcessRecord

RECORD = ProcessRecord("a", 7)


def test_a_lease_that_is_renewed_ends_later() -> None:
    machine = KeeperMachine()
    machine.handle(Started(RECORD, lease_seconds=2.0, grace_seconds=9.0), 0.0)
    assert machine.deadline() == 2.0
    machine.handle(LeaseRenewed("a", 5.0), 1.0)
    assert machine.deadline() == 6.0
    assert list(machine.tick(5.9)) == []
    assert list(machine.tick(6.0)) == [SignalGroup("a", 7, signal.SIGTERM)]
    assert list(machine.tick(6.5)) == [SignalGroup("a", 7, signal.SIGKILL)]
    [announced] = machine.handle(Ended("a", None, signal.SIGKILL, 9.0), 6.6)
    assert isinstance(announced, Announce)
    assert announced.record.lease_ended
    assert not announced.record.timed_out


def test_without_a_lease_nothing_ends() -> None:
    machine = KeeperMachine()
    machine.handle(Started(RECORD), 0.0)
    assert machine.deadline() is None


def test_a_record_of_an_older_keeper_can_be_read() -> None:
    old = RECORD.to_json()
    del old["lease_ended"]
    assert ProcessRecord.from_json(old) == RECORD
