"""X1: a pipeline is asked to finish. Where its sources end is recorded first, and acted on then."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from control.core import events
from control.core.answers import Refusal
from control.core.errors import UnknownPipelineError
from control.core.finishing import HOLD_FIRST
from shoal.model import JobState, PipelineState, StreamCounters
from shoal.names import PipelineRef
from shoal.session.assignment import Goal
from shoal.session.observation import Observation
from shoal.session.port_hold import PortHold
from shoal.session.progress import Progress
from shoal.spec import Job, Output, Pipeline, Recovery, Resources, StreamInput
from tests.unit.control.desk import Desk
from tests.unit.control.world import counter, hello, single

S = JobState
CHAIN = Pipeline(
    "chain",
    (
        Job("src", ("x",), outputs=(Output("o"),), resources=Resources(0.1)),
        Job(
            "mid",
            ("x",),
            streams=(StreamInput("i", "src", "o"),),
            outputs=(Output("o"),),
            resources=Resources(0.1),
        ),
        Job("sink", ("x",), streams=(StreamInput("i", "mid", "o"),), resources=Resources(0.1)),
    ),
)


class _Finished(Desk):
    """A desk whose agents tell how their streams stand."""

    def run(self, spec: Pipeline) -> PipelineRef:
        self.dial_all("n1", "n2")
        ref = self.submit(spec)
        for job in self.pipeline(ref).jobs:
            self.observe(ref, job, S.RUNNING)
        return ref

    def finish(self, ref: PipelineRef) -> object:
        return self.post(lambda call: events.Finish(call, ref))

    def tell(
        self, ref: PipelineRef, job: str, port: str, at: int = 0, *, repeating: bool = False
    ) -> None:
        """What the agent of a job says of an output, under the hold that it was told of."""
        attempt = self.job(ref, job).attempt
        assert attempt is not None
        lanes = self.assignment(ref, job).lanes
        hold = max(lane.hold for lane in lanes if lane.output)
        said = StreamCounters(port, output=True, repeating=repeating)
        session = self.sessions[attempt.node]
        news = Progress(attempt.ref, (said,), "")
        self.post(lambda _: events.Progressed(attempt.node, session, news))
        if hold:
            seen = Observation(attempt.ref, attempt.state, holds=(PortHold(port, hold, at),))
            self.post(lambda call: events.Observed(call, attempt.node, session, (seen,)))

    def commit(self, ref: PipelineRef, job: str, *ended_inputs: str) -> None:
        """A job has ended well, and its program was shown the end of these inputs."""
        attempt = self.job(ref, job).attempt
        assert attempt is not None
        ends = Observation(attempt.ref, S.ARCHIVING, ended_inputs=ended_inputs)
        self.say(attempt.node, ends)
        self.say(attempt.node, replace(ends, state=S.SUCCEEDED))

    def lose(self, ref: PipelineRef, *jobs: str) -> None:
        for job in jobs:
            self.observe(ref, job, S.LOST)

    def wanted(self, ref: PipelineRef, job: str) -> tuple[Goal, int, int | None]:
        """Goal, hold and end in what the agent of a job with one output lane is told."""
        one = self.assignment(ref, job)
        lane = next(lane for lane in one.lanes if lane.output)
        return one.goal, lane.hold, lane.end


def test_x1_a_source_stands_still_then_its_end_is_recorded_and_then_it_ends() -> None:
    desk = _Finished()
    ref = desk.run(CHAIN)
    assert desk.finish(ref) is None
    goal, hold, end = desk.wanted(ref, "src")
    assert (goal, end) == (Goal.RUN, None)
    assert hold >= HOLD_FIRST
    assert desk.wanted(ref, "mid") == (Goal.RUN, 0, None), "only sources are told"
    desk.tell(ref, "src", "o", 12)
    assert desk.wanted(ref, "src") == (Goal.FINISH, 0, 12)
    finished = desk.pipeline(ref).finish_time
    assert finished is not None
    desk.finish(ref)
    assert desk.pipeline(ref).finish_time == finished, "asking again changes nothing"
    desk.start()
    assert desk.job(ref, "src").ends == {"o": 12}


def test_x1_a_finished_pipeline_ends_well_and_its_event_says_so() -> None:
    desk = _Finished()
    ref = desk.run(single())
    desk.finish(ref)
    assert desk.assignment(ref, "main").goal is Goal.FINISH, "it has no streams to wait for"
    desk.succeed(ref, "main")
    assert desk.pipeline(ref).state is PipelineState.SUCCEEDED
    assert json.loads(desk.events()[-1].data)["finished"] is True
    assert desk.finish(ref) is None, "too late, and harmless"


def test_x1_a_source_that_was_not_placed_yet_ends_without_a_record() -> None:
    desk = _Finished()
    ref = desk.submit(CHAIN)
    desk.finish(ref)
    desk.dial_all("n1")
    desk.tell(ref, "src", "o", 0)
    assert desk.wanted(ref, "src") == (Goal.FINISH, 0, 0)


def test_x1_a_replacement_goes_on_until_nobody_behind_it_repeats_anything() -> None:
    desk = _Finished()
    ref = desk.run(CHAIN)
    desk.finish(ref)
    for job in ("src", "mid"):
        attempt = desk.job(ref, job).attempt
        assert attempt is not None
        desk.report(attempt.node, attempt.ref, S.LOST)
    assert desk.wanted(ref, "src") == (Goal.RUN, 0, None)
    assert (
        "mid.o" in desk.job(ref, "src").waiting_for or "src.o" in desk.job(ref, "src").waiting_for
    )
    desk.tell(ref, "src", "o")
    desk.tell(ref, "mid", "o", repeating=True)
    assert desk.wanted(ref, "src") == (Goal.RUN, 0, None), "the sink has more than mid has sent"
    assert (
        desk.job(ref, "src").waiting_for == "it ends once mid.o has sent again what was sent before"
    )
    desk.tell(ref, "mid", "o")
    assert desk.wanted(ref, "src")[1] >= HOLD_FIRST
    assert not desk.job(ref, "src").waiting_for
    desk.tell(ref, "src", "o", 40)
    assert desk.wanted(ref, "src") == (Goal.FINISH, 0, 40)


FORK = Pipeline(
    "fork",
    (
        Job("src", ("x",), outputs=(Output("o"),), resources=Resources(0.1)),
        Job("left", ("x",), streams=(StreamInput("i", "src", "o"),), resources=Resources(0.1)),
        Job("right", ("x",), streams=(StreamInput("i", "src", "o"),), resources=Resources(0.1)),
    ),
)


@pytest.mark.parametrize("saw_end", [True, False])
def test_x1_a_replacement_ends_nowhere_before_the_end_that_a_committed_consumer_saw(
    *, saw_end: bool
) -> None:
    desk = _Finished()
    ref = desk.run(FORK)
    desk.commit(ref, "left", *(["i"] if saw_end else []))
    desk.start()
    desk.dial_all("n1", "n2")  # which know nothing of the others any more
    desk.finish(ref)
    desk.tell(ref, "src", "o")
    waiting = desk.job(ref, "src").waiting_for
    assert waiting == ("it ends by itself where left saw its end" if saw_end else "")
    assert (desk.wanted(ref, "src")[1] >= HOLD_FIRST) is not saw_end


def test_x1_a_source_goes_on_until_a_job_behind_it_ends_where_a_committed_job_saw_its_end() -> None:
    """The new `mid` has nothing yet, and the sink has committed all that the one before made."""
    desk = _Finished()
    ref = desk.run(CHAIN)
    desk.observe(ref, "mid", S.DRAINING)
    desk.commit(ref, "sink", "i")
    desk.lose(ref, "src", "mid")
    desk.finish(ref)
    desk.tell(ref, "src", "o")
    desk.tell(ref, "mid", "o")
    assert desk.job(ref, "src").waiting_for == "it ends once mid has ended where sink saw its end"
    assert desk.wanted(ref, "src") == (Goal.RUN, 0, None)


def test_x1_a_source_whose_readers_have_all_committed_is_ended_and_no_end_is_recorded() -> None:
    """Such a `mid` ends at once, since nobody reads it, and where says nothing of the sink."""
    desk = _Finished()
    ref = desk.run(CHAIN)
    desk.commit(ref, "sink", "i")
    desk.lose(ref, "src", "mid")
    desk.commit(ref, "mid")
    desk.finish(ref)
    desk.tell(ref, "src", "o", 4)
    assert desk.wanted(ref, "src") == (Goal.FINISH, 0, None)
    assert desk.job(ref, "src").ends == {}


def test_x1_where_a_scale_cut_a_reader_off_is_not_the_end() -> None:
    desk = _Finished()
    ref = desk.run(counter(1, recovery=Recovery.RESUME))
    desk.post(lambda call: events.Scale(call, ref, "detector", 2))
    for job in ("camera", "detector"):
        attempt = desk.job(ref, job).attempt
        assert attempt is not None
        port = "frames" if job == "camera" else "found"
        desk.say(attempt.node, Observation(attempt.ref, S.RUNNING, holds=(PortHold(port, 1, 5),)))
    assert len(desk.pipeline(ref).jobs) == 5, "the scale is settled"
    desk.commit(ref, "detector", "frames")
    desk.lose(ref, "camera")
    desk.finish(ref)
    assert "saw its end" not in desk.job(ref, "camera").waiting_for


def test_x1_a_replacement_ends_where_it_was_recorded() -> None:
    desk = _Finished()
    ref = desk.run(CHAIN)
    desk.finish(ref)
    desk.tell(ref, "src", "o", 12)
    attempt = desk.job(ref, "src").attempt
    assert attempt is not None
    desk.report(attempt.node, attempt.ref, S.LOST)
    assert desk.wanted(ref, "src") == (Goal.FINISH, 0, 12)


def test_x1_what_was_said_to_an_earlier_controller_does_not_count() -> None:
    desk = _Finished()
    ref = desk.run(CHAIN)
    desk.finish(ref)
    before = desk.wanted(ref, "src")[1]
    nodes = desk.nodes(ref)
    seen = {job: Observation(desk.current(ref, job), S.RUNNING) for job in nodes}
    desk.start()
    for node in ("n1", "n2"):
        desk.dial(hello(node, *(seen[job] for job in nodes if nodes[job] == node)))
    after = desk.wanted(ref, "src")[1]
    assert after >= HOLD_FIRST
    assert before != after


def test_a_source_goes_on_until_its_agent_can_say_where_it_ends() -> None:
    desk = _Finished()
    ref = desk.run(CHAIN)
    node = desk.nodes(ref)["src"]
    mine = [job for job, other in desk.nodes(ref).items() if other == node]
    seen = [Observation(desk.current(ref, job), S.RUNNING) for job in mine]
    desk.dial(replace(hello(node, *seen), says_holds=False, agent_version="0.1"))
    desk.finish(ref)
    assert desk.wanted(ref, "src") == (Goal.RUN, 0, None)
    assert desk.job(ref, "src").waiting_for == (
        f"it ends once it can be said where: the agent of node {node} (version 0.1) does not say "
        "how far src is: update it"
    )
    desk.dial(hello(node, *seen))
    assert desk.job(ref, "src").waiting_for == ""
    desk.tell(ref, "src", "o", 12)
    assert desk.wanted(ref, "src") == (Goal.FINISH, 0, 12)


def test_x1_cancel_still_ends_a_pipeline_that_is_finishing() -> None:
    desk = _Finished()
    ref = desk.run(CHAIN)
    desk.finish(ref)
    desk.cancel(ref)
    assert desk.assignment(ref, "src").goal is Goal.STOP
    desk.tell(ref, "src", "o", 12)
    assert desk.assignment(ref, "src").goal is Goal.STOP


def test_x1_finish_and_scale_do_not_meet() -> None:
    desk = _Finished()
    ref = desk.run(counter(recovery=Recovery.RESUME))
    desk.post(lambda call: events.Scale(call, ref, "detector", 3))
    assert desk.pipeline(ref).holding is not None
    desk.finish(ref)
    assert desk.pipeline(ref).holding is None
    refused = desk.post(lambda call: events.Scale(call, ref, "detector", 4))
    assert isinstance(refused, Refusal)
    assert refused.reason == "FINISHING"


def test_an_unknown_pipeline_is_not_finished() -> None:
    desk = _Finished()
    assert isinstance(desk.finish(PipelineRef("default", "nobody")), UnknownPipelineError)
