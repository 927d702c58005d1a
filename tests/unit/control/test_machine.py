"""The control machine, rule by rule."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest

from control.core import events
from control.core.answers import Refusal, RefusalCode
from control.core.effects import EndSession, Taken
from control.core.errors import (
    HelloRefusedError,
    SessionEndedError,
    UnknownJobError,
    UnknownNodeError,
    UnknownPipelineError,
)
from control.core.machine_config import MachineConfig
from control.core.rows import OutboxKind
from shoal.model import (
    Artifact,
    Capacity,
    JobState,
    MemberState,
    PipelineState,
    Reason,
    ReasonCode,
    StreamCounters,
)
from shoal.names import AttemptRef, JobRef, PipelineRef
from shoal.session.assignment import Goal
from shoal.session.lane import LanePeer
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.spec import Job, Output, Pipeline, Place, Placement, Resources, Retry, StreamInput
from tests.unit.control.desk import Desk
from tests.unit.control.world import artifact, counter, hello, single

S = JobState


# --- the good way


def test_a_pipeline_is_placed_runs_and_succeeds() -> None:
    desk = Desk()
    early = desk.submit(single())
    assert desk.job(early, "main").waiting_for.startswith("no node has ever connected")
    desk.dial_all("n1", "n2")
    ref = desk.submit(counter())
    assert set(desk.states(ref).values()) == {"ASSIGNED"}
    assert set(desk.nodes(ref).values()) == {"n1", "n2"}
    desk.observe(ref, "camera", S.PREPARING)
    assert desk.pipeline(ref).state is PipelineState.QUEUED
    desk.observe(ref, "camera", S.RUNNING)
    assert desk.pipeline(ref).state is PipelineState.RUNNING
    desk.succeed(ref, "counter", "detector-0", "detector-1")
    desk.observe(ref, "camera", S.DRAINING, S.ARCHIVING, S.SUCCEEDED)
    pipeline = desk.pipeline(ref)
    assert pipeline.state is PipelineState.SUCCEEDED
    desk.succeed(early, "main")
    assert desk.machine.desired("n1") == desk.machine.desired("n2") == {}


def test_the_manifest_leaves_before_the_success_and_the_final_event_last() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single())
    desk.succeed(ref, "main")
    rows = desk.events()
    job, pipeline = f"{ref.name}/jobs/main", ref.name
    assert [(row.kind, row.id) for row in rows] == [
        (OutboxKind.EVENT, f"default/{job}/running/1"),
        (OutboxKind.EVENT, f"default/{pipeline}/running/1"),
        (OutboxKind.MANIFEST, f"default/{job}/manifest/1"),
        (OutboxKind.EVENT, f"default/{job}/succeeded/1"),
        (OutboxKind.EVENT, f"default/{pipeline}/succeeded/1"),
    ]
    assert [row.sequence for row in rows] == [2, 3, 4, 5, 6], "behind that of the node"
    assert rows[2].key == f"default/{job}/manifest.json"
    assert json.loads(rows[2].data)["epoch"] == 1
    (artifact,) = json.loads(rows[4].data)["artifacts"]
    assert artifact["job"] == "main"
    assert artifact["key"] == f"default/{job}/attempts/1-1/out/results/out.csv"
    assert rows[4].type == "shoal.pipeline.succeeded"


def test_repeated_and_late_observations_change_nothing() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single())
    attempt = desk.current(ref, "main")
    desk.observe(ref, "main", S.RUNNING, S.PREPARING, S.RUNNING, S.SUCCEEDED)
    before = desk.events()
    for state in (S.SUCCEEDED, S.RUNNING):
        assert desk.report("n1", attempt, state) == ()
    (fenced,) = desk.report("n1", attempt, S.FAILED)
    assert fenced.ref == attempt
    assert desk.events() == before
    assert desk.states(ref) == {"main": "SUCCEEDED"}


def test_artifacts_outside_the_attempts_own_prefix_are_not_committed() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single())
    attempt = desk.current(ref, "main")
    for key in ("default/other/x", f"{attempt.prefix}x/out"):
        stolen = Artifact("results/x", 1, "ab" * 32, key)
        seen = Observation(attempt, S.SUCCEEDED, artifacts=(stolen,))
        desk.say("n1", seen)
    job = desk.job(ref, "main")
    assert (job.state, job.reason.code) == (S.FAILED, ReasonCode.ARCHIVE)
    assert job.manifest is None


def archived(ref: AttemptRef, state: S) -> Observation:
    """An end that is no success, with something in the archive."""
    reason = Reason(ReasonCode.EXIT if state is S.FAILED else ReasonCode.CANCELLED, 3)
    return Observation(ref, state, reason, (artifact(ref),))


def test_u8_what_a_failed_attempt_archived_is_its_own_until_it_is_the_last() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single(retry=Retry(2)))
    first = desk.current(ref, "main")
    desk.observe(ref, "main", S.RUNNING)
    desk.say("n1", archived(first, S.FAILED))
    job = desk.job(ref, "main")
    assert [one.artifacts for one in job.attempts[:1]] == [(artifact(first),)]
    assert job.manifest is None
    desk.start()  # it is in the store
    desk.dial_all("n1")
    desk.pass_time(1.0)
    job = desk.job(ref, "main")
    assert job.attempts[0].artifacts == (artifact(first),)
    second = desk.current(ref, "main")
    assert second != first
    desk.say("n1", archived(second, S.FAILED))
    job = desk.job(ref, "main")
    assert (job.state, job.attempts[1].artifacts) == (S.FAILED, ())
    assert job.manifest is not None
    assert (job.manifest.attempt, job.manifest.artifacts) == (second, (artifact(second),))


def test_u8_a_cancelled_job_has_what_its_attempt_archived() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single())
    attempt = desk.current(ref, "main")
    desk.observe(ref, "main", S.RUNNING)
    desk.cancel(ref)
    desk.say("n1", archived(attempt, S.CANCELLED))
    job = desk.job(ref, "main")
    assert (job.state, job.attempts[0].artifacts) == (S.CANCELLED, ())
    assert job.manifest is not None
    assert job.manifest.artifacts == (artifact(attempt),)


# --- submissions


def test_a_request_id_makes_one_pipeline() -> None:
    desk = Desk()
    first = desk.try_submit(single(), "key")
    again = desk.try_submit(single(), "key")
    assert isinstance(first, Taken)
    assert again == Taken(first.ref, repeated=True)
    assert isinstance(desk.try_submit(single(), "key", "other"), Taken)
    desk.start()
    assert desk.try_submit(single(), "key") == Taken(first.ref, repeated=True)
    assert desk.submit(single()) != desk.submit(single()), "no key, no repetition"


def test_a_request_id_with_another_spec_is_refused_with_the_difference() -> None:
    desk = Desk()
    desk.submit(single(), "key")
    refused = desk.try_submit(single(timeout_seconds=5.0), "key")
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.reason) == (RefusalCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert refused.metadata["jobs[0].timeout_seconds"] == "0.0 -> 5.0"


def test_a_spec_that_cannot_run_is_refused_with_the_path() -> None:
    desk = Desk()
    loose = Pipeline("loose", (Job("a", ("a",), outputs=(Output("o"),)),))
    refused = desk.try_submit(loose)
    assert isinstance(refused, Refusal)
    assert refused.reason == "INVALID_SPEC"
    assert "jobs.a.outputs.o" in refused.metadata
    bad_namespace = desk.try_submit(single(), namespace="No Such")
    assert isinstance(bad_namespace, Refusal)
    assert bad_namespace.reason == "INVALID_NAMESPACE"
    long_key = desk.try_submit(single(), "k" * 300)
    assert isinstance(long_key, Refusal)
    assert long_key.reason == "INVALID_REQUEST_ID"


def test_too_many_open_pipelines_are_refused() -> None:
    desk = Desk(MachineConfig(pipelines_open_max=1))
    ref = desk.submit(single())
    refused = desk.try_submit(single())
    assert isinstance(refused, Refusal)
    assert refused.code is RefusalCode.RESOURCE_EXHAUSTED
    desk.cancel(ref)
    desk.submit(single())


def test_ended_pipelines_are_forgotten_when_there_are_too_many() -> None:
    desk = Desk(MachineConfig(pipelines_ended_max=2))
    desk.dial_all("n1")
    refs = [desk.submit(single(), f"key-{number}") for number in range(4)]
    for ref in refs:
        desk.succeed(ref, "main")
        desk.pass_time(0.25)
    assert desk.remembered() == refs[2:]
    desk.start()
    assert desk.remembered() == refs[2:]
    assert len(desk.events()) == 4 * 5, "what has not left yet still leaves"


def test_a_request_id_keeps_its_promise_after_its_pipeline_is_forgotten() -> None:
    desk = Desk(MachineConfig(pipelines_ended_max=1, ended_in_memory=0))
    desk.dial_all("n1")
    first = desk.submit(single(), "key")
    desk.succeed(first, "main")
    second = desk.submit(single(), "another")
    desk.succeed(second, "main")
    desk.pass_time(0.25)
    assert desk.remembered() == [second]
    for _ in range(2):
        answer = desk.try_submit(single(), "key")
        assert answer == Taken(first, repeated=True, ended=PipelineState.SUCCEEDED)
        refused = desk.try_submit(single("else"), "key")
        assert isinstance(refused, Refusal)
        assert refused.reason == "REQUEST_ID_REUSED"
        desk.start()
    assert desk.remembered() == [second]


def test_a_long_queue_is_placed_in_its_order_after_a_restart() -> None:
    desk = Desk(MachineConfig(plan_width=2))
    refs = [desk.submit(single(f"p{number}")) for number in range(9)]
    other = desk.submit(single("else", resources=Resources(cpus=0.5)))
    desk.cancel(refs[1])
    desk.start()
    assert {*desk.machine.cluster.pipelines} == {refs[0], refs[2], other}, "a window of each shape"
    assert len(desk.machine.cluster.queued) == 6
    since = desk.submit(single("since"))
    desk.cancel(refs[4])
    desk.dial_all("n1")
    assert refs[8] in desk.machine.cluster.queued, "what is beyond the window is a name"
    placed = [ref for ref in [*refs, since, other] if desk.nodes(ref)]
    assert placed == [refs[0], refs[2], refs[3], other]
    desk.succeed(refs[0], "main")
    assert desk.nodes(refs[5])
    assert not desk.nodes(since)


def test_what_an_agent_says_again_of_an_ended_pipeline_is_no_intrusion() -> None:
    desk = Desk(MachineConfig(ended_in_memory=0))
    desk.dial_all("n1")
    ref = desk.submit(single())
    attempt = desk.job(ref, "main").attempt
    assert attempt is not None
    desk.succeed(ref, "main")
    desk.start()
    assert desk.dial(hello("n1", Observation(attempt.ref, S.SUCCEEDED))) == ()


def test_a_job_that_is_placed_and_ends_well_is_written_once_and_is_where_it_was_after_a_start() -> (
    None
):
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single(placement=Placement.PINNED))

    def written() -> int:
        return int(desk.connection.execute("SELECT count(*) FROM jobs").fetchone()[0])

    for state in (S.ASSIGNED, S.RUNNING):
        if state is S.RUNNING:
            desk.observe(ref, "main", S.RUNNING)
        assert written() == 0
        desk.start()
        job = desk.job(ref, "main")
        assert (job.state, job.epoch, job.number, job.pinned_node) == (state, 1, 1, "n1")
        desk.dial(hello("n1", Observation(desk.current(ref, "main"), S.RUNNING)))
    desk.succeed(ref, "main")
    assert written() == 1
    desk.start()
    assert desk.pipeline(ref).state is PipelineState.SUCCEEDED


def test_ids_rise_with_submissions_and_none_is_taken_twice() -> None:
    desk = Desk()
    refs = [desk.submit(single("p")) for _ in range(100)]
    ordered = [ref.pipeline[: len("p-0000")] for ref in refs]
    assert ordered == sorted(set(ordered))
    submissions = desk.machine._submissions
    submissions._next_position -= 1
    given = iter([refs[-1].pipeline.removeprefix(ordered[-1]), "abcdef"])
    desk.machine._situation.ids = lambda _: next(given)
    assert submissions._new_ref("default", "p") == PipelineRef("default", "p-abcdef")


# --- failures


def test_a_failure_is_tried_again_after_its_backoff_and_then_fails_everything() -> None:
    desk = Desk()
    desk.dial_all("n1", "n2")
    ref = desk.submit(counter(retry=Retry(attempts=3, backoff_seconds=1.0)))
    desk.fail(ref, "camera")
    job = desk.job(ref, "camera")
    assert (job.state, job.reason.short) == (S.RETRY_WAIT, "EXIT 3")
    desk.pass_time(0.75)
    assert desk.states(ref)["camera"] == "RETRY_WAIT"
    desk.pass_time(0.25)
    assert (job.state, job.epoch, job.number) == (S.ASSIGNED, 2, 2)
    assert desk.assignment(ref, "camera").replacement
    desk.fail(ref, "camera")
    desk.pass_time(1.5)
    assert desk.states(ref)["camera"] == "RETRY_WAIT"
    desk.pass_time(0.5)
    desk.fail(ref, "camera")
    assert desk.states(ref)["camera"] == "FAILED"
    assert desk.assignment(ref, "counter").goal is Goal.STOP
    assert not desk.pipeline(ref).state.terminal
    for other in ("counter", "detector-0", "detector-1"):
        desk.observe(ref, other, S.CANCELLED)
    stopped = desk.job(ref, "counter")
    assert (stopped.state, stopped.reason.code) == (S.CANCELLED, ReasonCode.NEIGHBOUR)
    assert "camera" in stopped.reason.message
    pipeline = desk.pipeline(ref)
    assert (pipeline.state, pipeline.reason.short) == (PipelineState.FAILED, "EXIT 3")
    assert desk.events()[-1].id == pipeline.final_event_id == f"default/{ref.name}/failed/1"


def test_a_neighbour_that_breaks_while_it_is_stopped_counts_as_cancelled() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(counter())
    desk.fail(ref, "camera")
    desk.fail(ref, "counter")
    job = desk.job(ref, "counter")
    assert (job.state, job.reason.code) == (S.CANCELLED, ReasonCode.NEIGHBOUR)
    assert job.attempts[0].state is S.FAILED
    assert job.attempts[0].reason.code is ReasonCode.EXIT


def test_a_neighbour_that_has_succeeded_stays_so() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(counter())
    desk.succeed(ref, "counter")
    desk.fail(ref, "camera")
    desk.observe(ref, "detector-0", S.SUCCEEDED)
    desk.observe(ref, "detector-1", S.CANCELLED)
    assert desk.states(ref) == {
        "camera": "FAILED",
        "detector-0": "SUCCEEDED",
        "detector-1": "CANCELLED",
        "counter": "SUCCEEDED",
    }
    assert desk.pipeline(ref).state is PipelineState.FAILED


@pytest.mark.parametrize("code", [ReasonCode.REWIND, ReasonCode.LOST])
def test_rewinds_and_losses_do_not_count_but_slow_down_and_end(code: ReasonCode) -> None:
    desk = Desk(MachineConfig(losses_max=3))
    desk.dial_all("n1")
    ref = desk.submit(single())
    desk.fail(ref, "main", code)
    assert desk.states(ref) == {"main": "ASSIGNED"}, "the first costs nothing"
    desk.fail(ref, "main", code)
    assert desk.states(ref) == {"main": "RETRY_WAIT"}
    desk.pass_time(0.25)
    desk.fail(ref, "main", code)
    desk.pass_time(0.5)
    desk.fail(ref, "main", code)
    job = desk.job(ref, "main")
    assert (job.state, job.failures, job.reason.code) == (S.FAILED, 0, code)


def test_losses_that_lie_far_apart_are_forgotten() -> None:
    desk = Desk(MachineConfig(losses_max=2, stable_seconds=10.0))
    desk.dial_all("n1")
    ref = desk.submit(single())
    for _ in range(5):
        desk.observe(ref, "main", S.RUNNING)
        desk.pass_time(10.25)
        desk.fail(ref, "main", ReasonCode.REWIND)
        assert (desk.states(ref), desk.job(ref, "main").losses) == ({"main": "ASSIGNED"}, 1)


def test_an_agent_that_cancels_on_its_own_has_lost_the_attempt() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single())
    desk.observe(ref, "main", S.RUNNING, S.CANCELLED)
    job = desk.job(ref, "main")
    assert (job.state, job.losses, job.failures) == (S.ASSIGNED, 1, 0)


# --- cancelling


def test_cancel_ends_queued_jobs_at_once_and_running_ones_by_their_agents() -> None:
    desk = Desk()
    waiting = desk.submit(single())
    desk.cancel(waiting, "not needed")
    pipeline = desk.pipeline(waiting)
    assert (pipeline.state, pipeline.reason.message) == (PipelineState.CANCELLED, "not needed")
    desk.dial_all("n1")
    running = desk.submit(single())
    desk.observe(running, "main", S.RUNNING)
    desk.cancel(running)
    assert desk.assignment(running, "main").goal is Goal.STOP
    assert desk.states(running) == {"main": "RUNNING"}
    desk.observe(running, "main", S.CANCELLED)
    assert desk.pipeline(running).state is PipelineState.CANCELLED
    assert desk.job(running, "main").reason.code is ReasonCode.CANCELLED
    events = len(desk.events())
    assert desk.cancel(running) is None, "once more does no harm"
    assert len(desk.events()) == events


def test_cancel_of_a_job_whose_node_is_lost_ends_it() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single())
    desk.observe(ref, "main", S.RUNNING)
    desk.cancel(ref)
    desk.hang_up("n1")
    desk.pass_time(6.25)
    job = desk.job(ref, "main")
    assert (job.state, job.attempts[0].state) == (S.CANCELLED, S.LOST)
    assert isinstance(desk.cancel(PipelineRef("default", "nobody")), UnknownPipelineError)


# --- losing nodes


def test_a_silent_node_loses_its_attempts_when_its_lease_runs_out() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single())
    desk.observe(ref, "main", S.RUNNING)
    old = desk.current(ref, "main")
    desk.dial_all("n2")
    desk.silent.add("n1")
    desk.pass_time(5.75)
    assert desk.nodes(ref) == {"main": "n1"}
    desk.pass_time(0.5)
    assert desk.nodes(ref) == {"main": "n2"}
    assert desk.current(ref, "main").epoch == old.epoch + 1
    assert "n1" not in desk.sessions, "its session was ended"
    job = desk.job(ref, "main")
    assert (job.attempts[0].state, job.attempts[0].reason.code) == (S.LOST, ReasonCode.LOST)
    desk.silent.clear()
    (fenced,) = desk.dial(hello("n1", Observation(old, S.SUCCEEDED)))
    assert fenced.ref == old
    assert desk.machine.desired("n1") == {}
    assert desk.states(ref) == {"main": "ASSIGNED"}


def test_a_node_that_comes_back_in_time_keeps_its_attempts() -> None:
    desk = Desk()
    desk.dial_all("n1", "n2")
    ref = desk.submit(single())
    desk.observe(ref, "main", S.RUNNING)
    attempt = desk.current(ref, "main")
    node = desk.nodes(ref)["main"]
    desk.hang_up(node)
    desk.pass_time(5.0)
    assert desk.dial(hello(node, Observation(attempt, S.DRAINING))) == ()
    desk.pass_time(20.0)
    assert desk.current(ref, "main") == attempt
    assert desk.states(ref) == {"main": "DRAINING"}


def test_a_job_avoids_the_node_that_lost_it_if_there_is_another() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single())
    desk.observe(ref, "main", S.RUNNING)
    desk.restart(replace(hello("n1"), agent_id="another"))
    assert desk.job(ref, "main").attempts[0].state is S.LOST
    assert desk.nodes(ref) == {"main": "n1"}, "there is no other"
    desk.dial_all("n2")
    desk.observe(ref, "main", S.RUNNING)
    desk.restart(replace(hello("n1"), agent_id="yet another"))
    desk.pass_time(1.0)
    assert desk.nodes(ref) == {"main": "n2"}


def test_a_dead_member_without_session_is_replaced_at_once() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single())
    desk.dial_all("n2")
    desk.observe(ref, "main", S.RUNNING)
    desk.verdict("n1", MemberState.SUSPECT)
    desk.hang_up("n1")
    assert desk.nodes(ref) == {"main": "n1"}
    desk.verdict("n1", MemberState.DEAD)
    assert desk.nodes(ref) == {"main": "n2"}


def test_a_suspicion_may_be_made_to_suffice() -> None:
    desk = Desk(MachineConfig(suspect_suffices=True))
    desk.dial_all("n1")
    ref = desk.submit(single())
    desk.dial_all("n2")
    desk.observe(ref, "main", S.RUNNING)
    desk.verdict("n1", MemberState.SUSPECT)
    assert desk.nodes(ref) == {"main": "n1"}, "it still speaks"
    desk.hang_up("n1")
    assert desk.nodes(ref) == {"main": "n2"}


def test_a_dead_member_that_speaks_is_not_replaced_until_it_is_silent() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single())
    desk.dial_all("n2")
    desk.observe(ref, "main", S.RUNNING)
    desk.verdict("n1", MemberState.DEAD)
    desk.pass_time(10.0)
    assert desk.nodes(ref) == {"main": "n1"}
    desk.silent.add("n1")
    desk.pass_time(1.5)
    assert desk.nodes(ref) == {"main": "n1"}
    desk.pass_time(1.0)
    assert desk.nodes(ref) == {"main": "n2"}


def test_a_verdict_may_come_before_the_node() -> None:
    desk = Desk()
    desk.verdict("member-1", MemberState.ALIVE)
    desk.dial(replace(hello("n1"), member_name="member-1"))
    node = desk.machine.cluster.nodes["n1"]
    assert node.member_state.name == "ALIVE"
    desk.verdict("member-1", MemberState.UNKNOWN)
    assert node.member_state.name == "UNKNOWN"


def test_at_most_one_running_waits_for_the_lease_whatever_gossip_says() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single(placement=Placement.AT_MOST_ONE_RUNNING))
    desk.dial_all("n2")
    desk.observe(ref, "main", S.RUNNING)
    desk.hang_up("n1")
    desk.verdict("n1", MemberState.DEAD)
    desk.pass_time(5.5)
    assert desk.nodes(ref) == {"main": "n1"}
    assert "lease" in desk.job(ref, "main").waiting_for
    desk.pass_time(0.75)
    assert desk.nodes(ref) == {"main": "n2"}


def test_a_pinned_job_waits_for_its_node_and_goes_on_there() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single(placement=Placement.PINNED, retry=Retry(attempts=2)))
    desk.dial_all("n2")
    desk.observe(ref, "main", S.RUNNING)
    attempt = desk.current(ref, "main")
    desk.hang_up("n1")
    desk.verdict("n1", MemberState.DEAD)
    desk.pass_time(30.0)
    assert desk.current(ref, "main") == attempt
    assert "pinned" in desk.job(ref, "main").waiting_for
    assert desk.dial(hello("n1", Observation(attempt, S.RUNNING))) == ()
    assert desk.job(ref, "main").waiting_for == ""
    desk.fail(ref, "main")
    desk.pass_time(1.0)
    assert desk.nodes(ref) == {"main": "n1"}, "its retry goes there too"
    desk.restart(replace(hello("n1"), agent_id="wiped"))
    assert desk.nodes(ref) == {"main": "n1"}


def test_an_assignment_that_was_never_delivered_is_delivered_to_the_same_agent_only() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single())
    first = desk.current(ref, "main")
    desk.dial(hello("n1"))
    assert desk.current(ref, "main") == first
    desk.restart(replace(hello("n1"), agent_id="restarted"))
    assert desk.current(ref, "main").epoch == first.epoch + 1


def test_an_agent_that_leaves_an_assignment_alone_has_to_dial_again() -> None:
    desk = Desk(MachineConfig(assigned_seconds=5.0))
    desk.dial_all("n1")
    ref = desk.submit(single())
    desk.pass_time(5.25)
    assert "did not take up" in desk.ended[-1]
    desk.dial_all("n1")
    desk.observe(ref, "main", S.PREPARING)
    desk.pass_time(20.0)
    assert len(desk.ended) == 1


@pytest.mark.parametrize("read", [True, False])
def test_an_agent_is_not_blamed_for_time_in_which_nothing_was_taken(*, read: bool) -> None:
    """One step may take longer than an agent may leave its assignment alone, and its word waits meanwhile."""
    desk = Desk(MachineConfig(assigned_seconds=5.0))
    desk.dial_all("n1")
    ref = desk.submit(single())
    attempt = desk.current(ref, "main")
    took_up = events.Observed(
        next(desk.calls), "n1", desk.sessions["n1"], (Observation(attempt, S.PREPARING),)
    )
    desk.now += 60.0
    # What it said stands in the inbox, or is not read yet.
    effects = [*desk.machine.step([took_up] if read else [], desk.now)]
    if not read:
        effects += desk.machine.step([took_up], desk.now + 0.1)
    assert not [effect for effect in effects if isinstance(effect, EndSession)]
    assert desk.job(ref, "main").state is S.PREPARING


def test_what_an_agent_said_counts_before_its_silence() -> None:
    desk = Desk(MachineConfig(assigned_seconds=5.0))
    desk.dial_all("n1")
    ref = desk.submit(single())
    attempt = desk.current(ref, "main")
    desk.pass_time(4.75)
    took_up = events.Observed(
        next(desk.calls), "n1", desk.sessions["n1"], (Observation(attempt, S.PREPARING),)
    )
    effects = desk.machine.step([took_up], desk.now + 0.75)
    assert not [effect for effect in effects if isinstance(effect, EndSession)]
    assert desk.job(ref, "main").state is S.PREPARING


# --- sessions


def test_a_newer_session_replaces_the_older_one() -> None:
    desk = Desk()
    desk.dial_all("n1")
    old = desk.sessions["n1"]
    desk.dial_all("n1")
    assert "another session" in desk.ended[-1]
    answer = desk.post(lambda call: events.Observed(call, "n1", old, ()))
    assert isinstance(answer, SessionEndedError)
    desk.post(lambda call: events.SessionClosed(call, "n1", old))
    assert desk.machine.session("n1") == desk.sessions["n1"], "an old stream closes no new session"


def test_a_dead_stream_worker_loses_what_streams_once_the_session_is_over() -> None:
    desk = Desk()
    desk.dial_all("n1")
    spec = Pipeline(
        "p",
        (
            Job("a", ("a",), outputs=(Output("o"),)),
            Job(
                "b",
                ("b",),
                streams=(StreamInput("i", "a", "o"),),
                placement=Placement.AT_MOST_ONE_RUNNING,
            ),
            Job("alone", ("c",)),
        ),
    )
    ref = desk.submit(spec)
    desk.post(lambda call: events.StreamWorkerGone(call, "n1"))
    assert desk.nodes(ref) == {"a": "n1", "b": "n1", "alone": "n1"}, "its agent will say so itself"
    desk.hang_up("n1")
    desk.post(lambda call: events.StreamWorkerGone(call, "n1"))
    desk.post(lambda call: events.StreamWorkerGone(call, "nobody"))
    assert desk.nodes(ref) == {"b": "n1", "alone": "n1"}
    [lost] = desk.job(ref, "a").attempts
    assert (lost.state, lost.reason.code) == (S.LOST, ReasonCode.LOST)


def test_a_node_with_a_bad_name_is_refused() -> None:
    desk = Desk(MachineConfig(nodes_max=1))
    for name in ("No Node", ""):
        answer = desk.post(partial(_nameless, name))
        assert isinstance(answer, HelloRefusedError)
    desk.dial_all("n1")
    answer = desk.post(lambda call: events.HelloReceived(call, hello("n2"), "s"))
    assert isinstance(answer, HelloRefusedError)


def _nameless(name: str, call: int) -> events.HelloReceived:
    return events.HelloReceived(call, hello(name), "s")


def test_progress_is_shown_and_stale_progress_is_not() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single())
    attempt = desk.current(ref, "main")
    session = desk.sessions["n1"]
    counters = (StreamCounters("frames", output=True, records=3),)
    desk.post(lambda _: events.Progressed("n1", session, Progress(attempt, counters, "half way")))
    job = desk.job(ref, "main")
    assert (job.streams, job.progress) == (counters, "half way")
    stale = attempt._replace(epoch=7)
    desk.post(lambda _: events.Progressed("n1", session, Progress(stale, (), "lies")))
    desk.post(lambda _: events.Progressed("n1", "old", Progress(attempt, (), "lies")))
    assert job.progress == "half way"
    desk.observe(ref, "main", JobState.RUNNING)
    assert (job.streams, job.progress) == (counters, "")
    words = Progress(attempt, (), "x waits for the archive")
    desk.post(lambda _: events.Progressed("n1", session, words))
    assert (job.streams, job.progress) == (counters, words.text)


# --- lanes


def test_neighbours_learn_where_a_replacement_is() -> None:
    desk = Desk()
    desk.dial_all("n1", "n2", "n3")
    ref = desk.submit(counter(replicas=1))
    for job in desk.states(ref):
        desk.observe(ref, job, S.RUNNING)
    camera = desk.current(ref, "camera")
    where = desk.nodes(ref)["detector"]
    lost = desk.current(ref, "detector")
    assert _peer(desk, ref, "camera").address == f"{where}:7000"
    desk.hang_up(where)
    desk.verdict(where, MemberState.DEAD)
    now = desk.nodes(ref)["detector"]
    assert now != where
    for job in ("camera", "counter"):
        peer = _peer(desk, ref, job)
        assert (peer.address, peer.epoch, peer.done) == (f"{now}:7000", lost.epoch + 1, False)
    assert desk.current(ref, "camera") == camera, "neighbours go on"


def test_a_consumer_that_has_committed_is_done_for_its_producers() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(counter(replicas=1))
    desk.succeed(ref, "counter")
    peer = _peer(desk, ref, "detector")
    assert (peer.done, peer.address, peer.attempt) == (True, "", "")
    assert not _peer(desk, ref, "camera").done


def test_neighbours_learn_that_a_stream_worker_moved() -> None:
    desk = Desk()
    desk.dial_all("n1", "n2")
    ref = desk.submit(counter(replicas=1))
    where = desk.nodes(ref)["detector"]
    attempts = [Observation(one, S.RUNNING) for one in desk.machine.desired(where)]
    desk.dial(replace(hello(where, *attempts), stream_address="elsewhere:1"))
    assert _peer(desk, ref, "camera").address == "elsewhere:1"


def test_a_lost_neighbour_has_no_address_until_it_is_placed_again() -> None:
    desk = Desk()
    desk.dial(hello("n1", capacity=Capacity(2.0)))
    desk.dial(hello("n2", capacity=Capacity(1.0)))
    ref = desk.submit(counter(replicas=1))
    nodes = desk.nodes(ref)
    (alone,) = [job for job, node in nodes.items() if node == "n2"]
    desk.hang_up("n2")
    desk.verdict("n2", MemberState.DEAD)
    assert desk.states(ref)[alone] == "QUEUED"
    (other,) = {"camera": ["detector"], "counter": ["detector"], "detector": ["camera"]}[alone]
    peers = [lane.peer for lane in desk.assignment(ref, other).lanes if lane.peer_job == alone]
    assert [(peer.address, peer.epoch) for peer in peers] == [("", 1)]


def _peer(desk: Desk, ref: PipelineRef, job: str) -> LanePeer:
    return next(
        lane.peer
        for lane in desk.assignment(ref, job).lanes
        if job != "detector" or lane.peer_job == "counter"
    )


# --- placement


def test_jobs_that_stream_to_each_other_are_placed_together_or_not_at_all() -> None:
    desk = Desk()
    desk.dial(hello("n1", capacity=Capacity(3.0)))
    ref = desk.submit(counter())
    assert set(desk.states(ref).values()) == {"QUEUED"}
    assert "placed together" in desk.job(ref, "camera").waiting_for
    assert "they need 4 cpus at the same time" in desk.job(ref, "camera").waiting_for
    small = desk.submit(single())
    assert desk.nodes(small) == {"main": "n1"}, "what fits does not wait behind it"
    desk.dial(hello("n2", capacity=Capacity(2.0)))
    assert set(desk.states(ref).values()) == {"ASSIGNED"}
    assert desk.job(ref, "camera").waiting_for == ""


def test_gangs_that_wait_do_not_stop_single_jobs_that_ask_for_the_same() -> None:
    desk = Desk(MachineConfig(plan_width=2))
    desk.dial(hello("n1", capacity=Capacity(2.0)))
    gangs = [desk.submit(counter()) for _ in range(5)]
    singles = [desk.submit(single()) for _ in range(2)]
    assert all(set(desk.states(ref).values()) == {"QUEUED"} for ref in gangs)
    assert [desk.nodes(ref) for ref in singles] == [{"main": "n1"}] * 2


def test_a_long_queue_is_worked_off_in_its_order() -> None:
    desk = Desk(MachineConfig(plan_width=2))
    refs = [desk.submit(single()) for _ in range(9)]
    desk.dial(hello("n1", capacity=Capacity(5.0)))
    placed = [bool(desk.nodes(ref)) for ref in refs]
    assert placed == [True] * 5 + [False] * 4
    desk.cancel(refs[5])
    desk.succeed(refs[2], "main")
    assert [bool(desk.nodes(ref)) for ref in refs[5:]] == [False, True, False, False]
    assert all(desk.job(ref, "main").waiting_for for ref in refs[7:])


def test_a_finished_program_frees_its_cores_while_it_drains() -> None:
    desk = Desk()
    desk.dial(hello("n1", capacity=Capacity(1.0)))
    first, second = desk.submit(single()), desk.submit(single())
    desk.observe(first, "main", S.RUNNING)
    assert desk.states(second) == {"main": "QUEUED"}
    desk.observe(first, "main", S.DRAINING)
    assert desk.states(second) == {"main": "ASSIGNED"}


def test_nothing_is_placed_on_a_drained_node() -> None:
    desk = Desk()
    desk.dial_all("n1")
    assert desk.drain("n1") is None
    ref = desk.submit(single())
    assert "drained" in desk.job(ref, "main").waiting_for
    desk.start()
    desk.dial_all("n1")
    assert desk.states(ref) == {"main": "QUEUED"}, "it stays drained over a restart"
    desk.drain("n1", drained=False)
    assert desk.states(ref) == {"main": "ASSIGNED"}
    assert isinstance(desk.drain("n9"), UnknownNodeError)


def test_explain_has_a_sentence_for_every_node() -> None:
    desk = Desk()
    desk.dial(replace(hello("n1"), labels={"role": "camera"}))
    desk.dial_all("n2")
    ref = desk.submit(single(place=Place(require={"role": "camera"})))
    first, second = desk.machine.explain(JobRef("default", ref.pipeline, "main"))
    assert first.sentence == (
        "Node n1 has it: attempt 1 is ASSIGNED; node n1 is to take it up, or is asked again, "
        "until its lease is over."
    )
    assert (second.node, second.feasible) == ("n2", False)
    assert "role=camera" in second.sentence
    assert second.sentence.endswith("The job is on node n1.")
    desk.drain("n1")
    waiting = desk.submit(single(place=Place(require={"role": "camera"})))
    verdicts = desk.machine.explain(JobRef("default", waiting.pipeline, "main"))
    assert [verdict.feasible for verdict in verdicts] == [False, False]
    desk.succeed(ref, "main")
    for verdict in desk.machine.explain(JobRef("default", ref.pipeline, "main")):
        assert not verdict.feasible
        assert "SUCCEEDED already" in verdict.sentence
    with pytest.raises(UnknownJobError, match="its jobs are main"):
        desk.machine.explain(JobRef("default", ref.pipeline, "other"))
    with pytest.raises(UnknownPipelineError):
        desk.machine.explain(JobRef("default", "nobody", "main"))


def test_what_was_placed_before_goes_first() -> None:
    desk = Desk()
    desk.dial(hello("n1", capacity=Capacity(1.0)))
    first = desk.submit(single())
    others = [desk.submit(single()) for _ in range(3)]
    desk.observe(first, "main", S.RUNNING)
    desk.restart(replace(hello("n1", capacity=Capacity(1.0)), agent_id="another"))
    assert desk.states(first) == {"main": "ASSIGNED"}
    assert all(desk.states(other) == {"main": "QUEUED"} for other in others)


# --- restarts


def test_after_a_restart_everything_goes_on_and_nothing_restarts() -> None:
    desk = Desk()
    desk.dial_all("n1", "n2")
    ref = desk.submit(counter(retry=Retry(attempts=2, backoff_seconds=5.0)))
    desk.observe(ref, "counter", S.RUNNING)
    desk.fail(ref, "camera")
    waiting = desk.submit(single(resources=Resources(cpus=100.0)))
    before = desk.states(ref)
    attempts = {job: desk.current(ref, job) for job in ("counter", "detector-0", "detector-1")}
    nodes = desk.nodes(ref)
    desk.pass_time(1.0)
    desk.start()
    assert desk.states(ref) == before
    assert desk.states(waiting) == {"main": "QUEUED"}
    desk.pass_time(3.0)
    for node in ("n1", "n2"):
        known = [
            Observation(attempt, S.RUNNING)
            for job, attempt in attempts.items()
            if nodes[job] == node
        ]
        assert desk.dial(hello(node, *known)) == ()
    desk.pass_time(2.0)
    assert {job: desk.current(ref, job) for job in attempts} == attempts
    assert desk.states(ref)["camera"] == "ASSIGNED", "its retry was not forgotten"
    desk.succeed(ref, "counter", "detector-0", "detector-1", "camera")
    assert desk.pipeline(ref).state is PipelineState.SUCCEEDED
    ids = [row.id for row in desk.events()]
    assert len(ids) == len(set(ids))


def test_after_a_restart_a_node_that_stays_away_is_lost_after_a_whole_lease() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single())
    desk.observe(ref, "main", S.RUNNING)
    desk.pass_time(100.0)
    desk.start()
    desk.dial_all("n2")
    desk.pass_time(5.5)
    assert desk.nodes(ref) == {"main": "n1"}
    desk.pass_time(1.0)
    assert desk.nodes(ref) == {"main": "n2"}


def test_revisions_rise_over_restarts() -> None:
    desk = Desk()
    desk.submit(single())
    before = desk.machine.revision
    desk.start()
    assert desk.machine.revision > before


def test_a_cut_reason_is_kept_for_people() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single())
    reason = Reason(ReasonCode.INSTALL, 0, "ERROR: No matching distribution found for nosuch")
    desk.observe(ref, "main", S.PREPARING, S.FAILED, reason=reason)
    desk.start()
    assert desk.job(ref, "main").reason == reason
    assert "nosuch" in desk.pipeline(ref).reason.message


def test_a_chain_is_replaced_in_the_middle_and_still_ends_once() -> None:
    chain = Pipeline(
        "chain",
        (
            Job("a", ("a",), outputs=(Output("o"),)),
            Job("b", ("b",), streams=(StreamInput("i", "a", "o"),), outputs=(Output("o"),)),
            Job("c", ("c",), streams=(StreamInput("i", "b", "o"),)),
        ),
    )
    desk = Desk()
    desk.dial_all("n1", "n2", "n3")
    ref = desk.submit(chain)
    desk.observe(ref, "a", S.RUNNING, S.DRAINING)
    desk.observe(ref, "b", S.RUNNING)
    lost = desk.nodes(ref)["b"]
    desk.hang_up(lost)
    desk.verdict(lost, MemberState.DEAD)
    desk.succeed(ref, "c", "b", "a")
    assert desk.pipeline(ref).state is PipelineState.SUCCEEDED
    finals = [row for row in desk.events() if row.type == "shoal.pipeline.succeeded"]
    assert len(finals) == 1
