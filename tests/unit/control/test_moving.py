"""A node that is drained with a deadline: what still runs there then is ended, and begun anew elsewhere."""

from datetime import timedelta
from typing import Any

import pytest

from control.core.machine_config import MachineConfig
from shoal.model import Capacity, JobState, Reason, ReasonCode
from shoal.names import PipelineRef
from shoal.session.assignment import Goal
from shoal.session.observation import Observation
from shoal.spec import Placement, Retry
from tests.unit.control.desk import Desk
from tests.unit.control.world import BEGAN, hello, single

S = JobState


def running(desk: Desk, **spec: Any) -> PipelineRef:
    """A job that runs on n1, with room for it on n2 since then."""
    desk.dial_all("n1")
    ref = desk.submit(single(**spec))
    desk.observe(ref, "main", S.RUNNING)
    desk.dial_all("n2")
    return ref


@pytest.mark.parametrize("placement", [Placement.AT_LEAST_ONCE, Placement.AT_MOST_ONE_RUNNING])
def test_what_still_runs_at_the_deadline_ends_and_then_begins_elsewhere(
    placement: Placement,
) -> None:
    desk = Desk()
    ref = running(desk, placement=placement)
    desk.drain("n1", move_seconds=60.0)
    desk.pass_time(59.0)
    assert desk.assignment(ref, "main").goal is Goal.RUN
    desk.pass_time(1.5)
    assert desk.assignment(ref, "main").goal is Goal.STOP
    assert desk.nodes(ref) == {"main": "n1"}, "it begins elsewhere only once it has ended here"
    assert "node n1 is drained" in desk.job(ref, "main").waiting_for
    desk.observe(ref, "main", S.CANCELLED, reason=Reason(ReasonCode.CANCELLED, 0, "stopped"))
    assert desk.nodes(ref) == {"main": "n2"}
    assert desk.assignment(ref, "main").goal is Goal.RUN
    job = desk.job(ref, "main")
    assert (job.failures, job.losses, job.epoch) == (0, 0, 2)
    assert job.reason.message == "node n1 is drained, so the job goes elsewhere"
    desk.succeed(ref, "main")
    assert desk.states(ref) == {"main": "SUCCEEDED"}


def test_a_move_is_no_failure_however_often_it_happens() -> None:
    desk = Desk(MachineConfig(losses_max=2))
    ref = running(desk, retry=Retry(attempts=1))
    for _ in range(5):
        node = desk.nodes(ref)["main"]
        other = {"n1": "n2", "n2": "n1"}[node]
        desk.drain(node, move_seconds=0.0)
        desk.observe(ref, "main", S.CANCELLED)
        assert desk.nodes(ref) == {"main": other}
        desk.observe(ref, "main", S.RUNNING)
        desk.drain(node, drained=False)
    assert desk.states(ref) == {"main": "RUNNING"}


def test_without_a_deadline_what_runs_goes_on_and_a_second_drain_keeps_the_first_deadline() -> None:
    desk = Desk()
    ref = running(desk)
    desk.drain("n1")
    desk.pass_time(1000.0)
    assert desk.assignment(ref, "main").goal is Goal.RUN
    desk.drain("n1", move_seconds=10.0)
    desk.drain("n1")
    node = desk.machine.cluster.nodes["n1"]
    assert node.move_time == BEGAN + timedelta(seconds=desk.now + 10.0)
    desk.pass_time(11.0)
    assert desk.assignment(ref, "main").goal is Goal.STOP


def test_one_that_is_taken_back_in_time_moves_nothing() -> None:
    desk = Desk()
    ref = running(desk)
    desk.drain("n1", move_seconds=10.0)
    desk.drain("n1", drained=False)
    desk.pass_time(20.0)
    assert desk.assignment(ref, "main").goal is Goal.RUN
    assert desk.machine.cluster.nodes["n1"].move_time is None


def test_the_deadline_outlives_the_controller() -> None:
    desk = Desk()
    ref = running(desk)
    desk.drain("n1", move_seconds=10.0)
    desk.pass_time(4.0)
    attempt = desk.current(ref, "main")
    desk.start()
    desk.dial(hello("n1", Observation(attempt, S.RUNNING)))
    desk.dial_all("n2")
    desk.pass_time(5.5)
    assert desk.assignment(ref, "main").goal is Goal.RUN
    desk.pass_time(1.0)
    assert desk.assignment(ref, "main").goal is Goal.STOP
    desk.start()
    desk.dial(hello("n1", Observation(attempt, S.RUNNING)))
    assert desk.assignment(ref, "main").goal is Goal.STOP, "also of one that begins behind it"


def test_what_is_pinned_stays_and_says_so() -> None:
    desk = Desk()
    ref = running(desk, placement=Placement.PINNED)
    desk.drain("n1", move_seconds=0.0)
    assert desk.assignment(ref, "main").goal is Goal.RUN
    assert "the job is pinned to it" in desk.job(ref, "main").waiting_for
    desk.drain("n1", drained=False)
    assert desk.job(ref, "main").waiting_for == ""


def test_what_has_ended_well_stores_its_results_there() -> None:
    desk = Desk()
    ref = running(desk)
    desk.observe(ref, "main", S.ARCHIVING)
    desk.drain("n1", move_seconds=0.0)
    assert desk.assignment(ref, "main").goal is Goal.RUN
    desk.observe(ref, "main", S.SUCCEEDED)
    assert desk.states(ref) == {"main": "SUCCEEDED"}


def test_where_nothing_has_room_it_waits_for_some() -> None:
    desk = Desk()
    desk.dial(hello("n1", capacity=Capacity(4.0)))
    ref = desk.submit(single())
    desk.observe(ref, "main", S.RUNNING)
    desk.drain("n1", move_seconds=0.0)
    desk.observe(ref, "main", S.CANCELLED)
    assert desk.states(ref) == {"main": "QUEUED"}
    desk.drain("n1", drained=False)
    assert desk.nodes(ref) == {"main": "n1"}


def test_a_node_that_dies_meanwhile_loses_what_it_had() -> None:
    desk = Desk()
    ref = running(desk)
    desk.drain("n1", move_seconds=0.0)
    desk.silent.add("n1")
    desk.pass_time(30.0)
    assert desk.nodes(ref) == {"main": "n2"}
