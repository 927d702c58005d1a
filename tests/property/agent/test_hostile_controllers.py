"""T4: no message of a controller that decodes makes an agent's machines raise, or breaks its journal.

What controllers send is made at random with the values at which numbers, names and texts break; what
the decoder lets pass goes through the session and the machine of attempts into a real journal, from
which the agent begins again now and then. `SHOAL_HOSTILE_MESSAGES` raises the count (600 messages a
seed, 3,000 in all).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from edge_agent.attempt_folder import keeper_id, parse_keeper_id
from edge_agent.attempts.effects import (
    AttachStreams,
    AttemptsEffect,
    CollectArtifacts,
    Forget,
    PrepareBundle,
    PrepareEnvironment,
    PrepareFiles,
    Report,
    StartProgram,
    StopProgram,
    UpdateLanes,
    Upload,
    WantUploads,
    WriteJournal,
)
from edge_agent.attempts.events import (
    Acknowledged,
    ArtifactsCollected,
    AttemptsEvent,
    DesiredChanged,
    DiskFull,
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
from edge_agent.attempts.phase import Phase
from edge_agent.followed import followed_text, read_followed
from edge_agent.journal import Journal
from edge_agent.session.effects import (
    Confirmed,
    Deliver,
    Dial,
    Follow,
    LeaseRenewed,
    Opened,
    SessionEffect,
    Write,
)
from edge_agent.session.events import (
    ControllersKnown,
    LinkClosed,
    LinkOpened,
    Received,
    Recorded,
    Say,
    SessionEvent,
)
from edge_agent.session.machine import SessionConfig, SessionMachine, SessionState
from shoal.limits import MOMENT_SECONDS_MAX
from shoal.model import Artifact, Capacity, Followed, Reason, ReasonCode
from shoal.names import AttemptRef
from shoal.session.bundles import BundlesWanted
from shoal.session.folder_files import FilesGranted
from shoal.session.messages import (
    Desired,
    FactsWanted,
    Fenced,
    FromController,
    Hello,
    Refused,
)
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.session.trust import CertificateIssued, Trust
from shoal.session.uploads import UploadsGranted, UploadsWanted
from shoal.v1 import session_service_pb2
from shoal.wire.assignment import encode_assignment
from shoal.wire.fields import WireError
from shoal.wire.lane import encode_lane
from shoal.wire.session import decode_controller_message, encode_request
from tests.kit.hostile_controller import HostileController

MESSAGES = int(os.environ.get("SHOAL_HOSTILE_MESSAGES", "600"))
SEEDS = 5
TICKS_MAX = 50
"""An agent that has more to do at one moment than this turns in a circle."""
WRITES_MAX = 1024
"""How many batches the link of a session holds for a controller that reads nothing."""

v1 = session_service_pb2

BROKEN = Reason(ReasonCode.STREAM, 0, "it broke")
KEEPER = "k"
ARTIFACT = Artifact("results/x", 1, "0" * 64, "default/x")


class Node:
    """An agent without a network and programs: its two machines, its journal, and what is to be done."""

    def __init__(self, seed: int, journal: Path) -> None:
        self.rng = Random(seed)
        self.controller = HostileController(self.rng, lambda: tuple(self.worker.records.values()))
        self.path = journal
        self.now = 0.0
        self.decoded = self.refused = self.desired = self.opened = 0
        self.link = self.sequence = self.written = self.acknowledged = self.unread = 0
        self.phases: set[Phase] = set()
        self.pending: list[AttemptsEffect] = []
        self.running: dict[AttemptRef, ProgramStatus] = {}
        self.recorded: dict[AttemptRef, LocalAttempt] = {}
        self.followed = ""
        self.worker = AttemptsMachine()
        self.session = SessionMachine(SessionConfig(), self.rng.random)

    def begin(self) -> None:
        """Be a new process of the agent, which knows nothing."""
        self.pending.clear()
        self.worker = AttemptsMachine()
        self.session = SessionMachine(SessionConfig(), self.rng.random)
        self.session.followed = read_followed(self.followed)

    async def live(self, messages: int) -> None:
        """Begin from the journal, hear so many messages, do and see other things, and die."""
        async with Journal(self.path) as self.journal:
            await self.restore()
            heard = self.decoded + self.refused
            while self.decoded + self.refused < heard + messages:
                self.now += self.rng.choice((0.0, 0.001, 0.3, 3.0))
                await self.tick()
                match self.session.state:
                    case SessionState.IDLE:
                        self.now = max(self.now, self.session.deadline() or 0.0)
                        await self.speak(ControllersKnown(("one:1", "two:2")))
                    case SessionState.DIALLING:
                        await self.speak(LinkOpened(self.link, self.hello()))
                    case _ if self.rng.random() < 0.1:
                        await self.speak(LinkClosed(self.link, "it broke"))
                    case _:
                        await self.hear()
                for _ in range(self.rng.randrange(20)):
                    await self.happen()
            await self.journal.barrier()

    async def restore(self) -> None:
        """Read the journal: it has every record, as it was."""
        loaded = await self.journal.load()
        assert {record.ref: record for record in loaded} == self.recorded
        assert (await self.journal.facts()).get("followed", "") == self.followed
        self.begin()
        rebooted, survived = self.rng.random() < 0.2, self.rng.random() < 0.8
        if rebooted:
            self.running.clear()
        self.attempts(Restored(loaded, KEEPER, dict(self.running), rebooted, survived))
        await self.speak(ControllersKnown(("one:1", "two:2")))

    def hello(self) -> Hello:
        seen = self.worker.observations()
        return Hello(
            "n1",
            "a",
            Capacity(4),
            attempts=seen,
            instance_id="i",
            followed=self.session.followed,
        )

    async def tick(self) -> None:
        """Let what is due happen."""
        for _ in range(TICKS_MAX):
            deadline = self.session.deadline()
            if deadline is None or deadline > self.now:
                return
            await self.act(self.session.tick(self.now))
        raise AssertionError(f"{TICKS_MAX} ticks at {self.now}, and another is due")

    async def speak(self, event: SessionEvent) -> None:
        await self.act(self.session.handle(event, self.now))

    # ---- the controller

    async def hear(self) -> None:
        """Hear a batch of a controller, read as the link of the session does."""
        self.sequence += 1
        self.acknowledged = self.rng.choice((self.acknowledged, self.written))
        response = self.controller.response(self.sequence, self.acknowledged)
        if self.session.state is SessionState.OPENING and self.rng.random() < 0.9:
            welcome = self.controller.welcome(self.session.followed or Followed("c", 1, "s"))
            response.messages.add().welcome.CopyFrom(welcome)
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            response.messages.append(self.controller.message())
        response = v1.ConnectResponse.FromString(response.SerializeToString())
        messages: list[FromController] = []
        for message in response.messages:
            try:
                decoded = decode_controller_message(message)
            except WireError:
                self.refused += 1
                continue
            self.decoded += 1
            if decoded is not None:
                messages.append(decoded)
        if self.acknowledged == self.written:
            self.unread = 0
        await self.speak(
            Received(self.link, response.sequence, response.acknowledged, tuple(messages))
        )

    async def act(self, effects: Sequence[SessionEffect]) -> None:
        """Do what the session asks for."""
        for effect in effects:
            match effect:
                case Dial(link):
                    self.link = link
                    self.sequence = self.written = self.acknowledged = self.unread = 0
                case Write(sequence, acknowledged, messages):
                    encode_request(sequence, acknowledged, messages).SerializeToString()
                    self.written = sequence
                    self.unread += 1
                    assert self.unread <= WRITES_MAX, "a controller that reads nothing is left"
                case Follow(followed):
                    self.followed = followed_text(followed)
                    self.journal.note("followed", self.followed)
                case Opened():
                    self.opened += 1
                    self.attempts(SessionOpened())
                case Confirmed(messages):
                    for message in messages:
                        if isinstance(message, Observation) and message.state.terminal:
                            self.attempts(Acknowledged(message.ref, message.state))
                case Deliver(message, delivery):
                    await self.deliver(message, delivery)
                case LeaseRenewed(until):
                    assert until < MOMENT_SECONDS_MAX
                case _:
                    pass

    async def deliver(
        self,
        message: Desired
        | UploadsGranted
        | FilesGranted
        | Refused
        | Fenced
        | Trust
        | CertificateIssued
        | FactsWanted
        | BundlesWanted,
        delivery: int,
    ) -> None:
        match message:
            case Trust() | CertificateIssued() | FactsWanted() | FilesGranted() | BundlesWanted():
                pass  # kept on the disk or by who waits for it, and in no machine
            case Desired():
                self.desired += len(message.assignments)
                self.attempts(DesiredChanged(message, delivery))
                await self.speak(Recorded(delivery))
            case UploadsGranted():
                self.attempts(message)
            case Fenced():
                self.attempts(message)
            case Refused():
                pass

    # ---- the programs

    def attempts(self, event: AttemptsEvent) -> None:
        """Tell the machine of attempts; its records are recorded at once, the rest waits."""
        for effect in self.worker.handle(event, self.now):
            match effect:
                case WriteJournal(record):
                    self.journal.put(record)
                    self.recorded[record.ref] = record
                    self.phases.add(record.phase)
                case _:
                    self.pending.append(effect)
        self.worker.tick(self.now)

    async def happen(self) -> None:
        """Perform an effect that waits, or let something happen to a program."""
        if self.pending and self.rng.random() < 0.8:
            index = self.rng.randrange(len(self.pending)) if self.rng.random() < 0.3 else 0
            await self.perform(self.pending.pop(index))
        elif self.running and self.rng.random() < 0.2:
            ref = self.rng.choice(list(self.running))
            if self.rng.random() < 0.5:
                self.exit(ref)
            else:
                self.attempts(
                    self.rng.choice(
                        (
                            StreamsClosed(ref),
                            StreamsDrained(ref),
                            StreamsBroken(ref, BROKEN),
                            DiskFull(ref, BROKEN),
                            StreamWorkerLost(),
                            ProgramsListed(KEEPER, dict(self.running)),
                        )
                    )
                )
                await self.speak(Say(Progress(ref, (), "x")))

    def exit(self, ref: AttemptRef) -> None:
        ended = ProgramExit(self.rng.choice((0, 0, 1)), end_time=1.7e9)
        self.running[ref] = ProgramStatus(1.7e9, ended)
        self.attempts(ProgramEnded(ref, ended))

    async def perform(self, effect: AttemptsEffect) -> None:
        ok = self.rng.random() < 0.9
        match effect:
            case (
                PrepareBundle(wanted, turn)
                | PrepareEnvironment(wanted, turn)
                | PrepareFiles(wanted, turn)
            ):
                ref = wanted.ref
                assert parse_keeper_id(keeper_id(ref)) == ref
                event = Prepared(ref, turn) if ok else WorkFailed(ref, turn, BROKEN)
                self.attempts(event)
            case StartProgram(wanted, turn):
                ref = wanted.ref
                if ok:
                    self.running.setdefault(ref, ProgramStatus(1.7e9))
                    self.attempts(ProgramStarted(ref, turn, 1.7e9))
                else:
                    self.attempts(WorkFailed(ref, turn, BROKEN))
            case StopProgram(ref) if ref in self.running:
                self.exit(ref)
            case AttachStreams(wanted):
                encode_assignment(wanted).SerializeToString()
            case UpdateLanes(_, lanes):
                for lane in lanes:
                    encode_lane(lane).SerializeToString()
            case CollectArtifacts(wanted, turn, _):
                found = (ARTIFACT,) if ok else ()
                self.attempts(ArtifactsCollected(wanted.ref, turn, found))
            case WantUploads(ref, artifacts):
                await self.speak(Say(UploadsWanted(ref, artifacts)))
            case Upload(wanted, turn, artifacts):
                stored = Uploaded(wanted.ref, turn, artifacts)
                self.attempts(stored if ok else GrantsExpired(wanted.ref, turn, artifacts))
            case Report(observation):
                await self.speak(Say(observation))
            case Forget(ref):
                self.running.pop(ref, None)
                self.recorded.pop(ref, None)
                self.journal.forget(ref)
                await self.journal.barrier()
                self.attempts(Forgotten(ref))
            case _:
                pass


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_t4_no_decoded_message_of_a_controller_makes_an_agent_raise(
    seed: int, tmp_path: Path
) -> None:
    node = Node(seed, tmp_path / "journal.db")
    for _ in range(max(1, MESSAGES // 200)):
        await node.live(min(200, MESSAGES))
    assert node.decoded > MESSAGES / 3
    assert node.desired > MESSAGES / 5
    assert node.opened > 1
    assert node.phases >= {Phase.RUNNING, Phase.ENDED, Phase.FORGETTING}
