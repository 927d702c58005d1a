"""U11: what is told of jobs that find no node, and of streams that stand still."""

from __future__ import annotations

import json
from typing import Any

from control.core import events
from control.core.effects import CommitRows
from control.core.rows import OutboxRow
from shoal.model import Capacity, JobState, StreamCounters
from shoal.names import PipelineRef
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.spec import Placement, Resources
from tests.unit.control.desk import Desk
from tests.unit.control.world import counter, hello, single

S = JobState
EIGHT = Capacity(cpus=8.0)


def told(desk: Desk, ref: PipelineRef, job: str = "main") -> list[tuple[str, Any]]:
    """What was told of a job since it was asked last, when all of it arrives: types and data."""
    rows = [row for row in desk.outbox() if row.subject == f"{ref.name}/jobs/{job}"]
    desk.leave()
    return [(row.type.removeprefix("shoal.job."), json.loads(row.data)) for row in rows]


def words(desk: Desk, ref: PipelineRef, job: str = "main") -> list[str]:
    return [what for what, _ in told(desk, ref, job)]


# --- nodes


def test_u11_a_job_that_finds_no_node_is_told_once_with_the_reason_and_when_it_is_placed() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single(resources=Resources(cpus=8)))
    desk.pass_time(29)
    assert told(desk, ref) == []
    desk.pass_time(2)
    ((what, data),) = told(desk, ref)
    assert what == "unplaced"
    assert data["reason"]["message"] == desk.job(ref, "main").waiting_for
    assert "on n1: 8 cpus are needed, 4 of 4 free" in data["reason"]["message"]
    desk.pass_time(3600)
    assert told(desk, ref) == [], "once for each reason"
    desk.dial_all("n2")
    desk.pass_time(31)
    ((what, data),) = told(desk, ref)
    assert what == "unplaced"
    assert "on n1, n2: 8 cpus" in data["reason"]["message"]
    desk.dial(hello("n3", capacity=EIGHT))
    ((what, data),) = told(desk, ref)
    assert (what, data["node"], data["reason"]["message"]) == ("placed", "n3", "")


def test_u11_a_job_that_waits_a_moment_is_not_told_of() -> None:
    desk = Desk()
    ref = desk.submit(single())
    desk.pass_time(20)
    desk.dial_all("n1")
    desk.observe(ref, "main", S.PREPARING)
    desk.pass_time(60)
    assert words(desk, ref) == []
    other = desk.submit(single("other", resources=Resources(cpus=8)))
    desk.pass_time(20)
    desk.cancel(other)
    desk.pass_time(60)
    assert words(desk, other) == ["cancelled"]


def test_u11_while_the_broker_is_away_the_newest_reason_waits() -> None:
    desk = Desk()
    desk.submit(single(resources=Resources(cpus=8)))
    for name in ("n1", "n2", "n3", "n4"):
        desk.pass_time(60)
        desk.dial_all(name)
    desk.pass_time(600)
    (row,) = desk.events()
    assert "n1, n2, n3 and 1 more" in row.data


def test_u11_behind_the_first_of_a_long_queue_a_wait_is_no_news() -> None:
    desk = Desk()
    desk.dial_all("n1")
    running = desk.submit(single(resources=Resources(cpus=4)))
    desk.observe(running, "main", S.PREPARING, S.RUNNING)
    waiting = [desk.submit(single(f"w{n}", resources=Resources(cpus=2))) for n in range(300)]
    desk.pass_time(3600)
    assert words(desk, waiting[0]) == ["unplaced"], "it waits for longer than others run"
    assert [row.subject for row in desk.outbox()] == []
    desk.observe(running, "main", S.DRAINING, S.ARCHIVING, S.SUCCEEDED)
    for placed in waiting[:2]:
        desk.observe(placed, "main", S.PREPARING, S.RUNNING)
    assert words(desk, waiting[0])[0] == "placed"
    desk.pass_time(60)
    assert [row.subject for row in desk.events()] == [f"{waiting[2].name}/jobs/main"], "now first"


def test_u11_many_jobs_that_no_node_can_take_are_told_of_in_several_steps() -> None:
    desk = Desk()
    desk.dial_all("n1")
    for number in range(250):
        desk.submit(single(f"w{number}", resources=Resources(cpus=8)))
    desk.leave()
    desk.now += 31
    told_of: list[int] = []
    while (at := desk.machine.deadline()) is not None and at <= desk.now:
        done = desk.machine.tick(desk.now)
        rows = [row for effect in done if isinstance(effect, CommitRows) for row in effect.rows]
        told_of.append(sum(isinstance(row, OutboxRow) for row in rows))
    assert max(told_of) == 100
    assert sum(told_of) == 250


# --- streams


class Streaming:
    """A counter whose camera sends, and whose agents say so."""

    def __init__(self, placement: Placement = Placement.AT_LEAST_ONCE) -> None:
        self.desk = Desk()
        self.desk.dial_all("n1", "n2")
        self.ref = self.desk.submit(counter(replicas=1, placement=placement))
        for job in ("camera", "detector", "counter"):
            self.desk.observe(self.ref, job, S.RUNNING)
        self.desk.leave()
        self.counts = {"camera": 0, "detector": 0}

    def say(self, job: str, *, more: int = 0, ended: bool = False) -> None:
        """Let the agent of a job report its output."""
        attempt = self.desk.job(self.ref, job).attempt
        assert attempt is not None
        self.counts[job] += more
        port = "frames" if job == "camera" else "found"
        streams = (StreamCounters(port, output=True, records=self.counts[job], ended=ended),)
        session = self.desk.sessions[attempt.node]
        said = Progress(attempt.ref, streams)
        self.desk.post(lambda _: events.Progressed(attempt.node, session, said))

    def words(self, job: str = "camera") -> list[str]:
        return words(self.desk, self.ref, job)


def test_u11_a_stream_that_stands_still_is_told_of_and_when_it_flows() -> None:
    one = Streaming()
    for _ in range(10):
        one.say("camera", more=1)
        one.desk.pass_time(50)
    assert one.words() == []
    one.say("camera")
    one.desk.pass_time(15)
    ((what, data),) = told(one.desk, one.ref, "camera")
    assert what == "still"
    assert data["streams"] == [{"port": "frames", "output": True, "records": 10}]
    assert data["reason"]["message"] == "no record passed output frames for 60 s"
    one.desk.pass_time(3600)
    one.say("camera")
    assert one.words() == []
    one.say("camera", more=1)
    ((what, data),) = told(one.desk, one.ref, "camera")
    assert (what, data["streams"]) == ("flows", [])


def test_u11_a_stream_that_has_ended_and_one_of_a_node_that_is_away_do_not_stand_still() -> None:
    one = Streaming(Placement.PINNED)
    one.say("camera", more=1, ended=True)
    one.say("detector", more=1)
    one.desk.pass_time(30)
    for name in tuple(one.desk.sessions):
        one.desk.hang_up(name)
    one.desk.pass_time(300)
    assert one.desk.states(one.ref)["detector"] == "RUNNING"
    assert one.words("camera") == []
    assert one.words("detector") == []


def test_u11_what_stands_still_says_which_neighbour_does_not_run() -> None:
    one = Streaming()
    one.say("camera", more=1)
    one.desk.fail(one.ref, "detector")
    one.desk.leave()
    one.desk.pass_time(30)
    neighbour = one.desk.job(one.ref, "detector").state.name
    one.desk.pass_time(31)
    data = dict(told(one.desk, one.ref, "camera"))["still"]
    assert data["reason"]["message"].endswith(f"; detector is {neighbour}")


def test_u11_a_restart_of_the_controller_neither_repeats_nor_forgets_what_stands_still() -> None:
    one = Streaming()
    one.say("camera", more=1)
    one.say("detector", more=1)
    one.desk.pass_time(61)
    assert one.words("camera") == ["still"]
    one.desk.start()
    for name in ("n1", "n2"):
        attempts = [
            Observation(ref, S.RUNNING) for ref in one.desk.machine.cluster.nodes[name].attempts
        ]
        one.desk.dial(hello(name, *attempts))
    one.say("camera")
    one.say("detector", more=1)
    one.desk.pass_time(30)
    assert one.words("camera") == []
    one.say("camera", more=1)
    assert one.words("camera") == ["flows"]


def test_u11_a_program_that_prepares_for_long_does_not_begin_with_a_stream_that_stands_still() -> (
    None
):
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(counter(replicas=1))
    for job in ("camera", "detector", "counter"):
        desk.observe(ref, job, S.PREPARING)
    attempt, session = desk.current(ref, "camera"), desk.sessions["n1"]
    said = Progress(attempt, (StreamCounters("frames", output=True),))
    desk.post(lambda _: events.Progressed("n1", session, said))
    desk.pass_time(500)
    desk.observe(ref, "camera", S.RUNNING)
    desk.pass_time(59)
    assert words(desk, ref, "camera") == ["running"]
    desk.pass_time(2)
    assert words(desk, ref, "camera") == ["still"]


def test_u11_a_controller_that_stood_still_takes_no_stream_for_one_that_does() -> None:
    one = Streaming()
    one.say("camera", more=1)
    one.desk.pass_time(10)
    one.desk.now += 1000
    one.desk.pass_time(1)
    assert one.words() == []
    one.desk.pass_time(50)
    assert one.words() == ["still"]


def test_u11_a_stream_that_flaps_is_told_of_less_and_less_often() -> None:
    one = Streaming()
    found: list[str] = []
    for _ in range(60):
        one.say("camera", more=1)
        found += one.words()
        one.desk.pass_time(70)
        found += one.words()
    assert found[:3] == ["still", "flows", "still"]
    assert len(found) <= 24, len(found)
