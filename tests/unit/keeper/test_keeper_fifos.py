"""When the end of a program with FIFOs counts (case F6), on a clock that the test drives."""

import json
import signal

import pytest

from edge_agent.keeper.effects import Announce, FinishRelays, KillRelays, Release, SignalGroup
from edge_agent.keeper.events import (
    Ended,
    ForgetAsked,
    LeaseRenewed,
    RelayEnded,
    Started,
    StopAsked,
)
from edge_agent.keeper.launch import Port
from edge_agent.keeper.machine import KeeperMachine
from edge_agent.keeper.record import ProcessRecord
from edge_agent.keeper.request import BadRequestError, Start, read_request

_LOST = "records may be missing"


def _machine(**more: float) -> KeeperMachine:
    machine = KeeperMachine()
    started = Started(ProcessRecord("a", 42), relays=frozenset({"in", "out"}), **more)
    assert machine.handle(started, 0.0) == ()
    return machine


def _ended(code: int | None = 0) -> Ended:
    return Ended("a", code, None if code is not None else 9, 5.0)


def test_a_program_has_ended_once_its_relays_have() -> None:
    machine = _machine()
    assert machine.handle(_ended(), 1.0) == (FinishRelays("a"),)
    assert machine.handle(RelayEnded("a", "in", ""), 1.0) == ()
    record = machine.record("a")
    assert record is not None
    assert record.running
    [announced] = machine.handle(RelayEnded("a", "out", ""), 9.0)
    assert isinstance(announced, Announce)
    assert announced.record == ProcessRecord("a", 42, running=False, exit_code=0, end_time=5.0)


def test_one_that_failed_waits_for_no_records_and_misses_none() -> None:
    machine = _machine()
    assert machine.handle(_ended(3), 1.0) == (KillRelays("a"),)
    machine.handle(RelayEnded("a", "in", _LOST), 1.0)
    [announced] = machine.handle(RelayEnded("a", "out", _LOST), 1.0)
    assert isinstance(announced, Announce)
    assert (announced.record.exit_code, announced.record.problem) == (3, "")


def test_a_relay_that_dies_ends_its_program_and_the_first_problem_is_kept() -> None:
    machine = _machine(grace_seconds=2.0)
    assert machine.handle(RelayEnded("a", "in", "first"), 1.0) == (
        SignalGroup("a", 42, signal.SIGTERM),
    )
    assert machine.tick(3.0) == [SignalGroup("a", 42, signal.SIGKILL)]
    assert machine.handle(_ended(), 3.0) == (FinishRelays("a"),)
    [announced] = machine.handle(RelayEnded("a", "out", "second"), 3.0)
    assert isinstance(announced, Announce)
    assert announced.record.problem == "first"


def test_a_relay_that_ends_well_before_its_program_is_no_problem() -> None:
    machine = _machine()
    assert machine.handle(RelayEnded("a", "out", ""), 1.0) == ()
    assert machine.handle(RelayEnded("a", "in", ""), 1.0) == ()
    [announced] = machine.handle(_ended(), 2.0)
    assert isinstance(announced, Announce)


@pytest.mark.parametrize("asked", [StopAsked("a"), StopAsked("a", 0.0)])
def test_a_stop_while_records_pass_ends_the_relays_and_no_stranger(asked: StopAsked) -> None:
    machine = _machine()
    machine.handle(StopAsked("a", 5.0), 0.5)
    machine.handle(_ended(), 1.0)
    # The group's number may be somebody else's by now.
    assert machine.deadline() is None
    assert machine.tick(60.0) == []
    assert machine.handle(asked, 2.0) == (KillRelays("a"),)
    machine.handle(RelayEnded("a", "in", ""), 2.0)
    [announced] = machine.handle(RelayEnded("a", "out", _LOST), 2.0)
    assert isinstance(announced, Announce)
    assert announced.record.problem == _LOST


def test_timeout_and_lease_hold_while_records_pass() -> None:
    machine = _machine(timeout_seconds=2.0, lease_until=3.0)
    machine.handle(_ended(), 1.0)
    assert machine.deadline() == 2.0
    assert machine.tick(2.0) == [KillRelays("a")]
    machine.handle(LeaseRenewed("a", 1.0), 2.5)
    assert machine.tick(3.5) == [KillRelays("a")]
    record = machine.record("a")
    assert record is not None
    assert (record.timed_out, record.lease_ended) == (True, True)


@pytest.mark.parametrize("ends_first", [True, False])
def test_nobody_waits_for_the_records_of_what_is_forgotten(*, ends_first: bool) -> None:
    machine = _machine()
    if ends_first:
        machine.handle(_ended(), 1.0)
        assert machine.handle(ForgetAsked("a"), 2.0) == (KillRelays("a"), Release("a"))
    else:
        machine.handle(ForgetAsked("a"), 1.0)
        assert machine.handle(_ended(None), 2.0) == (KillRelays("a"),)
    assert machine.handle(RelayEnded("a", "in", _LOST), 3.0) == ()
    assert machine.handle(RelayEnded("a", "out", _LOST), 3.0) == ()
    assert machine.handle(Started(ProcessRecord("a", 43)), 4.0) == ()


def test_what_is_off_the_table_raises() -> None:
    machine = _machine()
    with pytest.raises(ValueError, match="no relay for 'other'"):
        machine.handle(RelayEnded("a", "other", ""), 0.0)
    machine.handle(_ended(), 1.0)
    with pytest.raises(ValueError, match="did not run"):
        machine.handle(_ended(), 1.0)


def test_a_request_names_a_descriptor_or_a_path() -> None:
    request = read_request(_request('{"name":"n","direction":"in","path":"/a/n"}'))
    assert isinstance(request, Start)
    assert request.program.ports == (Port("n", "in", path="/a/n"),)
    for port, words in (
        ('{"name":"n","direction":"in","path":"n"}', "absolute path"),
        ('{"name":"n","direction":"in"}', "'fd' is missing"),
        ('{"name":"n","direction":"up","fd":3}', "direction in or out"),
        (
            '{"name":"n","direction":"in","path":"/a"},{"name":"m","direction":"in","path":"/a"}',
            "share a name, a descriptor or a path",
        ),
    ):
        with pytest.raises(BadRequestError, match=words):
            read_request(_request(port))


def _request(ports: str) -> object:
    return json.loads(
        '{"id":1,"op":"start","attempt":"a","argv":["/bin/true"],"env":{},"cwd":"/","stdout":"/o",'
        f'"stderr":"/e","ports":[{ports}]}}'
    )
