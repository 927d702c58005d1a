"""Random histories of the machine: its table is never left, states only grow, records come first."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.attempts.effects import (
    AttemptsEffect,
    CancelWork,
    CollectArtifacts,
    DesiredRecorded,
    Forget,
    PrepareBundle,
    PrepareEnvironment,
    PrepareFiles,
    Report,
    StartProgram,
    StopProgram,
    Upload,
    WantUploads,
    WriteJournal,
)
from edge_agent.attempts.events import (
    Acknowledged,
    ArtifactsCollected,
    AttemptsEvent,
    DesiredChanged,
    Forgotten,
    GrantsExpired,
    Prepared,
    ProgramEnded,
    ProgramsListed,
    ProgramStarted,
    Restored,
    SessionOpened,
    StreamsBroken,
    StreamsClosed,
    StreamsDrained,
    StreamWorkerLost,
    Uploaded,
    WorkFailed,
)
from edge_agent.attempts.local_attempt import LocalAttempt, ProgramExit, ProgramStatus
from edge_agent.attempts.machine import AttemptsMachine
from edge_agent.attempts.phase import ALIVE, Phase
from shoal.model import Artifact, JobState, Reason, ReasonCode
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment, Goal
from shoal.session.lane import Lane
from shoal.session.messages import Desired, Fenced
from shoal.session.uploads import UploadGrant, UploadsGranted
from shoal.spec import Job, Output

ARTIFACT = Artifact("results/x", 1, "0" * 64)
JOBS = (
    Job("plain", ("true",)),
    Job("sender", ("true",), outputs=(Output("out"),)),
)
LANE = Lane("sender.out/next.in", output=True, port="out")
T = TypeVar("T")
REASON = Reason(ReasonCode.STREAM, 0, "it broke")


class Node:
    """A node around the machine: it performs effects at random moments, or dies before it does."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.worker = AttemptsMachine()
        self.journal: dict[AttemptRef, LocalAttempt] = {}
        self.running: set[AttemptRef] = set()
        self.exits: dict[AttemptRef, ProgramExit] = {}
        self.started: dict[AttemptRef, int] = {}
        self.pending: list[AttemptsEffect] = []
        self.reported: dict[AttemptRef, JobState] = {}
        self.desired: dict[AttemptRef, Assignment] = {}
        self.epoch = 0
        self.now = 0.0
        self.keepers = 1
        self.settling = False
        self.tell(Restored((), self.keeper, {}, False, True))

    @property
    def keeper(self) -> str:
        """The keeper that lives now."""
        return f"keeper-{self.keepers}"

    def tell(self, event: AttemptsEvent) -> None:
        self.take(self.worker.handle(event, self.now))

    def wait(self) -> None:
        """Let time pass, so that what lasts is recorded and told."""
        self.now += 1.0
        self.take(self.worker.tick(self.now))

    def take(self, effects: Sequence[AttemptsEffect]) -> None:
        for effect in effects:
            match effect:
                case WriteJournal(record):
                    assert record.ref in self.worker.records, "what is forgotten is not recorded"
                    self.journal[record.ref] = record
                case Report(observation):
                    recorded = self.journal[observation.ref].observation
                    assert recorded == observation, "record, then tell"
                    self.report(observation.ref, observation.state)
                case StartProgram(assignment):
                    assert self.journal[assignment.ref].phase is Phase.STARTING, "record, then act"
                    self.pending.append(effect)
                case DesiredRecorded() | CancelWork():
                    pass  # or few other effects would ever have their turn
                case _:
                    self.pending.append(effect)

    def report(self, ref: AttemptRef, state: JobState) -> None:
        before = self.reported.get(ref)
        assert before is None or state >= before or before is JobState.LOST, (before, state)
        self.reported[ref] = state

    def step(self) -> None:
        choices = [
            "assign",
            "goal",
            *["perform"] * 20,
            "exit",
            "streams",
            "session",
            "die",
            "keeper",
            "remove",
            *["wait"] * 4,
        ]
        match self.data.draw(st.sampled_from(choices)):
            case "assign":
                self.epoch += 1
                job = self.data.draw(st.sampled_from(JOBS))
                ref = AttemptRef("default", "p", job.name, self.epoch, self.epoch)
                lanes = (LANE,) if job.outputs else ()
                self.desired = {
                    old: wanted for old, wanted in self.desired.items() if old.job != job.name
                }
                self.want(Assignment(ref, job, lanes=lanes))
            case "goal" if self.desired:
                wanted = self.pick(list(self.desired.values()))
                goal = self.pick([Goal.STOP, Goal.FINISH])
                self.want(replace(wanted, goal=goal))
            case "remove" if self.desired:
                ref = self.pick(list(self.desired))
                del self.desired[ref]
                if self.data.draw(st.booleans()):
                    self.tell(Fenced(ref))
                self.tell(DesiredChanged(Desired(1, False, removed=(ref,)), 1))
            case "perform" if self.pending:
                effect = self.pick(self.pending)
                self.pending.remove(effect)
                self.perform(effect)
            case "exit" if self.running:
                self.exit(self.pick(sorted(self.running)))
            case "streams" if self.worker.records:
                ref = self.pick(sorted(self.worker.records))
                events: list[AttemptsEvent] = [
                    StreamsClosed(ref),
                    StreamsDrained(ref),
                    StreamsBroken(ref, REASON),
                    StreamWorkerLost(),
                ]
                self.tell(self.pick(events))
            case "session":
                for said in self.worker.observations():
                    assert said.state <= self.journal[said.ref].state, "record, then tell"
                self.tell(SessionOpened())
                self.tell(DesiredChanged(Desired(1, True, tuple(self.desired.values())), 1))
                for ref, state in self.reported.items():
                    self.tell(Acknowledged(ref, state))
            case "die":
                self.die()
            case "wait":
                self.wait()
            case "keeper":
                self.keeper_dies()
                if self.data.draw(st.booleans()):
                    self.die()
                else:
                    self.tell(ProgramsListed(self.keeper, {}))
            case _:
                pass

    def want(self, assignment: Assignment) -> None:
        self.desired[assignment.ref] = assignment
        at_hand = {assignment.ref} if self.data.draw(st.booleans()) else set[AttemptRef]()
        changed = Desired(1, False, (assignment,))
        self.tell(DesiredChanged(changed, 1, at_hand=frozenset(at_hand)))

    def exit(self, ref: AttemptRef) -> None:
        self.running.discard(ref)
        self.exits[ref] = ProgramExit(self.data.draw(st.sampled_from([0, 0, 1])))
        record = self.worker.records.get(ref)
        self.tell(ProgramEnded(ref, self.exits[ref]))
        if record is not None and record.finishing and record.phase is Phase.RUNNING:
            after = self.worker.records[ref].state
            assert after in {JobState.DRAINING, JobState.ARCHIVING}, "any end is what was wanted"

    def perform(self, effect: AttemptsEffect) -> None:
        ok = self.data.draw(st.integers(0, 4)) > 0
        match effect:
            case PrepareBundle(a, turn) | PrepareEnvironment(a, turn) | PrepareFiles(a, turn):
                self.tell(Prepared(a.ref, turn) if ok else WorkFailed(a.ref, turn, REASON))
            case StartProgram(assignment, turn, keeper):
                ref = assignment.ref
                if not ok or keeper != self.keeper:
                    self.tell(WorkFailed(ref, turn, REASON))
                    return
                if ref not in self.running and ref not in self.exits:
                    # What the keeper starts once it starts once, whoever asks again.
                    self.started[ref] = self.started.get(ref, 0) + 1
                    self.running.add(ref)
                match self.data.draw(st.sampled_from(["hear", "hear", "agent dies", "both die"])):
                    case "hear":
                        self.tell(ProgramStarted(ref, turn, 1.0))
                    case "agent dies":
                        self.die()
                    case _:
                        self.keeper_dies()
                        self.die()
            case StopProgram(ref) if ref in self.running:
                self.exit(ref)
            case CollectArtifacts(assignment, turn, _):
                found = (ARTIFACT,) if ok else ()
                if self.data.draw(st.booleans()):
                    self.wait()  # it takes long
                self.tell(ArtifactsCollected(assignment.ref, turn, found))
            case WantUploads(ref):
                grant = UploadGrant("results/x", "k", "u")
                self.tell(UploadsGranted(ref, (grant,)))
            case Upload(assignment, turn):
                event = Uploaded(assignment.ref, turn, (ARTIFACT,))
                self.tell(event if ok else GrantsExpired(assignment.ref, turn, (ARTIFACT,)))
            case Forget(ref):
                self.running.discard(ref)
                self.exits.pop(ref, None)
                if not ok and not self.settling:
                    self.die()  # the keeper has forgotten it, and the journal has not
                    return
                self.journal.pop(ref, None)
                self.tell(Forgotten(ref))
            case _:
                pass

    def die(self) -> None:
        """The agent is killed: what it did not do is lost, what it recorded is not."""
        self.pending.clear()
        self.worker = AttemptsMachine()
        records = tuple(self.journal.values())
        self.tell(Restored(records, self.keeper, self.listed(), False, True))

    def keeper_dies(self) -> None:
        """The keeper is killed, and the next one ends what it left and knows nothing."""
        self.keepers += 1
        self.running.clear()
        self.exits.clear()

    def listed(self) -> dict[AttemptRef, ProgramStatus]:
        running = {ref: ProgramStatus(1.0) for ref in self.running}
        return running | {ref: ProgramStatus(1.0, ended) for ref, ended in self.exits.items()}

    def pick(self, items: list[T]) -> T:
        return items[self.data.draw(st.integers(0, len(items) - 1))]

    def check(self) -> None:
        alive: dict[str, int] = {}
        for record in self.worker.records.values():
            alive[record.ref.job] = alive.get(record.ref.job, 0) + (record.phase in ALIVE)
        assert all(count <= 1 for count in alive.values()), "one program of a job on a node"
        assert all(count == 1 for count in self.started.values()), "one start an attempt"
        for ref in self.running:
            assert ref in self.journal, "nothing runs that a restarted agent would not know"

    def settle(self) -> None:
        """Let everything that is under way come to its end."""
        self.settling = True
        self.tell(DesiredChanged(Desired(1, True), 1))
        for _ in range(2000):
            if self.pending:
                self.perform(self.pending.pop(0))
            elif self.running:
                self.exit(min(self.running))
            elif self.worker.records:
                self.tell(DesiredChanged(Desired(1, True), 1))  # it may have died since
                self.tell(ProgramsListed(self.keeper, self.listed()))
                if not self.pending:
                    break


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_random_histories_keep_the_promises(data: st.DataObject) -> None:
    node = Node(data)
    for _ in range(data.draw(st.integers(1, 60))):
        node.step()
        node.check()
    node.settle()
    node.check()
    assert not node.worker.records, "what nobody wants is forgotten in the end"
    assert not node.running
