"""Whatever agents say, the machine neither falls over nor goes back."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from control.core import events, lifecycle
from control.core.admission import difference
from control.core.views import waits_for
from shoal.model import Artifact, JobState, MemberState, Reason, ReasonCode
from shoal.names import AttemptRef, PipelineRef
from shoal.session.observation import Observation
from shoal.session.port_hold import PortHold
from shoal.spec import Placement, Retry
from tests.unit.control.desk import Desk
from tests.unit.control.world import counter, hello, single

NODES = ["n1", "n2", "n3"]
JOBS = ["main", "camera", "detector-0", "detector-1", "counter", "nobody"]

REFS = st.builds(
    AttemptRef,
    st.just("default"),
    st.sampled_from(["single-000000", "counter-000001", "other-1"]),
    st.sampled_from(JOBS),
    st.integers(1, 3),
    st.integers(1, 3),
)
COUNTS = st.integers(0, 100)
OBSERVATIONS = st.builds(
    Observation,
    REFS,
    st.sampled_from(JobState),
    st.builds(Reason, st.sampled_from(ReasonCode), st.integers(0, 3), st.just("so it said")),
    st.tuples()
    | st.tuples(st.builds(Artifact, st.just("a"), st.just(1), st.just("ab" * 32), st.just("key"))),
    holds=st.tuples()
    | st.tuples(st.builds(PortHold, st.just("frames"), st.integers(0, 2), COUNTS)),
    ended_inputs=st.tuples() | st.tuples(st.just("frames")),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("observe"), st.sampled_from(NODES), st.lists(OBSERVATIONS, max_size=3)),
        st.tuples(st.just("current"), st.sampled_from(JOBS), st.sampled_from(JobState)),
        st.tuples(st.just("dial"), st.sampled_from(NODES), st.lists(OBSERVATIONS, max_size=3)),
        st.tuples(st.just("agent"), st.sampled_from(NODES), st.integers(0, 2)),
        st.tuples(st.just("close"), st.sampled_from(NODES), st.none()),
        st.tuples(st.just("forget"), st.sampled_from(NODES), st.none()),
        st.tuples(st.just("verdict"), st.sampled_from(NODES), st.sampled_from(MemberState)),
        st.tuples(st.just("time"), st.sampled_from([0.25, 1.0, 7.0]), st.none()),
        st.tuples(st.just("cancel"), st.integers(0, 1), st.none()),
        st.tuples(st.just("restart"), st.none(), st.none()),
    ),
    max_size=25,
)


@given(STEPS, st.sampled_from(Placement))
@settings(max_examples=150, deadline=None)
def test_nothing_that_agents_say_breaks_the_machine(
    steps: list[tuple[str, object, object]], placement: Placement
) -> None:
    desk = Desk()
    refs = [
        desk.submit(single(placement=placement, retry=Retry(attempts=3, backoff_seconds=0.1))),
        desk.submit(counter()),
    ]
    ended: dict[object, JobState] = {}
    epochs: dict[object, int] = {}
    for step in steps:
        _do(desk, refs, step)
        for pipeline in desk.machine.cluster.pipelines.values():
            for job in pipeline.jobs.values():
                assert ended.setdefault(job.ref, job.state) == job.state or not _over(
                    ended, job.ref
                )
                ended[job.ref] = job.state
                assert epochs.get(job.ref, 0) <= job.epoch
                epochs[job.ref] = job.epoch
                waits = job.state in lifecycle.WAITS and job.state is not JobState.RUNNING
                assert waits <= bool(waits_for(pipeline, job)), (
                    f"K17: {job.state.name} says nothing"
                )
                placed = job.attempt is not None
                assert placed == (job.state in lifecycle.PLACED)
                if job.manifest is None:
                    assert job.state is not JobState.SUCCEEDED
                else:  # one that failed has what could be archived, if there was any
                    assert job.state in {JobState.SUCCEEDED, JobState.FAILED}
            assert pipeline.open_jobs == sum(not job.ended for job in pipeline.jobs.values())
            assert pipeline.state.terminal == (pipeline.open_jobs == 0)
            assert pipeline.state.terminal == bool(pipeline.final_event_id)
    before = [
        (job.row(), [one.row() for one in job.attempts])
        for ref in refs
        for job in desk.pipeline(ref).jobs.values()
    ]
    desk.start()
    after = [
        (job.row(), [one.row() for one in job.attempts])
        for ref in refs
        for job in desk.pipeline(ref).jobs.values()
    ]
    assert before == after, "what is remembered is what was known"


def _over(ended: dict[object, JobState], ref: object) -> bool:
    return ended[ref] in lifecycle.ENDED


def _do(desk: Desk, refs: list[PipelineRef], step: tuple[str, object, object]) -> None:
    match step:
        case ("observe", str(node), said) if node in desk.sessions:
            for one in cast("list[Observation]", said):
                desk.say(node, one)
        case ("dial", str(node), said):
            desk.claim(hello(node, *cast("list[Observation]", said)))
        case ("agent", str(node), int(number)):
            desk.claim(
                replace(hello(node), agent_id=f"agent-{number}", instance_id=f"i-{number % 2}")
            )
        case ("current", str(name), JobState() as state):
            for there in desk.machine.cluster.nodes.values():
                for ref in tuple(there.attempts):
                    if ref.job == name and there.name in desk.sessions:
                        desk.report(there.name, ref, state)
        case ("close", str(node), None) if node in desk.sessions:
            desk.hang_up(node)
        case ("forget", str(node), None):
            desk.post(lambda call: events.ForgetNode(call, node))
        case ("verdict", str(node), MemberState() as verdict):
            desk.verdict(node, verdict)
        case ("time", float(seconds), None):
            desk.pass_time(seconds)
        case ("cancel", int(index), None):
            desk.cancel(refs[index])
        case ("restart", None, None):
            desk.start()
        case _:
            pass


@given(st.integers(1, 4), st.integers(1, 4))
def test_specs_differ_exactly_where_they_differ(one: int, other: int) -> None:
    first, second = counter(replicas=one), counter(replicas=other)
    found = list(difference(first, second))
    if one == other:
        assert found == []
    else:
        assert found == [("jobs[1].replicas", str(one), str(other))]


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=20))
def test_a_key_makes_one_pipeline_however_often_it_is_used(keys: list[str]) -> None:
    desk = Desk()
    made: dict[str, PipelineRef] = {}
    for key in keys:
        ref = desk.submit(single(), key)
        assert made.setdefault(key, ref) == ref
    assert len(desk.machine.cluster.pipelines) == len(set(keys))
