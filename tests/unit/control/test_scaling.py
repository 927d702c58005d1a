"""A job gets another number of replicas: recorded first, from a round on that nobody has passed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from control.core import events
from control.core.answers import Refusal
from control.core.errors import UnknownJobError
from control.core.rows import ScaleRow
from shoal.model import Capacity, JobState, ScaleState, StreamCounters
from shoal.names import PipelineRef
from shoal.session.lane import Lane, Stretch
from shoal.session.observation import Observation
from shoal.session.port_hold import PortHold
from shoal.session.progress import Progress
from shoal.spec import (
    Distribute,
    Job,
    Output,
    Pipeline,
    Recovery,
    Resources,
    StreamInput,
)
from tests.unit.control.desk import Desk
from tests.unit.control.world import hello

_BIG = Capacity(cpus=16.0)


def _network(
    replicas: int = 2, *, block_count: int = 1, cameras: int = 1, **detector: object
) -> Pipeline:
    job = Job(
        "detector",
        ("detect",),
        streams=(StreamInput("frames", "camera", "frames", block_count=block_count),),
        outputs=(Output("found"),),
        replicas=replicas,
        recovery=Recovery.RESUME,
    )
    return Pipeline(
        name="counter",
        jobs=(
            Job("camera", ("camera",), outputs=(Output("frames"),), replicas=cameras),
            replace(job, **detector),  # type: ignore[arg-type]
            Job("counter", ("count",), streams=(StreamInput("found", "detector", "found"),)),
        ),
    )


class _Scaled(Desk):
    """A desk with a running network and what its agents say about its streams."""

    def run(self, spec: Pipeline | None = None) -> PipelineRef:
        self.dial(hello("a", capacity=_BIG))
        ref = self.submit(spec or _network())
        for job in self.pipeline(ref).jobs:
            self.observe(ref, job, JobState.RUNNING)
        return ref

    def scale(self, ref: PipelineRef, replicas: int, job: str = "detector") -> object:
        return self.post(lambda call: events.Scale(call, ref, job, replicas))

    def stand(
        self, ref: PipelineRef, job: str, at: int, *, hold: int = 0, ended: bool = False
    ) -> None:
        """Let the agent of a job say that its output stands still."""
        attempt = self.job(ref, job).attempt
        assert attempt is not None
        port = self.job(ref, job).spec.outputs[0].name
        number = hold or self.scales(ref)[-1].number
        session = self.sessions[attempt.node]
        held = PortHold(port, number, at, ended)
        seen = Observation(attempt.ref, attempt.state, holds=(held,))
        self.post(lambda call: events.Observed(call, attempt.node, session, (seen,)))

    def count(self, ref: PipelineRef, job: str, records: int) -> None:
        """Let the agent of a job say how many records passed its output, and that it has ended."""
        port = self.job(ref, job).spec.outputs[0].name
        said = (StreamCounters(port, True, records=records, ended=True),)
        news = Progress(self.current(ref, job), said)
        self.post(lambda _: events.Progressed("a", self.sessions["a"], news))

    def stand_all(self, ref: PipelineRef, camera: int, *detectors: int) -> None:
        for number, at in enumerate(detectors):
            newest = self.pipeline(ref).newest("detector")
            self.stand(ref, newest[number].ref.job, at)
        self.stand(ref, "camera", camera)

    def scales(self, ref: PipelineRef) -> list[ScaleRow]:
        return self.pipeline(ref).scales

    def lane(self, ref: PipelineRef, job: str, peer: str) -> Lane:
        found = [
            lane
            for lane in self.assignment(ref, job).lanes
            if peer in {one.split(".")[0] for one in lane.id.split("/")} - {job}
        ]
        assert len(found) == 1, found
        return found[0]


def test_the_streams_around_the_job_stand_still_first() -> None:
    desk = _Scaled()
    ref = desk.run()
    assert desk.scale(ref, 3) is None
    [scale] = desk.scales(ref)
    assert (scale.state, scale.number, scale.replicas) == (ScaleState.HOLDING, 1, 3)
    assert desk.lane(ref, "camera", "detector-0").hold == 1
    assert desk.lane(ref, "detector-1", "counter").hold == 1
    assert desk.lane(ref, "detector-1", "camera").hold == 0
    assert desk.lane(ref, "counter", "detector-1").hold == 0
    assert "detector-2" not in desk.pipeline(ref).jobs
    desk.stand_all(ref, 7, 2)
    assert desk.scales(ref)[0].state is ScaleState.HOLDING, "detector-1 has not said anything"


def test_new_replicas_begin_where_everybody_has_been_told_of() -> None:
    desk = _Scaled()
    ref = desk.run()
    desk.scale(ref, 3)
    desk.stand_all(ref, 7, 2, 1)
    [scale] = desk.scales(ref)
    assert (scale.state, scale.rounds) == (ScaleState.SETTLED, 4), "7 records are 4 rounds of 2"
    jobs = desk.pipeline(ref).jobs
    assert list(jobs) == [
        "camera",
        *(f"detector-{number}" for number in range(5)),
        "counter",
    ]
    assert [(job.replica, job.generation, job.spec.replicas) for job in jobs.values()] == [
        (0, 0, 1),
        *((number, 0, 2) for number in range(2)),
        *((number, 1, 3) for number in range(3)),
        (0, 0, 1),
    ]
    assert desk.states(ref)["detector-4"] == "ASSIGNED"
    assert desk.assignment(ref, "detector-4").replicas == 3
    assert desk.lane(ref, "camera", "detector-0").stretch == Stretch(0, 0, 0, 8)
    assert desk.lane(ref, "camera", "detector-4").stretch == Stretch(0, 0, 8, None)
    assert desk.lane(ref, "counter", "detector-0").stretch == Stretch(0, 0, 0, None)
    assert desk.lane(ref, "counter", "detector-4").stretch == Stretch(1, 8, 0, None)
    lanes = [lane for job in ("camera", "detector-1") for lane in desk.assignment(ref, job).lanes]
    assert not any(lane.hold for lane in lanes)
    [event] = [row for row in desk.events() if row.type == "shoal.pipeline.scaled"]
    assert event.id.endswith("/scaled/1")


def test_everything_is_as_it_was_after_a_restart_of_the_controller() -> None:
    desk = _Scaled()
    ref = desk.run()
    desk.scale(ref, 3)
    desk.stand_all(ref, 7, 2, 1)
    before = {job: desk.assignment(ref, job) for job in desk.pipeline(ref).jobs}
    desk.start()
    assert {job: desk.assignment(ref, job) for job in desk.pipeline(ref).jobs} == before
    assert desk.pipeline(ref).open_jobs == 7


def test_a_controller_that_restarts_meanwhile_goes_on_waiting() -> None:
    desk = _Scaled()
    ref = desk.run()
    desk.scale(ref, 1)
    desk.stand(ref, "detector-0", 2)
    desk.start()
    assert desk.lane(ref, "camera", "detector-0").hold == 1
    # The agent is the same one, and it says what its attempts are.
    known = [job.attempt for job in desk.pipeline(ref).jobs.values() if job.attempt]
    desk.dial(hello("a", *(Observation(one.ref, one.state) for one in known), capacity=_BIG))
    desk.stand_all(ref, 4, 2, 2)
    assert desk.scales(ref)[0].state is ScaleState.SETTLED
    assert desk.states(ref)["detector-2"] == "ASSIGNED"
    assert desk.lane(ref, "camera", "detector-2").stretch == Stretch(0, 0, 4, None)


def test_blocks_and_several_producers_are_whole_rounds_too() -> None:
    desk = _Scaled()
    ref = desk.run(_network(replicas=2, block_count=3, cameras=2))
    desk.scale(ref, 1)
    desk.stand(ref, "camera-0", 5)
    desk.stand(ref, "camera-1", 4)
    desk.stand(ref, "detector-0", 0)
    desk.stand(ref, "detector-1", 0)
    # Record 4 of camera-0 is the 9th of all; two replicas take 6 in a round each.
    assert desk.scales(ref)[0].rounds == 2


def test_a_job_is_scaled_again_and_again() -> None:
    desk = _Scaled()
    ref = desk.run()
    desk.scale(ref, 3)
    desk.stand_all(ref, 7, 2, 1)
    for number in range(3):
        desk.observe(ref, f"detector-{2 + number}", JobState.RUNNING)
    desk.scale(ref, 1)
    assert desk.lane(ref, "camera", "detector-2").hold == 2
    assert desk.lane(ref, "camera", "detector-0").hold == 0, "its part is cut already"
    desk.stand_all(ref, 15, 1, 0, 0)
    assert [scale.rounds for scale in desk.scales(ref)] == [4, 3]
    assert desk.lane(ref, "camera", "detector-2").stretch == Stretch(0, 0, 8, 17)
    assert desk.lane(ref, "camera", "detector-5").stretch == Stretch(0, 0, 17, None)
    assert desk.lane(ref, "counter", "detector-5").stretch == Stretch(2, 17, 0, None)
    assert desk.assignment(ref, "detector-5").replicas == 1


def test_a_replacement_has_to_say_for_itself_how_far_it_is() -> None:
    """Case F16: what a lost attempt said counts no more."""
    desk = _Scaled()
    ref = desk.run()
    desk.scale(ref, 3)
    desk.stand(ref, "camera", 7)
    desk.stand(ref, "detector-0", 2)
    desk.observe(ref, "camera", JobState.LOST)
    assert desk.current(ref, "camera").number == 2
    desk.stand(ref, "detector-1", 2)
    assert desk.scales(ref)[0].state is ScaleState.HOLDING
    desk.observe(ref, "camera", JobState.RUNNING)
    desk.stand(ref, "camera", 3)
    assert desk.scales(ref)[0].rounds == 2


def test_a_stream_that_has_ended_is_not_dealt_out_anew() -> None:
    desk = _Scaled()
    ref = desk.run()
    desk.scale(ref, 3)
    desk.stand(ref, "camera", 7, ended=True)
    [scale] = desk.scales(ref)
    assert scale.state is ScaleState.ABANDONED
    assert scale.message == "the stream of camera.frames has ended"
    assert desk.lane(ref, "camera", "detector-0").hold == 0
    assert len(desk.pipeline(ref).jobs) == 4


def test_streams_do_not_stand_still_for_ever() -> None:
    desk = _Scaled()
    ref = desk.run()
    desk.scale(ref, 3)
    desk.stand(ref, "camera", 7)
    desk.pass_time(desk.config.hold_seconds + 1)
    [scale] = desk.scales(ref)
    assert scale.state is ScaleState.ABANDONED
    assert "detector-0.found did not say within 20 s how far it is" in scale.message
    assert desk.lane(ref, "camera", "detector-0").hold == 0
    assert desk.scale(ref, 3) is None
    assert desk.lane(ref, "camera", "detector-0").hold == 2
    desk.stand(ref, "camera", 7, hold=1)  # late news of the first
    desk.stand(ref, "detector-0", 2)
    desk.stand(ref, "detector-1", 2)
    assert desk.scales(ref)[1].state is ScaleState.HOLDING
    desk.stand(ref, "camera", 9)
    assert desk.scales(ref)[1].rounds == 5


def test_what_was_acknowledged_need_not_be_said_again_after_a_restart_of_the_controller() -> None:
    desk = _Scaled()
    ref = desk.run()
    desk.scale(ref, 3)
    desk.stand(ref, "camera", 7)
    desk.stand(ref, "detector-0", 2)
    desk.start()
    refs = [desk.current(ref, job) for job in desk.nodes(ref)]
    desk.dial(hello("a", *(Observation(one, JobState.RUNNING) for one in refs), capacity=_BIG))
    assert desk.scales(ref)[0].state is ScaleState.HOLDING
    desk.stand(ref, "detector-1", 1)
    assert (desk.scales(ref)[0].state, desk.scales(ref)[0].rounds) == (ScaleState.SETTLED, 4)


def test_an_agent_that_dials_again_says_how_far_its_ports_are() -> None:
    desk = _Scaled()
    ref = desk.run()
    desk.scale(ref, 3)
    at = {"camera": ("frames", 7), "detector-0": ("found", 2), "detector-1": ("found", 1)}
    seen = [
        Observation(
            desk.current(ref, job),
            JobState.RUNNING,
            holds=(PortHold(at[job][0], 1, at[job][1]),) if job in at else (),
        )
        for job in desk.nodes(ref)
    ]
    desk.dial(hello("a", *seen, capacity=_BIG))
    assert (desk.scales(ref)[0].state, desk.scales(ref)[0].rounds) == (ScaleState.SETTLED, 4)


def test_counters_decide_nothing() -> None:
    desk = _Scaled()
    ref = desk.run()
    desk.scale(ref, 3)
    for job in ("camera", "detector-0", "detector-1"):
        desk.count(ref, job, 7)
    assert desk.scales(ref)[0].state is ScaleState.HOLDING


def test_an_agent_that_cannot_say_how_far_a_port_is_keeps_its_jobs_from_being_scaled() -> None:
    desk = _Scaled()
    desk.dial(replace(hello("a", capacity=_BIG), says_holds=False, agent_version="0.1"))
    ref = desk.submit(_network())
    for job in desk.pipeline(ref).jobs:
        desk.observe(ref, job, JobState.RUNNING)
    refused = desk.scale(ref, 3)
    assert isinstance(refused, Refusal)
    assert (refused.reason, refused.message) == (
        "OLD_AGENT",
        "the agent of node a (version 0.1) does not say how far detector-0 is: update it",
    )


def test_a_pipeline_that_is_cancelled_is_not_scaled() -> None:
    desk = _Scaled()
    ref = desk.run()
    desk.scale(ref, 3)
    desk.cancel(ref)
    assert desk.scales(ref)[0].state is ScaleState.ABANDONED
    desk.stand_all(ref, 7, 2, 1)
    assert len(desk.pipeline(ref).jobs) == 4


def test_asking_again_changes_nothing() -> None:
    desk = _Scaled()
    ref = desk.run()
    assert desk.scale(ref, 2) is None
    assert desk.scales(ref) == []
    desk.scale(ref, 3)
    assert desk.scale(ref, 3) is None
    assert len(desk.scales(ref)) == 1
    other = desk.scale(ref, 4)
    assert isinstance(other, Refusal)
    assert (other.reason, other.message) == (
        "SCALING",
        "job detector is being scaled to 3: try again when that is settled",
    )


def test_room_that_went_away_meanwhile_leaves_everything_as_it_was() -> None:
    desk = _Scaled()
    ref = desk.run()
    desk.scale(ref, 3)
    desk.drain("a")
    desk.stand_all(ref, 7, 2, 1)
    [scale] = desk.scales(ref)
    assert scale.state is ScaleState.ABANDONED
    assert "on a: it is drained" in scale.message


@pytest.mark.parametrize(
    ("spec", "job", "replicas", "reason", "words"),
    [
        (_network(), "detector", 0, "INVALID_REPLICAS", "at least 1"),
        (_network(), "camera", 2, "NOT_SCALABLE", "no stream inputs"),
        (_network(), "counter", 2, "NOT_SCALABLE", "`recovery: resume`"),
        (
            _network(outputs=(Output("found", distribute=Distribute.KEY),)),
            *("detector", 3, "NOT_SCALABLE", "spread by key"),
        ),
        (
            _network(resources=Resources(cpus=6.0)),
            *("detector", 1, "NO_ROOM", "6 cpus are needed, 2 of 16 free"),
        ),
        (_network(), "detector", 20_000, "TOO_MANY_JOBS", "at most 20000"),
    ],
)
def test_what_cannot_be_scaled_is_refused_with_the_remedy(
    spec: Pipeline, job: str, replicas: int, reason: str, words: str
) -> None:
    desk = _Scaled()
    ref = desk.run(spec)
    refused = desk.scale(ref, replicas, job)
    assert isinstance(refused, Refusal)
    assert refused.reason == reason
    assert words in refused.message
    assert desk.scales(ref) == []


def test_a_replica_does_not_get_the_name_of_another_job() -> None:
    desk = _Scaled()
    spec = _network()
    other = Job("detector-3", ("true",))
    ref = desk.run(replace(spec, jobs=(*spec.jobs, other)))
    refused = desk.scale(ref, 2)
    assert refused is None, "it has two already"
    refused = desk.scale(ref, 3)
    assert isinstance(refused, Refusal)
    assert "replica detector-3 would have the name of another job" in refused.message


def test_what_has_not_begun_or_has_ended_is_not_scaled() -> None:
    desk = _Scaled()
    ref = desk.submit(_network())
    early = desk.scale(ref, 3)
    assert isinstance(early, Refusal)
    assert early.reason == "NOT_STARTED"
    desk.dial(hello("a", capacity=_BIG))
    desk.observe(ref, "camera", JobState.RUNNING, JobState.DRAINING)
    late = desk.scale(ref, 3)
    assert isinstance(late, Refusal)
    assert late.message.startswith("job camera is DRAINING")
    unknown = desk.scale(ref, 3, "detector-0")
    assert isinstance(unknown, UnknownJobError)
    assert "camera, detector, counter" in str(unknown)
