"""Whatever was wanted before, and however it travelled, an agent ends with what is wanted now.

The controller's way is the product's (`control.front.delta`, in parts, in the contract's bytes), and so is
the agent's (its session machine, its machine of attempts). 60 histories are tried; SHOAL_EXAMPLES
sets another number.
"""

from __future__ import annotations

import os
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from control.front.delta import delta
from control.front.sessions.parts import in_parts
from edge_agent.attempts.effects import Forget
from edge_agent.attempts.events import DesiredChanged, Forgotten
from edge_agent.attempts.machine import AttemptsMachine
from edge_agent.attempts.phase import Phase
from edge_agent.session.effects import Deliver
from edge_agent.session.events import ControllersKnown, LinkClosed, LinkOpened, Received
from edge_agent.session.machine import SessionConfig, SessionMachine, SessionState
from shoal.model import Capacity
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment, Goal
from shoal.session.attempt_lanes import lanes_between, merged
from shoal.session.lane import Lane, LanePeer
from shoal.session.messages import Desired, FromController, Hello, Welcome
from shoal.spec import Job, Output
from shoal.v1.session_service_pb2 import ControllerMessage
from shoal.wire.session import decode_controller_message

EXAMPLES = int(os.environ.get("SHOAL_EXAMPLES", "60"))
JOBS = tuple(Job(name, ("true",), outputs=(Output("out"),)) for name in ("a", "b", "c"))
HELLO = Hello("n1", "agent", Capacity())
WELCOME = Welcome("controller", 6.0, 1.0)

PEERS = st.builds(LanePeer, st.sampled_from(["", "x:1", "y:1"]), epoch=st.integers(0, 2))
LANES = st.builds(
    Lane,
    st.sampled_from([f"lane-{number}" for number in range(5)]),
    output=st.just(True),
    port=st.just("out"),
    peer=PEERS,
    hold=st.integers(0, 1),
    end=st.none() | st.just(3),
)
LISTS = st.lists(LANES, max_size=5, unique_by=lambda lane: lane.id).map(tuple)


class Wanted:
    """What should run on a node, as it changes."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.epoch = 0
        self.assignments: dict[AttemptRef, Assignment] = {}
        for job in JOBS:
            self.place(job)

    def change(self) -> None:
        """Change something, as a controller may."""
        choices = ["move", "move", "move", "place", "add", "relist", "goal", "remove"]
        what = self.data.draw(st.sampled_from(choices))
        if what == "place" or not self.assignments:
            self.place(self.data.draw(st.sampled_from(JOBS)))
            return
        ref = self.data.draw(st.sampled_from(list(self.assignments)))
        one = self.assignments[ref]
        match what:
            case "move" if one.lanes:
                moved = self.data.draw(st.sampled_from(one.lanes))
                self.epoch += 1
                moved = replace(moved, peer=LanePeer("z:1", epoch=self.epoch))
                one = replace(one, lanes=merged(one.lanes, [moved]))
            case "add":
                one = replace(one, lanes=merged(one.lanes, [self.data.draw(LANES)]))
            case "relist":
                one = replace(one, lanes=self.data.draw(LISTS))
            case "goal":
                one = replace(one, goal=Goal.FINISH if one.goal is Goal.RUN else Goal.STOP)
            case "remove":
                del self.assignments[ref]
                return
            case _:
                return
        self.assignments[ref] = one

    def place(self, job: Job) -> None:
        """Let an attempt of a job follow on the one before."""
        self.epoch += 1
        ref = AttemptRef("default", "p", job.name, self.epoch, self.epoch)
        self.assignments = {
            old: one for old, one in self.assignments.items() if old.job != job.name
        }
        self.assignments[ref] = Assignment(ref, job, lanes=self.data.draw(LISTS))


class Agent:
    """The machines of an agent whose programs never start, and the way to it."""

    def __init__(self) -> None:
        self.session = SessionMachine(SessionConfig(), lambda: 0.5)
        self.worker = AttemptsMachine()
        self.link = 0
        self.sequence = 0
        self.sent: dict[AttemptRef, Assignment] | None = None
        self.now = 0.0
        self.session.handle(ControllersKnown(("c:1",)), 0.0)

    def dial(self) -> None:
        """Begin a session anew."""
        if self.link:
            self.session.handle(LinkClosed(self.link, "it broke"), self.now)
            self.now = self.session.deadline() or self.now
            self.session.tick(self.now)
        self.link += 1
        self.sequence = 0
        self.sent = None
        self.session.handle(LinkOpened(self.link, HELLO), self.now)
        self.hear(WELCOME)
        assert self.session.state is SessionState.OPEN

    def follow(self, wanted: Wanted, *, takes_lanes: bool, bytes_max: int) -> Desired | None:
        """Tell it what is wanted now."""
        now = dict(wanted.assignments)
        told = delta(self.sent, now, revision=1, commit=1, takes_lanes=takes_lanes)
        self.sent = now
        for part in () if told is None else in_parts(told, bytes_max):
            read = ControllerMessage.FromString(part.SerializeToString())
            message = decode_controller_message(read)
            assert message is not None
            self.hear(message)
        return told

    def hear(self, message: FromController) -> None:
        self.sequence += 1
        for effect in self.session.handle(
            Received(self.link, self.sequence, 0, (message,)), self.now
        ):
            if isinstance(effect, Deliver):
                assert isinstance(effect.message, Desired)
                self.take(effect.message)

    def take(self, desired: Desired) -> None:
        known = {*self.worker.records, *(one.ref for one in desired.assignments)}
        assert {one.ref for one in desired.lanes} <= known
        for effect in self.worker.handle(DesiredChanged(desired, 1), self.now):
            if isinstance(effect, Forget):
                self.worker.handle(Forgotten(effect.ref), self.now)

    def assignments(self) -> dict[AttemptRef, Assignment]:
        """What it believes that it is to bring about."""
        return {
            ref: record.assignment
            for ref, record in self.worker.records.items()
            if record.phase is not Phase.FORGETTING
        }


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_deltas_end_where_a_snapshot_does(data: st.DataObject) -> None:
    wanted, agent = Wanted(data), Agent()
    takes_lanes = data.draw(st.booleans())
    agent.dial()
    for _ in range(data.draw(st.integers(1, 12))):
        if data.draw(st.integers(0, 9)) == 0:
            takes_lanes = data.draw(st.booleans())
            agent.dial()
        for _ in range(data.draw(st.integers(0, 5))):  # several travel together
            wanted.change()
        bytes_max = data.draw(st.sampled_from([1, 200, 1 << 20]))
        told = agent.follow(wanted, takes_lanes=takes_lanes, bytes_max=bytes_max)
        assert takes_lanes or told is None or not told.lanes
        assert agent.assignments() == wanted.assignments
    other = Agent()
    other.dial()
    other.follow(wanted, takes_lanes=takes_lanes, bytes_max=1 << 20)
    assert other.assignments() == agent.assignments()


@given(LISTS, LISTS)
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_change_of_lanes_leads_from_one_list_to_the_other_or_there_is_none(
    before: tuple[Lane, ...], after: tuple[Lane, ...]
) -> None:
    changed = lanes_between(before, after)
    if changed is None:
        gone = {lane.id for lane in before} - {lane.id for lane in after}
        kept = [lane.id for lane in after if lane.id in {lane.id for lane in before}]
        grown = [lane.id for lane in after[: len(before)]] == [lane.id for lane in before]
        assert gone or not grown or kept != [lane.id for lane in before]
    else:
        assert merged(before, changed) == after
        assert all(lane not in before for lane in changed), "nothing travels that is known"
