"""Room is kept for a job that is tried again, so that it and its neighbours do not wait for ever."""

from __future__ import annotations

from dataclasses import replace

from control.core.scheduler.explain import explain
from control.core.scheduler.plan import plan
from control.core.scheduler.snapshot import Kept, Snapshot
from shoal.model import Capacity, JobState
from shoal.names import JobRef, PipelineRef
from shoal.session.observation import Observation
from shoal.spec import Job, Output, Pipeline, Placement, Resources, Retry, StreamInput
from tests.unit.control.desk import Desk
from tests.unit.control.test_scheduler import job, node
from tests.unit.control.world import hello, single

S = JobState
HALF = Resources(cpus=0.5)
ONE_CPU = Capacity(cpus=1.0)
AGAIN = Retry(attempts=3, backoff_seconds=3.0)


def kept(name: str = "x", *, pinned: bool = True, namespace: str = "default") -> Kept:
    return Kept(JobRef(namespace, "p", name), "n1", HALF, pinned)


def fork(placement: Placement = Placement.AT_LEAST_ONCE) -> Pipeline:
    """A source and two sinks of half a core each."""
    reads = (StreamInput("i", "src", "o"),)
    source = Job("src", ("x",), outputs=(Output("o"),), resources=HALF)
    return Pipeline(
        "fork",
        (
            replace(source, placement=placement, retry=AGAIN),
            Job("left", ("x",), streams=reads, resources=HALF),
            Job("right", ("x",), streams=reads, resources=HALF),
        ),
    )


class _Full(Desk):
    """Two nodes of one core, and a fork on them: the source and `right` on n1."""

    def run(self, placement: Placement) -> PipelineRef:
        for name in ("n1", "n2"):
            self.dial(hello(name, capacity=ONE_CPU))
        ref = self.submit(fork(placement))
        for name in self.pipeline(ref).jobs:
            self.observe(ref, name, S.RUNNING)
        assert self.nodes(ref) == {"src": "n1", "left": "n2", "right": "n1"}
        return ref


def test_kept_room_is_for_its_own_job_alone() -> None:
    snapshot = Snapshot((node("n1", 1.0),), kept=(kept(),))
    other, same = job("y", cpus=0.75), job("x", cpus=0.75)
    made = plan(snapshot, [other])
    assert made.waiting[other.ref] == (
        "on n1: 0.75 cpus are needed, 0.5 of 1 free; 0.5 cpus are kept for pipelines/p/jobs/x, "
        "which is pinned there and waits for its next attempt"
    )
    assert [one.job for one in plan(snapshot, [other, same]).placed] == [same.ref]
    assert [one.feasible for one in explain(snapshot, same)] == [True]
    (verdict,) = explain(snapshot, other)
    assert "0.5 cpus are kept for pipelines/p/jobs/x" in verdict.sentence


def test_of_another_namespace_no_name_is_said() -> None:
    snapshot = Snapshot((node("n1", 1.0),), kept=(kept(pinned=False, namespace="b"),))
    (verdict,) = explain(snapshot, job("y", cpus=0.75))
    assert verdict.sentence == (
        "Node n1 is unfit: 0.75 cpus are needed, 0.5 of 1 free; 0.5 cpus are kept for another "
        "namespace's job, which was there and waits for its next attempt."
    )


def test_nothing_is_kept_for_a_job_that_its_node_can_never_take() -> None:
    snapshot = Snapshot((node("n1", 0.25),), kept=(kept(),))
    assert plan(snapshot, [job("y", cpus=0.25)]).placed


def test_a_pinned_job_that_waits_for_its_next_attempt_finds_its_room() -> None:
    """Its neighbour is lost meanwhile, and would fit there: then each would wait for the other."""
    desk = _Full()
    ref = desk.run(Placement.PINNED)
    desk.fail(ref, "src")
    desk.drain("n2")
    right = Observation(desk.current(ref, "right"), S.RUNNING)
    desk.start()
    desk.dial(hello("n1", right, capacity=ONE_CPU))
    desk.dial(hello("n2", capacity=ONE_CPU))  # it knows nothing of `left` any more
    assert desk.nodes(ref) == {"right": "n1"}
    assert "0.5 cpus are kept for pipelines/fork-" in desk.job(ref, "left").waiting_for
    assert "/jobs/src, which is pinned there and waits" in desk.job(ref, "left").waiting_for
    desk.pass_time(4.0)
    assert desk.states(ref)["src"] == "QUEUED", "both or none"
    desk.drain("n2", drained=False)
    assert desk.nodes(ref) == {"src": "n1", "left": "n2", "right": "n1"}


def test_a_job_whose_neighbours_run_finds_its_room_when_it_is_tried_again() -> None:
    desk = _Full()
    ref = desk.run(Placement.AT_LEAST_ONCE)
    desk.fail(ref, "src")
    first, second = (desk.submit(single(resources=HALF)) for _ in range(2))
    assert desk.nodes(first) == {"main": "n2"}
    assert "/jobs/src, which was there and waits" in desk.job(second, "main").waiting_for
    desk.pass_time(4.0)
    assert desk.nodes(ref)["src"] == "n1"
    assert "kept" not in desk.job(second, "main").waiting_for


def test_room_is_kept_no_longer_where_the_job_does_not_go_when_it_is_tried_again() -> None:
    desk = _Full()
    ref = desk.run(Placement.AT_LEAST_ONCE)
    desk.fail(ref, "src")
    first, second = (desk.submit(single(resources=HALF)) for _ in range(2))
    desk.drain("n1")
    desk.pass_time(4.0)
    assert desk.states(ref)["src"] == "QUEUED", "n1 is drained and n2 is full"
    assert "kept" not in desk.job(second, "main").waiting_for
    desk.succeed(first, "main")
    assert desk.nodes(ref)["src"] == "n2"


def test_what_is_kept_for_a_job_that_is_cancelled_is_free() -> None:
    desk = _Full()
    ref = desk.run(Placement.PINNED)
    desk.fail(ref, "src")
    first, second = (desk.submit(single(resources=HALF)) for _ in range(2))
    assert desk.nodes(first) | desk.nodes(second) == {"main": "n2"}
    desk.cancel(ref)
    assert desk.nodes(second) == {"main": "n1"}
