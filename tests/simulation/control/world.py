"""A whole cluster on a virtual clock: the real control machine, real SQL, simulated agents.

Everything random comes from one seed. Agents, links, the controller and gossip fail as told by
`Faults`; the invariants of DESIGN.md, section 6, are looked at after every step.
"""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from random import Random

from control import inbox, lifecycle
from control.delta import delta
from control.effects import Admitted, Answer, Effect, EndSession, Record, SetDesired, Taken
from control.errors import ControlError
from control.machine import ControlMachine, MachineConfig
from control.store import schema, statements
from control.store.rows import AttemptRow, JobRow, ManifestRow, Row
from control.views import Refusal, Submission
from shoal.model import (
    Artifact,
    Capacity,
    Followed,
    JobState,
    MemberState,
    Reason,
    ReasonCode,
    StreamCounters,
)
from shoal.names import AttemptRef, JobRef, PipelineRef
from shoal.session.assignment import Assignment, Goal
from shoal.session.attempt_lanes import merged
from shoal.session.messages import Desired, Fenced, Hello
from shoal.session.observation import Observation
from shoal.session.port_hold import PortHold
from shoal.session.progress import Progress
from shoal.spec import Job, Output, Pipeline, Placement, Resources, Retry, StreamInput

ENDLESS = ("endless",)
"""What sources run that never end by themselves."""

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)

AnswerValue = Taken | Admitted | Refusal | tuple[Fenced, ...] | ControlError | None


@dataclass(frozen=True, slots=True)
class Faults:
    """What may go wrong, each as a weight in the lottery that is held every `every_seconds`."""

    every_seconds: float = 0.7
    gap_seconds: float = 0.0
    noticed_seconds: float = 3.0
    cut: float = 3.0
    cut_seconds: float = 12.0
    agent_crash: float = 2.0
    node_crash: float = 1.0
    controller_crash: float = 1.5
    pause: float = 0.5
    verdict: float = 2.0
    false_verdicts: bool = True
    drain: float = 0.5
    cancel: float = 0.5
    finish: float = 1.0
    submit: float = 2.0
    nothing: float = 1.0
    failing_programs: float = 0.08
    torn_commit: float = 0.01


NO_DEATH = Faults(
    gap_seconds=5.0,  # or two short cuts are one long one
    noticed_seconds=1.0,
    cut_seconds=2.0,
    agent_crash=1.0,
    node_crash=0.0,
    pause=4.0,
    submit=5.0,
    verdict=0.0,
    false_verdicts=False,
    cancel=0.0,
    finish=0.0,
    failing_programs=0.0,
)
"""Only faults that are shorter than the tolerance: nothing may be restarted."""


@dataclass(eq=False)
class Program:
    """An attempt as its agent knows it; `running` is what the operating system would say."""

    assignment: Assignment
    state: JobState = JobState.PREPARING
    running: bool = False
    reason: Reason = field(default_factory=Reason)
    unacknowledged: bool = True
    holds: tuple[PortHold, ...] = ()
    repeats: int = 0
    """How often it still has to say that it sends again what was sent before."""

    @property
    def endless(self) -> bool:
        """Whether it runs until it is told to finish."""
        one = self.assignment
        return one.job.run == ENDLESS and one.goal is not Goal.FINISH


class Agent:
    """An agent with its keeper: attempts outlive its crashes, but not the node's."""

    def __init__(self, world: World, name: str, capacity: Capacity) -> None:
        self.world = world
        self.name = name
        self.capacity = capacity
        self.programs: dict[AttemptRef, Program] = {}
        self.up = True
        self.linked = True
        self.session: Session | None = None
        self.safe_until = 0.0
        self.born = 0
        self.gone = False
        self.followed: Followed | None = None
        self.told_at = float("-inf")
        self.kept_off = False

    def dial(self) -> None:
        """Open a session if there is none, and try again in a while."""
        world = self.world
        reached = self.up and self.linked and not self.kept_off
        if reached and self.session is None and world.machine is not None:
            session = self.session = Session(world, self, f"{self.name}-{next(world.ties)}")
            attempts = tuple(self.observation(one) for one in self.programs.values())
            hello = Hello(
                self.name,
                f"{self.name}-{self.born}",
                self.capacity,
                stream_address=f"{self.name}:{self.born}",
                attempts=attempts,
                instance_id=self.name,
                followed=self.followed,
                says_holds=True,
            )
            sent = world.now
            said = list(self.programs)

            def welcome(value: AnswerValue) -> None:
                assert isinstance(value, Admitted)
                if value.quarantine:
                    session.quarantined = True  # heartbeats alone
                    return
                if not isinstance(self.followed, Followed) or (
                    replace(self.followed, commit=0) != value.following
                ):
                    self.followed = value.following
                self.may_be_told()
                self.heard(sent)
                self.told(said, value)
                session.welcomed = True
                session.push()

            session.up(lambda call: inbox.HelloReceived(call, hello, session.id), welcome)
            world.later(1.0, self.beat)
        world.later(world.random.uniform(0.1, 1.0), self.dial)

    def beat(self) -> None:
        """Send a heartbeat, once a second in each session."""
        if self.session is None or not self.up:
            return
        sent = self.world.now
        session = self.session
        session.up(lambda _: inbox.HeartbeatReceived(self.name, session.id), None)
        # Its acknowledgement rides on the next message of the controller: an empty observation.
        session.up(
            lambda call: inbox.Observed(call, self.name, session.id, ()),
            lambda _: None if session.quarantined else self.heard(sent),
        )
        self.world.later(1.0, self.beat_of(session))

    def beat_of(self, session: Session) -> Callable[[], None]:
        def beat() -> None:
            if self.session is session:
                self.beat()

        return beat

    def heard(self, sent: float) -> None:
        """The controller has acknowledged something sent then: its lease lasts at least so long."""
        self.safe_until = max(self.safe_until, sent + self.world.config.lease_seconds)

    def told(self, said: Sequence[AttemptRef], value: AnswerValue) -> None:
        """Observations were committed, or refused."""
        if isinstance(value, Admitted):
            value = value.fenced
        if isinstance(value, tuple):
            for ref in said:
                if ref in self.programs:
                    self.programs[ref].unacknowledged = False
            for fenced in value:
                self.forget(fenced.ref)

    def may_be_told(self) -> None:
        """R6: a controller that does not know all that this agent was told never tells it anything."""
        mistaken = self.session is not None and self.session.mistaken
        assert not mistaken or self.told_at <= self.world.copied_at, (
            f"{self.name} is told something by a store of {self.world.copied_at}, "
            f"and it was told more at {self.told_at}"
        )

    def want(self, desired: Desired, sent: float) -> None:
        """Take desired state, as the controller had recorded it at `sent`."""
        if not self.up:
            return
        self.may_be_told()
        self.told_at = sent
        if self.followed is not None:
            commit = max(desired.commit, self.followed.commit)
            self.followed = replace(self.followed, commit=commit)
        gone: Sequence[AttemptRef] = desired.removed
        if desired.snapshot:
            named = {one.ref for one in desired.assignments}
            gone = [ref for ref in self.programs if ref not in named]
        for ref in gone:
            self.forget(ref)
        moved = [
            replace(known.assignment, lanes=merged(known.assignment.lanes, one.lanes))
            for one in desired.lanes
            if (known := self.programs.get(one.ref)) is not None
        ]
        for one in (*desired.assignments, *moved):
            self.world.check_ends(one)
            program = self.programs.get(one.ref)
            if program is None:
                if one.goal is not Goal.STOP:
                    program = self.programs[one.ref] = Program(one)
                    program.repeats = self.world.random.randint(0, 3) if one.replacement else 0
                    self.work(program)
                else:
                    program = self.programs[one.ref] = Program(one, JobState.CANCELLED)
                self.report(program)
            else:
                program.assignment = one
                if one.goal is Goal.STOP and program.state not in lifecycle.ENDED:
                    self.end(program, JobState.CANCELLED)

    def work(self, program: Program) -> None:
        random = self.world.random
        seconds = random.uniform(0.02, 1.0)
        if program.state is JobState.RUNNING and random.random() < 0.5:
            seconds = random.uniform(1.0, 10.0)
        self.world.later(seconds, lambda: self.step(program))

    def step(self, program: Program) -> None:
        """Let a program get on with its work."""
        ref = program.assignment.ref
        if self.programs.get(ref) is not program or program.state in lifecycle.ENDED:
            return
        match program.state:
            case JobState.PREPARING:
                if self.fenced(program):
                    return
                self.world.begins(ref, self.name)
                program.running = True
                program.state = JobState.RUNNING
            case JobState.RUNNING if program.endless:
                self.progress(program)
                self.stand_still(program)
                self.world.later(self.world.random.uniform(0.1, 0.5), lambda: self.step(program))
                return
            case JobState.RUNNING:
                self.progress(program)
                program.running = False
                if self.world.random.random() < self.world.faults.failing_programs:
                    self.end(program, JobState.FAILED, Reason(ReasonCode.EXIT, 3, "it broke"))
                    return
                program.state = JobState.DRAINING
            case JobState.DRAINING:
                self.progress(program)
                lanes = [one for one in program.assignment.lanes if one.output]
                if all(one.peer.done for one in lanes):
                    program.state = JobState.ARCHIVING
            case _:
                program.state = JobState.SUCCEEDED
        self.report(program)
        if program.state not in lifecycle.ENDED:
            self.work(program)

    def progress(self, program: Program) -> None:
        """Tell the counters of the outputs; such news may be lost."""
        one, session = program.assignment, self.session
        if session is None or not self.up:
            return
        program.repeats = max(0, program.repeats - 1)
        said = tuple(
            StreamCounters(
                output.name,
                output=True,
                repeating=program.repeats > 0,
            )
            for output in one.job.outputs
        )
        news = Progress(one.ref, said, "")
        session.up(lambda _: inbox.Progressed(self.name, session.id, news), None)

    def stand_still(self, program: Program) -> None:
        """Report how far the outputs are, once they are told to stand still."""
        one = program.assignment
        told = {lane.port: lane.hold for lane in one.lanes if lane.output and lane.hold}
        holds = tuple(PortHold(port, hold, one.ref.epoch) for port, hold in told.items())
        if holds and holds != program.holds:
            program.holds = holds
            self.report(program)

    def fenced(self, program: Program) -> bool:
        """End what may only run under a lease, once the lease may be over."""
        alone = program.assignment.job.placement is Placement.AT_MOST_ONE_RUNNING
        if not alone or self.world.now < self.safe_until:
            return False
        self.end(program, JobState.CANCELLED, Reason(ReasonCode.FENCED, 0, "no lease"))
        return True

    def watch_lease(self) -> None:
        """What the keeper does for programs that may only run under a lease."""
        for program in tuple(self.programs.values()):
            if program.running:
                self.fenced(program)
        left = self.safe_until - self.world.now
        self.world.later(left if left > 0 else 0.25, self.watch_lease)

    def end(self, program: Program, state: JobState, reason: Reason | None = None) -> None:
        program.running = False
        program.state = state
        program.reason = reason or Reason()
        self.report(program)

    def forget(self, ref: AttemptRef) -> None:
        program = self.programs.pop(ref, None)
        if program is not None:
            program.running = False

    def report(self, program: Program) -> None:
        program.unacknowledged = True
        session = self.session
        if not self.up or session is None or session.quarantined:
            return  # Hello tells it
        said = [program.assignment.ref]
        seen = (self.observation(program),)
        repeat = 2 if self.world.random.random() < 0.1 else 1
        for _ in range(repeat):
            session.up(
                lambda call: inbox.Observed(call, self.name, session.id, seen),
                lambda value: self.told(said, value),
            )

    @staticmethod
    def observation(program: Program) -> Observation:
        ref = program.assignment.ref
        artifacts: tuple[Artifact, ...] = ()
        if program.state is JobState.SUCCEEDED:
            artifacts = (Artifact("results/x", 1, "ab" * 32, f"{ref.prefix}/out/results/x"),)
        return Observation(ref, program.state, program.reason, artifacts, holds=program.holds)

    def crash(self, seconds: float) -> None:
        """The agent's process dies; the keeper and the jobs go on."""
        if self.up:
            self.up = False
            self.hang_up()
            self.world.later(seconds, self.rise)
            self.suspected()

    def power_cut(self, seconds: float) -> None:
        """The node goes down and comes back empty."""
        for ref in tuple(self.programs):
            self.forget(ref)
        self.crash(seconds)

    def rise(self) -> None:
        """The agent's process is back, unless the node is gone for good."""
        if not self.gone and not self.up:
            self.up = True
            self.born += 1

    def cut(self, seconds: float) -> None:
        """The link goes down; sessions may or may not notice."""
        self.linked = False
        self.world.later(seconds, self.heal)
        self.suspected()

    def suspected(self) -> None:
        """Gossip sees it sooner or later, unless it is quick."""
        world = self.world

        def see() -> None:
            if world.faults.verdict and not (self.up and self.linked):
                world.post(lambda _: inbox.MemberVerdict(self.name, MemberState.DEAD), None)

        world.later(world.random.uniform(0.5, 5.0), see)

    def heal(self) -> None:
        self.linked = True

    def hang_up(self) -> None:
        if self.session is not None:
            self.session.break_up()


class Session:
    """One stream: in order both ways, each message delayed, lost with the link."""

    def __init__(self, world: World, agent: Agent, session_id: str) -> None:
        self.world = world
        self.agent = agent
        self.id = session_id
        self.open = True
        self.welcomed = False
        self.quarantined = False
        self.mistaken = world.mistaken
        self.sent: dict[AttemptRef, Assignment] | None = None
        self.takes_lanes = int(session_id.rpartition("-")[2]) % 5 > 0
        self._up_at = 0.0
        self._down_at = 0.0

    def up(
        self, make: Callable[[int], inbox.Event], answered: Callable[[AnswerValue], None] | None
    ) -> None:
        """Send to the controller."""
        world = self.world
        self._up_at = max(self._up_at, world.now + world.random.uniform(0.001, 0.05))

        def deliver() -> None:
            if not self.open:
                return
            if not self.agent.linked or world.machine is None:
                world.later(world.random.uniform(0.1, world.faults.noticed_seconds), self.break_up)
                return
            world.post(make, lambda value: self.down(value, answered))

        world.at(self._up_at, deliver)

    def down(self, value: AnswerValue, answered: Callable[[AnswerValue], None] | None) -> None:
        if isinstance(value, ControlError):
            self.break_up()
        elif answered is not None:
            self.deliver(lambda: answered(value))

    def deliver(self, act: Callable[[], None]) -> None:
        """Send to the agent."""
        world = self.world
        self._down_at = max(self._down_at, world.now + world.random.uniform(0.001, 0.05))

        def arrive() -> None:
            if self.open and self.agent.linked and self.agent.up:
                act()
            elif self.open:
                world.later(world.random.uniform(0.1, world.faults.noticed_seconds), self.break_up)

        world.at(self._down_at, arrive)

    def push(self) -> None:
        """Send what should run, first as a snapshot."""
        machine = self.world.machine
        if machine is None or not self.welcomed or machine.session(self.agent.name) != self.id:
            return
        wanted = dict(machine.desired(self.agent.name))
        before, self.sent = self.sent, wanted
        desired = delta(
            before,
            wanted,
            revision=machine.revision,
            commit=machine.commits,
            takes_lanes=self.takes_lanes,
        )
        sent = self.world.now
        if desired is not None:
            self.deliver(lambda: self.agent.want(desired, sent))

    def break_up(self) -> None:
        """Both ends notice; the controller's sooner or later, or only by the lease."""
        if not self.open:
            return
        self.open = False
        if self.agent.session is self:
            self.agent.session = None
        if self.world.random.random() < 0.7:
            name = self.agent.name

            def close() -> None:
                self.world.post(lambda call: inbox.SessionClosed(call, name, self.id), None)

            self.world.later(self.world.random.uniform(0.0, 1.0), close)


class World:
    """The controller, its store, the agents, and what is known to have been promised."""

    def __init__(
        self,
        seed: int,
        faults: Faults,
        *,
        nodes: int = 3,
        machine: type[ControlMachine] = ControlMachine,
    ) -> None:
        self.seed = seed
        self.machine_class = machine
        self.random = Random(seed)
        self.faults = faults
        self.config = MachineConfig()
        self.now = 0.0
        self.ties = count()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.executescript(schema.TABLES)
        self.machine: ControlMachine | None = None
        self.paused_until = 0.0
        self._tick_at: float | None = None
        self._calls: dict[int, Callable[[AnswerValue], None]] = {}
        self.promised: dict[str, tuple[Pipeline, PipelineRef]] = {}
        self.epochs: dict[JobRef, int] = {}
        self.committed: dict[JobRef, AttemptRef] = {}
        self.begun: set[AttemptRef] = set()
        self.ends: dict[JobRef, dict[str, int]] = {}
        self.losses = 0
        self.trace: list[str] = []
        self.agents = [
            Agent(self, f"n{index}", Capacity(cpus=float(self.random.choice((2, 3, 4)))))
            for index in range(nodes)
        ]
        self.faulty = True
        self.mistaken = False
        """Whether the controller runs with a store that is not the right one."""
        self.copied_at = 0.0
        self._right = self.connection

    # --- time

    def at(self, moment: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (moment, next(self.ties), act))

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        self.at(self.now + seconds, act)

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Let virtual time pass."""
        while self._heap and self._heap[0][0] <= until and not done():
            self.now, _, act = heapq.heappop(self._heap)
            act()
        if not done():
            self.now = until

    # --- the controller

    def start(self) -> None:
        """Start the controller from its store."""
        if self.machine is not None:
            return
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"

        def ids(width: int) -> str:
            return "".join(self.random.choice(digits) for _ in range(width))

        drawn = Random(self.seed + next(self.ties))

        statements.count_start(self.connection, lambda: f"{drawn.getrandbits(64):016x}")
        self.machine = self.machine_class(
            self.config,
            statements.load(self.connection),
            self.now,
            wall=lambda: BEGAN + timedelta(seconds=self.now),
            ids=ids,
        )
        if not self.mistaken:
            self.check_promises()
        self.schedule_tick()

    def copy(self) -> sqlite3.Connection:
        """Copy the store as a backup does, while the controller runs."""
        target = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.backup(target)
        self.copied_at = self.now
        return target

    def mistake(self, store: sqlite3.Connection) -> None:
        """Let the controller start with another store; `mend` gives it the right one again.

        Agents that were told nothing since the copy follow it by right, so they are kept off.
        """
        self.crash(0.5)
        self.mistaken = True
        self.connection = store
        for agent in self.agents:
            agent.kept_off = agent.told_at <= self.copied_at

    def mend(self) -> None:
        """Start the controller with the store that it had."""
        self.crash(0.5)
        self.mistaken = False
        self.connection = self._right
        for agent in self.agents:
            agent.kept_off = False

    def crash(self, seconds: float) -> None:
        """Kill the controller: what it did not record is gone, and all its sessions."""
        if self.machine is None:
            return
        self.machine = None
        self._calls.clear()
        for agent in self.agents:
            if agent.session is not None:
                self.later(self.random.uniform(0.0, 0.5), agent.session.break_up)
        self.later(seconds, self.start)

    def post(
        self, make: Callable[[int], inbox.Event], answered: Callable[[AnswerValue], None] | None
    ) -> None:
        """Let something happen to the controller, once it is not paused."""
        machine = self.machine
        if machine is None:
            return
        if self.now < self.paused_until:
            mistaken = self.mistaken

            def later() -> None:
                if self.mistaken == mistaken:  # else it was sent to another controller
                    self.post(make, answered)

            self.at(self.paused_until, later)
            return
        call = next(self.ties)
        if answered is not None:
            self._calls[call] = answered
        event = make(call)
        stale = self.stale(machine, event)
        effects = machine.handle(event, self.now)
        for job, before in stale.items():
            assert _standing(machine, job) == before, f"{job} moved by a stale observation"
        self.apply(machine, effects)
        self.schedule_tick()

    @staticmethod
    def stale(machine: ControlMachine, event: inbox.Event) -> dict[JobRef, object]:
        """Jobs about which an event only has stale things to say, and where they stand."""
        if not isinstance(event, inbox.Observed):
            return {}
        said = {one.ref for one in event.observations}
        found: dict[JobRef, object] = {}
        for ref in said:
            job = machine.cluster.job(ref.job_ref)
            if job is not None and (job.attempt is None or job.attempt.ref not in said):
                found[job.ref] = _standing(machine, job.ref)
        return found

    def schedule_tick(self) -> None:
        deadline = None if self.machine is None else self.machine.deadline()
        if deadline is None:
            return
        moment = max(deadline, self.now, self.paused_until)
        if self._tick_at is None or moment < self._tick_at:
            self._tick_at = moment
            self.at(moment, self.tick)

    def tick(self) -> None:
        self._tick_at = None
        machine = self.machine
        if machine is None:
            return
        if self.now >= self.paused_until:
            deadline = machine.deadline()
            if deadline is not None and deadline <= self.now:
                self.apply(machine, machine.tick(self.now))
        self.schedule_tick()

    def apply(self, machine: ControlMachine, effects: Sequence[Effect]) -> None:
        """Record, then act; the controller may die before, or between."""
        if machine is not self.machine:
            return
        torn = self.faulty and self.random.random() < self.faults.torn_commit
        recorded = [effect for effect in effects if isinstance(effect, Record)]
        assert recorded == list(effects[: len(recorded)]), "record comes first"
        if torn and recorded and self.random.random() < 0.5:
            self.crash(self.random.uniform(0.1, 2.0))
            return
        for record in recorded:
            self.record(record.rows)
        if torn:
            self.crash(self.random.uniform(0.1, 2.0))
            return
        for effect in effects:
            match effect:
                case EndSession(node, session_id, _):
                    self.end_session(node, session_id)
                case SetDesired(node):
                    session = self.agent(node).session
                    if session is not None:
                        session.push()
                case Answer(call, value):
                    answered = self._calls.pop(call, None)
                    if answered is not None:
                        answered(value)
                case _:
                    pass
        self.check_capacity(machine)

    def record(self, rows: Sequence[Row]) -> None:
        self.connection.execute("BEGIN")
        statements.write(self.connection, rows)
        self.connection.execute("COMMIT")
        for row in () if self.mistaken else rows:
            if isinstance(row, JobRow):
                assert row.epoch >= self.epochs.get(row.ref, 0), f"epoch of {row.ref} fell"
                self.epochs[row.ref] = row.epoch
            elif isinstance(row, ManifestRow):
                job = row.attempt.job_ref
                assert job not in self.committed, f"{job} was committed twice"
                assert row.attempt.epoch == self.epochs[job], f"{row.attempt} was stale"
                self.committed[job] = row.attempt
            elif isinstance(row, AttemptRow) and row.state is JobState.LOST:
                self.losses += row.ref in self.begun

    def end_session(self, node: str, session_id: str) -> None:
        session = self.agent(node).session
        if session is not None and session.id == session_id:
            self.later(self.random.uniform(0.0, 0.2), session.break_up)

    def agent(self, name: str) -> Agent:
        return self.agents[int(name[1:])]

    # --- users

    def submit(self) -> None:
        """Submit something new, or something old again, until it is acknowledged."""
        if self.promised and self.random.random() < 0.3:
            key, (spec, _) = self.random.choice(sorted(self.promised.items(), key=lambda it: it[0]))
        else:
            key, spec = f"key-{next(self.ties)}", self.some_spec()
        self.try_submit(key, spec)

    def try_submit(self, key: str, spec: Pipeline) -> None:
        if self.mistaken:
            self.later(1.0, lambda: self.try_submit(key, spec))
            return
        acknowledged = False

        def taken(value: AnswerValue) -> None:
            nonlocal acknowledged
            assert isinstance(value, Taken), value
            if acknowledged or self.random.random() < 0.1:
                return  # the answer was lost: the user asks again
            acknowledged = True
            if key in self.promised:
                assert value.ref == self.promised[key][1], f"{key} made two pipelines"
                assert value.repeated
            self.promised[key] = (spec, value.ref)

        def again() -> None:
            if not acknowledged:
                self.try_submit(key, spec)

        self.post(lambda call: inbox.Submit(call, Submission("default", key, spec)), taken)
        self.later(1.0, again)

    def some_spec(self) -> Pipeline:
        placement = self.random.choice(
            (
                Placement.AT_LEAST_ONCE,
                Placement.AT_LEAST_ONCE,
                Placement.AT_MOST_ONE_RUNNING,
                Placement.PINNED,
            )
        )
        retry = Retry(attempts=self.random.choice((1, 2, 20)), backoff_seconds=0.2)
        resources = Resources(cpus=self.random.choice((0.5, 1.0)))
        if self.random.random() < 0.5:
            run = ENDLESS if self.random.random() < 0.2 else ("x",)
            return Pipeline(
                "one", (Job("main", run, placement=placement, retry=retry, resources=resources),)
            )
        return Pipeline(
            "three",
            (
                Job(
                    "a",
                    ENDLESS if self.random.random() < 0.4 else ("a",),
                    outputs=(Output("o"),),
                    retry=retry,
                    resources=resources,
                ),
                Job(
                    "b",
                    ("b",),
                    streams=(StreamInput("i", "a", "o"),),
                    outputs=(Output("o"),),
                    replicas=2,
                    retry=retry,
                    placement=placement,
                    resources=resources,
                ),
                Job(
                    "c",
                    ("c",),
                    streams=(StreamInput("i", "b", "o"),),
                    retry=retry,
                    resources=Resources(cpus=0.5),
                ),
            ),
        )

    # --- faults

    def lottery(self) -> None:
        """Draw one fault, and draw again later."""
        if not self.faulty:
            return
        if self.mistaken:
            self.later(1.0, self.lottery)
            return
        random, faults = self.random, self.faults
        agent = random.choice(self.agents)
        down = random.uniform(0.1, faults.cut_seconds)
        draws: list[tuple[float, Callable[[], None]]] = [
            (faults.cut, lambda: agent.cut(down)),
            (faults.agent_crash, lambda: agent.crash(down)),
            (faults.node_crash, lambda: agent.power_cut(down)),
            (faults.controller_crash, lambda: self.crash(random.uniform(0.1, 4.0))),
            (faults.pause, lambda: self.pause(random.uniform(0.1, 10.0))),
            (faults.verdict, lambda: self.verdict(agent)),
            (faults.drain, lambda: self.drain(agent, drained=random.random() < 0.5)),
            (faults.cancel, self.cancel),
            (faults.finish, self.finish),
            (faults.submit, self.submit),
            (faults.nothing, lambda: None),
        ]
        (act,) = random.choices([one for _, one in draws], [weight for weight, _ in draws])
        act()
        self.later(faults.gap_seconds + random.expovariate(1 / faults.every_seconds), self.lottery)

    def pause(self, seconds: float) -> None:
        """The controller's process stands still, and then finds its messages waiting."""
        self.paused_until = max(self.paused_until, self.now + seconds)
        self.at(self.paused_until, self.tick)  # its timers are due before it reads its messages

    def verdict(self, agent: Agent) -> None:
        gone = not agent.up or not agent.linked
        states = (MemberState.ALIVE, MemberState.SUSPECT, MemberState.DEAD, MemberState.DEAD)
        state = self.random.choice(states) if gone or self.faults.false_verdicts else states[0]
        self.post(lambda _: inbox.MemberVerdict(agent.name, state), None)

    def drain(self, agent: Agent, *, drained: bool) -> None:
        self.post(lambda call: inbox.Drain(call, agent.name, drained), lambda _: None)

    def cancel(self) -> None:
        if self.promised:
            _, ref = self.promised[self.random.choice(sorted(self.promised))]
            self.post(lambda call: inbox.Cancel(call, ref, "changed my mind"), lambda _: None)

    def finish(self) -> None:
        if self.promised:
            _, ref = self.promised[self.random.choice(sorted(self.promised))]
            self.post(lambda call: inbox.Finish(call, ref), lambda _: None)

    def finish_all(self) -> None:
        """Users finish what would never end, until that is done."""
        machine = self.machine
        for pipeline in () if machine is None else tuple(machine.cluster.pipelines.values()):
            if any(job.spec.run == ENDLESS and not job.ended for job in pipeline.jobs.values()):
                self.post(partial(_finish, pipeline.ref), lambda _: None)
        if not self.settled():
            self.later(5.0, self.finish_all)

    def heal(self) -> None:
        """Everything works from now on."""
        self.faulty = False
        self.start()
        self.later(1.0, self.finish_all)
        dies = self.faults.node_crash and self.random.random() < 0.3
        lost = self.random.choice(self.agents) if dies else None
        for agent in self.agents:
            agent.heal()
            if agent is lost:
                agent.gone = True
                agent.power_cut(0.0)
                self.later(5.0, partial(self.mourn, agent))
            else:
                agent.rise()
                self.verdict_alive(agent)

    def mourn(self, agent: Agent) -> None:
        """Users give up what is pinned to a node that never comes back; gossip need not help."""
        if self.machine is None:
            self.later(1.0, lambda: self.mourn(agent))
            return
        if self.random.random() < 0.5:
            self.post(lambda _: inbox.MemberVerdict(agent.name, MemberState.DEAD), None)
        for pipeline in tuple(self.machine.cluster.pipelines.values()):
            if any(job.pinned_node == agent.name for job in pipeline.jobs.values()):
                self.post(partial(_give_up, pipeline.ref), lambda _: None)
        if not self.settled():
            self.later(5.0, lambda: self.mourn(agent))

    def verdict_alive(self, agent: Agent) -> None:
        def alive() -> None:
            self.post(lambda _: inbox.MemberVerdict(agent.name, MemberState.ALIVE), None)
            self.drain(agent, drained=False)

        self.later(5.0, alive)

    # --- invariants

    def begins(self, ref: AttemptRef, node: str) -> None:
        """A program starts: no attempt does twice, and some jobs never beside themselves."""
        assert ref not in self.begun, f"{ref} begins again on {node}"
        self.begun.add(ref)
        for agent in self.agents:
            for other, program in agent.programs.items():
                if other.job_ref == ref.job_ref and program.running:
                    alone = program.assignment.job.placement is Placement.AT_MOST_ONE_RUNNING
                    assert not alone, f"{ref} begins on {node} while {other} runs on {agent.name}"

    def check_ends(self, told: Assignment) -> None:
        """Where a source ends is recorded before its agent hears of it, and never changes."""
        if told.goal is not Goal.FINISH:
            assert told.goal is Goal.STOP or all(lane.end is None for lane in told.lanes)
            return
        ref = told.ref
        (found,) = self.connection.execute(
            "SELECT ends FROM jobs WHERE pipeline = ? AND job = ?", (ref.pipeline, ref.job)
        )
        ends = json.loads(found[0])
        assert self.ends.setdefault(ref.job_ref, ends) == ends, f"the ends of {ref.job_ref} moved"
        for lane in told.lanes:
            assert lane.end == (ends[lane.port] if lane.output else None)

    def check_capacity(self, machine: ControlMachine) -> None:
        for node in machine.cluster.nodes.values():
            claimed = machine.cluster.claimed(node)
            assert claimed.cpus <= node.capacity.cpus + 1e-6, f"{node.name} is oversubscribed"

    def check_promises(self) -> None:
        machine = self.machine
        assert machine is not None
        for key, (spec, ref) in self.promised.items():
            assert ref in machine.cluster.pipelines, f"{key} was acknowledged and is lost"
            assert machine.cluster.pipelines[ref].spec == spec

    def settled(self) -> bool:
        """Whether every pipeline has ended and every agent knows it."""
        machine = self.machine
        return (
            machine is not None
            and all(one.state.terminal for one in machine.cluster.pipelines.values())
            and all(not agent.programs for agent in self.agents)
            and all(key in self.promised for key in self.promised)
        )

    def check_end(self) -> None:
        """Everything has ended: exactly one final event each, in order, and nothing else."""
        machine = self.machine
        assert machine is not None
        self.check_promises()
        rows = statements.outbox(self.connection, 0, 1_000_000)
        ids = [row.id for row in rows]
        assert len(ids) == len(set(ids)), "an event id was used twice"
        for pipeline in machine.cluster.pipelines.values():
            final = [
                row
                for row in rows
                if row.subject == pipeline.ref.name and row.type.rsplit(".", 1)[-1] in _FINAL
            ]
            assert [row.id for row in final] == [pipeline.final_event_id]
            assert final[0].sequence == max(
                row.sequence for row in rows if row.subject.startswith(pipeline.ref.name)
            ), "the final event is the last"
            for job in pipeline.jobs.values():
                assert job.ended
                ends = [
                    row
                    for row in rows
                    if row.subject == job.ref.name and row.type.rsplit(".", 1)[-1] in _FINAL
                ]
                assert len(ends) == 1, f"{job.ref} has {len(ends)} final events"
                assert (job.ref in self.committed) == (job.state is JobState.SUCCEEDED)
                epochs = [attempt.ref.epoch for attempt in job.attempts]
                assert epochs == sorted(set(epochs)), "epochs rise"
        reloaded = statements.load(self.connection)
        again = ControlMachine(
            self.config, reloaded, self.now, wall=lambda: BEGAN, ids=lambda width: "x" * width
        )
        for ref, pipeline in machine.cluster.pipelines.items():
            same = again.cluster.pipelines[ref]
            assert same.row() == pipeline.row(), "the store has what the machine has"
            assert [job.row() for job in same.jobs.values()] == [
                job.row() for job in pipeline.jobs.values()
            ]


def _give_up(ref: PipelineRef, call: int) -> inbox.Cancel:
    return inbox.Cancel(call, ref, "its node is gone")


def _finish(ref: PipelineRef, call: int) -> inbox.Finish:
    return inbox.Finish(call, ref)


def _standing(machine: ControlMachine, ref: JobRef) -> object:
    job = machine.cluster.job(ref)
    return job and (job.row(), job.attempt and job.attempt.row())


_FINAL = frozenset({"succeeded", "failed", "cancelled"})


def history(
    seed: int,
    faults: Faults,
    seconds: float = 15.0,
    machine: type[ControlMachine] = ControlMachine,
) -> World:
    """Live through one history: faults for a while, then healing; checks everything."""
    world = World(seed, faults, machine=machine)
    world.start()
    for agent in world.agents:
        agent.dial()
        agent.watch_lease()
    for _ in range(2):
        world.submit()
    world.lottery()
    world.run(seconds)
    world.heal()
    world.run(world.now + 400.0, world.settled)
    assert world.settled(), _unsettled(world)
    world.check_end()
    return world


def _unsettled(world: World) -> str:
    machine = world.machine
    lines = ["not settled within 400 s of healing:"]
    if machine is not None:
        lines += [
            f"{job.ref.name} {job.state.name} on {job.attempt and job.attempt.node}: "
            f"{job.waiting_for}"
            for pipeline in machine.cluster.pipelines.values()
            for job in pipeline.jobs.values()
            if not job.ended
        ]
    lines += [
        f"{agent.name} knows {sorted(ref.name for ref in agent.programs)}, session "
        f"{agent.session and agent.session.id}, up {agent.up}"
        for agent in world.agents
    ]
    return "\n".join(lines)
