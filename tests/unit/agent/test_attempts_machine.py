"""The table of an attempt's life, and what the machine decides at each step."""

from dataclasses import replace

import pytest

from edge_agent.attempts.effects import (
    AttachStreams,
    AttemptsEffect,
    CancelWork,
    CollectArtifacts,
    Conclude,
    DesiredRecorded,
    DismissKeeper,
    DismissStreamWorker,
    Forget,
    NoteStreamWorker,
    Prepare,
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
    Forgotten,
    GrantsExpired,
    KeeperOutdated,
    Prepared,
    ProgramEnded,
    ProgramsListed,
    ProgramStarted,
    Restored,
    SessionOpened,
    StreamsBroken,
    StreamsClosed,
    StreamsDrained,
    StreamsHeld,
    StreamWorkerFound,
    StreamWorkerLost,
    StreamWorkerOutdated,
    Uploaded,
    WorkFailed,
)
from edge_agent.attempts.local_attempt import LocalAttempt, ProgramExit, ProgramStatus, Verdict
from edge_agent.attempts.machine import AttemptsMachine
from edge_agent.attempts.phase import ALIVE, MOVES, PREPARING, STATE_OF, InvalidMoveError, Phase
from shoal.model import Artifact, JobState, Reason, ReasonCode
from shoal.names import AttemptRef
from shoal.secret import SecretUse
from shoal.session.assignment import Assignment, Goal
from shoal.session.attempt_lanes import AttemptLanes
from shoal.session.lane import Lane, LanePeer
from shoal.session.messages import Desired, Fenced
from shoal.session.port_hold import PortHold
from shoal.session.stage import AttemptStage
from shoal.session.uploads import ArtifactParts, PartGrant, UploadGrant, UploadsGranted
from shoal.spec import Job, Output, Placement, StreamInput

REF = AttemptRef("default", "p", "work", 1, 1)
PLAIN = Assignment(REF, Job("work", ("true",)))
LANE = Lane("work.out/next.in", output=True, port="out", peer=LanePeer("h:1", "a", 1))
SENDER = Assignment(REF, Job("work", ("true",), outputs=(Output("out"),)), lanes=(LANE,))
TAKER = Assignment(REF, Job("work", ("true",), streams=(StreamInput("in", "a", "out"),)))
ARTIFACT = Artifact("results/x", 1, "0" * 64)
STORED = replace(ARTIFACT, key="k")
GRANT = UploadGrant("results/x", "k", "http://s/k")
WELL = ProgramExit(0, end_time=9.0)
KEEPER = "k"


class Play:
    """A machine and everything that it asked for."""

    def __init__(self) -> None:
        self.worker = AttemptsMachine()
        self.effects: list[AttemptsEffect] = []

    def tell(self, *events: AttemptsEvent) -> list[AttemptsEffect]:
        new = [effect for event in events for effect in self.worker.handle(event, 0.0)]
        self.effects += new
        return new

    def want(self, *assignments: Assignment, snapshot: bool = False) -> list[AttemptsEffect]:
        return self.tell(DesiredChanged(Desired(1, snapshot, assignments), 1))

    def wait(self, seconds: float = 1.0) -> list[AttemptsEffect]:
        """Let time pass."""
        new = list(self.worker.tick(seconds))
        self.effects += new
        return new

    def at_hand(self, assignment: Assignment = PLAIN) -> list[AttemptsEffect]:
        """Want an attempt for which everything is here."""
        desired = Desired(1, snapshot=False, assignments=(assignment,))
        return self.tell(DesiredChanged(desired, 1, at_hand=frozenset({assignment.ref})))

    @property
    def record(self) -> LocalAttempt:
        return self.worker.records[REF]

    @property
    def turn(self) -> int:
        return self.record.turn

    def prepare(self, assignment: Assignment = PLAIN) -> None:
        self.want(assignment)
        for _ in range(3):
            self.tell(Prepared(assignment.ref, self.worker.records[assignment.ref].turn))

    def start(self, assignment: Assignment = PLAIN) -> list[AttemptsEffect]:
        self.prepare(assignment)
        turn = self.worker.records[assignment.ref].turn
        return self.tell(ProgramStarted(assignment.ref, turn, 5.0))

    def state(self) -> JobState:
        return self.worker.records[REF].state

    def reported(self) -> list[JobState]:
        return [effect.observation.state for effect in self.effects if isinstance(effect, Report)]


def kinds(effects: list[AttemptsEffect]) -> list[type]:
    return [type(effect) for effect in effects]


def test_every_phase_stands_in_the_table_and_can_be_forgotten() -> None:
    assert set(MOVES) == set(Phase)
    direct = {phase for phase, after in MOVES.items() if Phase.FORGETTING in after}
    assert direct == set(Phase) - {Phase.FORGETTING}
    assert set(STATE_OF) == set(Phase) - {Phase.ENDED, Phase.FORGETTING}


def test_an_attempt_says_its_stages_if_it_is_asked_and_keeps_their_first_times() -> None:
    asked = replace(PLAIN, tells_stages=True)
    play = Play()
    play.tell(DesiredChanged(Desired(1, False, (asked,)), 1, 10.0))
    play.tell(Prepared(REF, play.turn, 11.0))
    said = play.tell(Prepared(REF, play.turn, 12.0))
    assert kinds(said) == [WriteJournal, Report, PrepareEnvironment]
    said = play.tell(Prepared(REF, play.turn, 13.0))
    assert kinds(said) == [WriteJournal, Report, WriteJournal, StartProgram]
    play.tell(ProgramStarted(REF, play.turn, 14.0))
    stages = [(one.stage, one.time.timestamp()) for one in play.record.observation.stages]
    assert stages == [
        (AttemptStage.FETCHING, 10.0),
        (AttemptStage.FETCHED, 12.0),
        (AttemptStage.INSTALLING, 12.0),
        (AttemptStage.INSTALLED, 13.0),
    ]
    again = AttemptsMachine()
    again.handle(Restored((play.record,), KEEPER, {}, rebooted=True, streams_survived=False), 0.0)
    for time in (21.0, 22.0, 23.0):
        turn = again.records[REF].turn
        effects = again.handle(Prepared(REF, turn, time), 0.0)
        assert not any(isinstance(effect, Report) for effect in effects)
    assert again.records[REF].observation.stages == play.record.observation.stages


def test_an_attempt_that_is_not_asked_says_no_stages() -> None:
    play = Play()
    play.start()
    assert play.record.observation.stages == ()


def test_an_attempt_goes_all_the_way() -> None:
    play = Play()
    first = play.want(PLAIN)
    assert kinds(first) == [WriteJournal, Report, PrepareBundle, DesiredRecorded]
    assert kinds(play.tell(Prepared(REF, play.turn))) == [PrepareFiles]
    assert kinds(play.tell(Prepared(REF, play.turn))) == [PrepareEnvironment]
    assert kinds(play.tell(Prepared(REF, play.turn))) == [WriteJournal, StartProgram]
    assert play.tell(ProgramStarted(REF, play.turn, 5.0)) == []
    assert kinds(play.wait()) == [WriteJournal, Report]
    assert kinds(play.tell(ProgramEnded(REF, WELL))) == [CollectArtifacts]
    assert kinds(play.tell(ArtifactsCollected(REF, play.turn, (ARTIFACT,)))) == [
        WriteJournal,
        Report,
        WantUploads,
    ]
    granted = UploadsGranted(REF, (GRANT,))
    assert kinds(play.tell(granted)) == [Upload]
    last = play.tell(Uploaded(REF, play.turn, (STORED,)))
    assert kinds(last) == [WriteJournal, Report]
    assert play.record.observation.artifacts == (STORED,)
    assert (play.record.start_time, play.record.end_time) == (5.0, 9.0)
    assert play.reported() == [
        JobState.PREPARING,
        JobState.RUNNING,
        JobState.ARCHIVING,
        JobState.SUCCEEDED,
    ]
    assert play.tell(Acknowledged(REF, JobState.SUCCEEDED)) == []
    assert play.worker.observations() == ()
    assert kinds(play.tell(DesiredChanged(Desired(2, False, removed=(REF,)), 2))) == [
        Forget,
        DesiredRecorded,
    ]
    assert play.worker.deadline() is None, "nothing of it is recorded or told any more"
    assert play.tell(Forgotten(REF)) == []
    assert not play.worker.records


def test_an_attempt_for_which_everything_is_at_hand_is_recorded_twice_and_told_once() -> None:
    """What a restart finds out by itself is neither recorded nor told, if it does not last."""
    play = Play()
    play.worker.handle(Restored((), KEEPER, {}, rebooted=False, streams_survived=False), 0.0)
    first = play.at_hand()
    assert kinds(first) == [Prepare, WriteJournal, StartProgram, DesiredRecorded]
    assert (play.record.phase, play.record.keeper) == (Phase.STARTING, KEEPER), (
        "named before it is told"
    )
    assert play.tell(ProgramStarted(REF, play.turn, 5.0)) == []
    assert kinds(play.tell(ProgramEnded(REF, WELL))) == [CollectArtifacts]
    assert kinds(play.tell(ArtifactsCollected(REF, play.turn, ()))) == [WriteJournal, Report]
    assert play.reported() == [JobState.SUCCEEDED]
    seen = play.record.observation
    assert seen.start_time is not None
    assert seen.end_time is not None
    assert play.worker.deadline() is None


def test_what_lasts_is_recorded_and_told() -> None:
    play = Play()
    play.at_hand()
    assert kinds(play.wait()) == [Report], "it is recorded since it was begun"
    play.tell(ProgramStarted(REF, play.turn, 5.0))
    assert kinds(play.wait()) == [WriteJournal, Report]
    play.tell(ProgramEnded(REF, WELL))
    assert kinds(play.wait()) == [WriteJournal, Report]
    assert play.wait() == []
    play.tell(ArtifactsCollected(REF, play.turn, ()))
    play.tell(Acknowledged(REF, JobState.SUCCEEDED))
    assert kinds(play.wait()) == [WriteJournal], "that it is taken is no news for who took it"
    assert play.reported() == [
        JobState.PREPARING,
        JobState.RUNNING,
        JobState.ARCHIVING,
        JobState.SUCCEEDED,
    ]


def test_a_hello_says_nothing_that_is_not_recorded() -> None:
    play = Play()
    play.at_hand()
    recorded = play.record
    play.tell(ProgramStarted(REF, play.turn, 5.0))
    assert play.worker.observations() == (recorded.observation,)
    play.wait()
    assert play.worker.observations() == (play.record.observation,)


@pytest.mark.parametrize(
    "slow",
    [
        SENDER,
        replace(PLAIN, tells_stages=True),
        replace(PLAIN, job=replace(PLAIN.job, placement=Placement.AT_MOST_ONE_RUNNING)),
    ],
)
def test_what_streams_says_stages_or_needs_a_lease_goes_step_by_step(slow: Assignment) -> None:
    play = Play()
    assert kinds(play.at_hand(slow))[:3] == [WriteJournal, Report, PrepareBundle]


def test_an_attempt_at_hand_waits_for_the_one_before_it_to_be_gone() -> None:
    play = Play()
    play.start()
    play.at_hand(replace(PLAIN, ref=AttemptRef("default", "p", "work", 2, 2)))
    assert Prepare not in kinds(play.effects)
    assert StopProgram in kinds(play.effects)


def test_nothing_begins_while_the_keeper_is_about_to_end() -> None:
    play = Play()
    play.tell(Restored((), KEEPER, {}, rebooted=False, streams_survived=False))
    play.tell(KeeperOutdated(KEEPER))
    play.at_hand()
    assert Prepare not in kinds(play.effects)


def test_a_start_at_hand_that_was_recorded_goes_on_where_that_keeper_does_not_know_it() -> None:
    """ADR 6: recorded before the keeper was told, so that very keeper may be told, and no other."""
    for keeper, expected in ((KEEPER, [StartProgram]), ("another", [WriteJournal, Report])):
        play = Play()
        play.tell(Restored((), KEEPER, {}, rebooted=False, streams_survived=False))
        play.at_hand()
        again = AttemptsMachine()
        restored = Restored((play.record,), keeper, {}, rebooted=False, streams_survived=False)
        assert kinds(list(again.handle(restored, 0.0))) == expected


def test_a_start_at_hand_that_failed_is_the_end() -> None:
    play = Play()
    play.at_hand()
    reason = Reason(ReasonCode.START, 0, "no such program")
    assert kinds(play.tell(WorkFailed(REF, play.turn, reason))) == [WriteJournal, Report]
    assert (play.state(), play.record.reason) == (JobState.FAILED, reason)


def test_a_stop_before_it_was_told_that_it_runs_says_so_first() -> None:
    play = Play()
    play.at_hand()
    play.tell(ProgramStarted(REF, play.turn, 5.0))
    assert kinds(play.want(stop(PLAIN))) == [
        WriteJournal,
        Report,
        WriteJournal,
        StopProgram,
        DesiredRecorded,
    ]
    assert play.reported() == [JobState.RUNNING]
    play.tell(ProgramEnded(REF, ProgramExit(-1, signal=15)))
    assert play.state() is JobState.CANCELLED


def test_a_job_that_leaves_nothing_needs_no_uploads() -> None:
    play = Play()
    play.start()
    play.tell(ProgramEnded(REF, WELL))
    assert kinds(play.tell(ArtifactsCollected(REF, play.turn, ()))) == [WriteJournal, Report]
    assert play.state() is JobState.SUCCEEDED


@pytest.mark.parametrize("steps", range(3))
def test_a_failure_while_preparing_is_the_end(steps: int) -> None:
    play = Play()
    play.want(PLAIN)
    for _ in range(steps):
        play.tell(Prepared(REF, play.turn))
    reason = Reason(ReasonCode.INSTALL, 0, "no such package")
    assert kinds(play.tell(WorkFailed(REF, play.turn, reason))) == [WriteJournal, Report]
    assert (play.record.state, play.record.reason) == (JobState.FAILED, reason)


@pytest.mark.parametrize(
    ("ended", "code", "number"),
    [
        (ProgramExit(3, stderr_tail="oh"), ReasonCode.EXIT, 3),
        (ProgramExit(-1, signal=11), ReasonCode.SIGNAL, 11),
        (ProgramExit(0, problem="records may be missing"), ReasonCode.STREAM, 0),
        (ProgramExit(-1, signal=15, problem="a relay died"), ReasonCode.STREAM, 0),
        (ProgramExit(-1, signal=15, timed_out=True), ReasonCode.TIMEOUT, 0),
        (ProgramExit(0, timed_out=True), ReasonCode.TIMEOUT, 0),
    ],
)
def test_how_a_program_ended_is_the_reason(
    ended: ProgramExit, code: ReasonCode, number: int
) -> None:
    play = Play()
    play.start()
    told = kinds(play.tell(ProgramEnded(REF, ended)))
    assert told == [WriteJournal, Report, WriteJournal, CollectArtifacts], "then what it printed"
    assert play.state() is JobState.FAILED
    assert (play.record.reason.code, play.record.reason.number) == (code, number)
    assert ended.stderr_tail in play.record.reason.message


def test_an_outcome_that_was_overtaken_is_dropped() -> None:
    play = Play()
    play.want(PLAIN)
    old = play.turn
    play.tell(Prepared(REF, old))
    assert play.tell(Prepared(REF, old)) == []
    assert play.tell(WorkFailed(REF, old, Reason(ReasonCode.BUNDLE))) == []


def test_an_outcome_in_turn_but_off_the_table_raises() -> None:
    play = Play()
    play.want(PLAIN)
    with pytest.raises(InvalidMoveError, match="while it was bundle"):
        play.tell(ProgramStarted(REF, play.turn, 1.0))


def stop(assignment: Assignment) -> Assignment:
    return replace(assignment, goal=Goal.STOP)


def test_a_stop_while_preparing_cancels_the_work() -> None:
    play = Play()
    play.want(PLAIN)
    effects = play.want(stop(PLAIN))
    assert kinds(effects) == [WriteJournal, CancelWork, WriteJournal, Report, DesiredRecorded]
    assert play.state() is JobState.CANCELLED


def test_a_stop_while_running_waits_for_the_end_of_the_program() -> None:
    play = Play()
    play.start()
    effects = play.want(stop(PLAIN))
    assert kinds(effects) == [WriteJournal, Report, WriteJournal, StopProgram, DesiredRecorded]
    assert play.state() is JobState.RUNNING
    play.tell(ProgramEnded(REF, ProgramExit(-1, signal=15)))
    assert play.state() is JobState.CANCELLED
    assert play.record.reason.code is ReasonCode.CANCELLED


def test_a_stop_while_starting_stops_what_has_started() -> None:
    play = Play()
    play.prepare()
    assert StopProgram not in kinds(play.want(stop(PLAIN)))
    assert kinds(play.tell(ProgramStarted(REF, play.turn, 1.0))) == [WriteJournal, StopProgram]
    play.tell(ProgramEnded(REF, ProgramExit(-1, signal=15)))
    assert play.state() is JobState.CANCELLED


def test_a_stop_reaches_a_start_that_waits_for_its_lease() -> None:
    leased = replace(PLAIN, job=replace(PLAIN.job, placement=Placement.AT_MOST_ONE_RUNNING))
    play = Play()
    play.prepare(leased)
    assert StopProgram in kinds(play.want(stop(leased)))
    play.tell(WorkFailed(REF, play.turn, Reason(ReasonCode.START, 0, "stopped before")))
    assert play.state() is JobState.CANCELLED


def test_a_stop_while_archiving_cancels_and_after_the_end_changes_nothing() -> None:
    play = Play()
    play.start()
    play.tell(ProgramEnded(REF, WELL))
    assert CancelWork in kinds(play.want(stop(PLAIN)))
    assert play.state() is JobState.CANCELLED
    other = Play()
    other.start()
    other.tell(ProgramEnded(REF, ProgramExit(1)))
    other.want(stop(PLAIN))
    assert other.state() is JobState.FAILED


def test_an_attempt_that_comes_stopped_never_begins() -> None:
    play = Play()
    effects = play.want(stop(PLAIN))
    assert PrepareBundle not in kinds(effects)
    assert play.state() is JobState.CANCELLED


def test_what_a_snapshot_leaves_out_is_ended_and_forgotten() -> None:
    play = Play()
    play.start()
    play.wait()
    assert StopProgram in kinds(play.want(snapshot=True))
    effects = play.tell(ProgramEnded(REF, ProgramExit(-1, signal=9)))
    assert kinds(effects) == [WriteJournal, Forget]
    assert play.reported() == [JobState.PREPARING, JobState.RUNNING]


def test_without_a_snapshot_others_are_left_alone() -> None:
    play = Play()
    play.start()
    assert play.want() == [DesiredRecorded(1)]


def test_a_fenced_attempt_is_stopped_and_nothing_is_said() -> None:
    play = Play()
    play.start()
    assert kinds(play.tell(Fenced(REF))) == [WriteJournal, StopProgram]
    assert play.tell(Fenced(REF)) == []


def test_a_newer_epoch_ends_the_older_and_starts_after_it() -> None:
    play = Play()
    play.start()
    newer = replace(PLAIN, ref=REF._replace(number=2, epoch=2))
    assert StopProgram in kinds(play.want(newer))
    for _ in range(3):
        play.tell(Prepared(newer.ref, play.worker.records[newer.ref].turn))
    assert play.worker.records[newer.ref].phase is Phase.READY
    effects = play.tell(ProgramEnded(REF, ProgramExit(-1, signal=15)))
    assert kinds(effects) == [WriteJournal, Forget, WriteJournal, StartProgram]


def test_an_older_epoch_is_dropped() -> None:
    play = Play()
    play.want(replace(PLAIN, ref=REF._replace(number=2, epoch=2)))
    assert play.want(PLAIN) == [DesiredRecorded(1)]


def test_ports_are_handed_over_after_the_start_and_concluded_at_the_end() -> None:
    play = Play()
    assert kinds(play.start(TAKER)) == [WriteJournal, Report, AttachStreams]
    effects = play.tell(ProgramEnded(REF, WELL))
    assert effects[0] == Conclude(REF, succeeded=True)
    assert play.state() is JobState.ARCHIVING


def test_a_sender_drains_before_it_archives() -> None:
    play = Play()
    play.start(SENDER)
    assert kinds(play.tell(ProgramEnded(REF, WELL))) == [Conclude, WriteJournal, Report]
    assert play.state() is JobState.DRAINING
    assert CollectArtifacts in kinds(play.tell(StreamsDrained(REF)))
    assert play.tell(StreamsDrained(REF)) == []


@pytest.mark.parametrize("assignment", [TAKER, SENDER])
def test_of_which_inputs_a_program_was_shown_the_end_is_said_with_its_end(
    assignment: Assignment,
) -> None:
    """A sink is archived at once; what its stream worker says comes while it is."""
    play = Play()
    play.start(assignment)
    play.tell(ProgramEnded(REF, WELL))
    play.tell(StreamsDrained(REF, ("in",)))
    effects = play.tell(ArtifactsCollected(REF, play.record.turn, ()))
    assert play.record.state is JobState.SUCCEEDED
    assert play.record.observation.ended_inputs == ("in",)
    assert Report(play.record.observation) in effects


def test_a_failed_program_ends_its_streams_as_failed() -> None:
    play = Play()
    play.start(SENDER)
    effects = play.tell(ProgramEnded(REF, ProgramExit(2)))
    assert effects[0] == Conclude(REF, succeeded=False)
    assert play.state() is JobState.FAILED


def test_lanes_that_change_are_passed_on_while_they_are_carried() -> None:
    play = Play()
    moved = replace(SENDER, lanes=(replace(LANE, peer=replace(LANE.peer, address="h:2")),))
    play.want(SENDER)
    assert UpdateLanes not in kinds(play.want(moved))
    play = Play()
    play.start(SENDER)
    assert UpdateLanes(REF, moved.lanes) in play.want(moved)
    assert UpdateLanes not in kinds(play.want(moved))
    play.tell(ProgramEnded(REF, WELL))
    assert UpdateLanes in kinds(play.want(SENDER))


def test_lanes_that_come_alone_take_the_places_of_those_before() -> None:
    play = Play()
    play.start(SENDER)
    moved = replace(LANE, peer=replace(LANE.peer, address="h:2"))
    added = replace(LANE, id="work.out/other.in")
    change = AttemptLanes(REF, (moved, added))
    effects = play.tell(DesiredChanged(Desired(2, False, lanes=(change,)), 2))
    assert kinds(effects) == [WriteJournal, UpdateLanes, DesiredRecorded]
    assert effects[1] == UpdateLanes(REF, (moved, added))
    assert play.record.assignment == replace(SENDER, lanes=(moved, added))
    unknown = AttemptLanes(REF._replace(job="nobody"), (moved,))
    effects = play.tell(DesiredChanged(Desired(3, False, lanes=(unknown,)), 3))
    assert kinds(effects) == [DesiredRecorded]


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (ReasonCode.STREAM, JobState.FAILED),
        (ReasonCode.REWIND, JobState.FAILED),
        (ReasonCode.LOST, JobState.LOST),
    ],
)
def test_broken_streams_stop_the_program_and_are_the_reason(
    code: ReasonCode, state: JobState
) -> None:
    """A stream worker that died while it was to attach is no failure of the job's."""
    play = Play()
    play.start(SENDER)
    reason = Reason(code, 0, "out: bad header")
    assert StopProgram in kinds(play.tell(StreamsBroken(REF, reason)))
    play.tell(ProgramEnded(REF, ProgramExit(1)))
    assert (play.record.state, play.record.reason) == (state, reason)


def test_how_far_a_port_is_that_stands_still_is_recorded_and_reported_once() -> None:
    play = Play()
    play.start(SENDER)
    holds = (PortHold("out", 3, 12),)
    effects = play.tell(StreamsHeld(REF, holds))
    assert kinds(effects) == [WriteJournal, Report]
    assert effects[1] == Report(play.record.observation)
    assert play.record.observation.holds == holds
    assert play.tell(StreamsHeld(REF, holds)) == [], "the stream worker tells it again"
    assert play.worker.observations()[0].holds == holds, "a new session begins with it"
    play, _ = restore(play.record, ProgramStatus(5.0))
    assert play.tell(StreamsHeld(REF, holds)) == []
    assert play.worker.observations()[0].holds == holds
    assert kinds(play.tell(StreamsHeld(REF, (PortHold("out", 4, 15),)))) == [WriteJournal, Report]
    play.tell(ProgramEnded(REF, ProgramExit(1)))
    assert play.tell(StreamsHeld(REF, (PortHold("out", 5, 15),))) == [], "it has ended"


def test_broken_streams_while_draining_are_the_end() -> None:
    play = Play()
    play.start(SENDER)
    play.tell(ProgramEnded(REF, WELL))
    play.tell(StreamsBroken(REF, Reason(ReasonCode.REWIND)))
    assert play.state() is JobState.FAILED
    assert play.tell(StreamsBroken(REF, Reason(ReasonCode.STREAM))) == []


def test_a_dead_stream_worker_loses_attempts_with_ports_alone() -> None:
    play = Play()
    play.start(SENDER)
    other = replace(PLAIN, ref=REF._replace(job="other"), job=Job("other", ("true",)))
    play.start(other)
    assert [
        effect.ref for effect in play.tell(StreamWorkerLost()) if isinstance(effect, StopProgram)
    ] == [REF]
    assert play.tell(StreamWorkerFound("7@1")) == [NoteStreamWorker("7@1")]
    play.tell(ProgramEnded(REF, ProgramExit(1)))
    assert play.state() is JobState.LOST
    assert play.worker.records[other.ref].state is JobState.RUNNING


def test_addresses_that_expired_are_wanted_again_and_in_each_session() -> None:
    play = Play()
    play.start()
    play.tell(ProgramEnded(REF, WELL), ArtifactsCollected(REF, play.turn + 1, (ARTIFACT,)))
    assert play.tell(SessionOpened()) == [WantUploads(REF, (ARTIFACT,))]
    granted = UploadsGranted(REF, (GRANT,))
    play.tell(granted)
    assert play.tell(granted) == []
    assert play.tell(SessionOpened()) == []
    assert kinds(play.tell(GrantsExpired(REF, play.turn, (ARTIFACT,)))) == [WantUploads]
    play.tell(granted)
    play.tell(WorkFailed(REF, play.turn, Reason(ReasonCode.ARCHIVE)))
    assert play.record.reason.code is ReasonCode.ARCHIVE


def test_what_travels_in_parts_goes_on_where_it_was_after_a_restart_and_a_power_cut() -> None:
    play = Play()
    play.start()
    parts = ArtifactParts("results/x", 5 << 20, ("a" * 64, "b" * 64))
    found = ArtifactsCollected(REF, play.turn + 1, (ARTIFACT,), parts=(parts,))
    effects = play.tell(ProgramEnded(REF, WELL), found)
    assert effects[-1] == WantUploads(REF, (ARTIFACT,), (parts,))
    known = replace(parts, upload_id="u1")
    grant = UploadGrant("results/x", "k", upload_id="u1", parts=(PartGrant(1, "http://s/1"),))
    record, upload = play.tell(UploadsGranted(REF, (grant,)))
    # The id is recorded before a part is sent.
    assert isinstance(record, WriteJournal)
    assert record.record.parts == (known,)
    assert isinstance(upload, Upload)
    assert upload.parts == (known,)
    # The same answer again changes nothing that is to be recorded.
    play.tell(GrantsExpired(REF, play.turn, (ARTIFACT,)))
    assert kinds(play.tell(UploadsGranted(REF, (grant,)))) == [Upload]
    for rebooted in (False, True):
        again = Play()
        again.tell(Restored((play.record,), "", {}, rebooted=rebooted, streams_survived=False))
        if rebooted:  # what was hashed is hashed once more, and is the same
            again.tell(ArtifactsCollected(REF, again.turn, (ARTIFACT,), parts=(parts,)))
        assert again.tell(SessionOpened())[-1] == WantUploads(REF, (ARTIFACT,), (known,))
    other = replace(parts, part_sha256=("a" * 64, "c" * 64))
    again = Play()
    again.tell(Restored((play.record,), "", {}, rebooted=True, streams_survived=False))
    effects = again.tell(ArtifactsCollected(REF, again.turn, (ARTIFACT,), parts=(other,)))
    assert effects[-1] == WantUploads(REF, (ARTIFACT,), (other,))


def test_a_question_has_so_many_hashes_and_the_rest_is_asked_later() -> None:
    play = Play()
    play.start()
    many = tuple(Artifact(f"results/{n}", 1, "0" * 64) for n in range(4))
    parts = tuple(ArtifactParts(one.path, 5 << 20, ("a" * 64,) * 3_000) for one in many[:3])
    found = ArtifactsCollected(REF, play.turn + 1, many, parts=parts)
    effects = play.tell(ProgramEnded(REF, WELL), found)
    assert effects[-1] == WantUploads(REF, (*many[:2], many[3]), parts[:2])


def test_an_end_before_the_answer_to_the_start_counts() -> None:
    play = Play()
    play.prepare()
    turn = play.turn
    effects = play.tell(ProgramEnded(REF, WELL))
    assert play.reported() == [JobState.PREPARING]
    play.wait()
    assert play.reported() == [JobState.PREPARING, JobState.ARCHIVING]
    assert CollectArtifacts in kinds(effects)
    assert play.tell(ProgramStarted(REF, turn, 1.0)) == []


def test_an_end_that_is_told_twice_counts_once() -> None:
    play = Play()
    play.start()
    play.tell(ProgramEnded(REF, ProgramExit(1)))
    assert play.tell(ProgramEnded(REF, ProgramExit(1))) == []


def test_a_keeper_that_came_back_empty_has_lost_its_programs() -> None:
    play = Play()
    play.start()
    play.tell(ProgramsListed(KEEPER, {REF: ProgramStatus(5.0)}))
    assert play.state() is JobState.RUNNING
    play.tell(ProgramsListed("another", {}))
    assert play.state() is JobState.LOST


def test_a_keeper_that_came_back_tells_of_ends() -> None:
    play = Play()
    play.start()
    play.tell(ProgramsListed(KEEPER, {REF: ProgramStatus(5.0, ProgramExit(4))}))
    assert play.record.reason.number == 4


# ---- restarts


def restore(
    record: LocalAttempt,
    program: ProgramStatus | None = None,
    *,
    keeper: str = KEEPER,
    rebooted: bool = False,
    streams_survived: bool = True,
) -> tuple[Play, list[AttemptsEffect]]:
    play = Play()
    programs = {} if program is None else {REF: program}
    effects = play.tell(Restored((record,), keeper, programs, rebooted, streams_survived))
    return play, effects


def at(phase: Phase, assignment: Assignment = PLAIN) -> LocalAttempt:
    state = STATE_OF.get(phase, JobState.FAILED)
    return LocalAttempt(assignment, phase=phase, turn=7, state=state)


@pytest.mark.parametrize("phase", sorted(PREPARING))
def test_preparing_begins_anew(phase: Phase) -> None:
    play, effects = restore(at(phase))
    assert effects == [PrepareBundle(PLAIN, play.turn)]


def test_a_running_program_is_adopted_and_never_started_again() -> None:
    play, effects = restore(at(Phase.RUNNING), ProgramStatus(5.0))
    assert effects == []
    assert play.record.phase is Phase.RUNNING
    play, effects = restore(at(Phase.RUNNING, SENDER), ProgramStatus(5.0))
    assert effects == [AttachStreams(SENDER)]


def starting(keeper: str) -> LocalAttempt:
    return at(Phase.STARTING)._replace(keeper=keeper)


def test_who_is_to_start_a_program_is_recorded_before_it_is_told() -> None:
    play = Play()
    play.tell(ProgramsListed("first", {}))
    play.tell(ProgramsListed("second", {}))
    play.prepare()
    [recorded, start] = play.effects[-2:]
    assert recorded == WriteJournal(play.record)
    assert start == StartProgram(PLAIN, play.turn, "second")
    assert play.record.keeper == "second"
    play.tell(ProgramsListed("third", {}))
    assert play.record.keeper == "second", "the third one was not told"


def test_a_program_whose_start_was_recorded_is_asked_for_again_or_adopted() -> None:
    _, effects = restore(starting(KEEPER))
    assert effects == [StartProgram(PLAIN, 7, KEEPER)]
    play, effects = restore(starting(KEEPER), ProgramStatus(5.0))
    assert StartProgram not in kinds(effects)
    assert play.record.phase is Phase.RUNNING


@pytest.mark.parametrize(("told", "answers"), [("k", "another"), ("k", ""), ("", ""), ("", "k")])
def test_a_program_that_a_keeper_may_have_begun_is_begun_by_no_other(
    told: str, answers: str
) -> None:
    """One that does not say who it is (an earlier version) counts as another."""
    play, effects = restore(starting(told), keeper=answers)
    assert kinds(effects) == [WriteJournal, Report]
    assert (play.record.state, play.record.reason.code) == (JobState.LOST, ReasonCode.LOST)
    assert "may have begun" in play.record.reason.message
    stopped = Verdict(JobState.CANCELLED, Reason(ReasonCode.CANCELLED))
    play, _ = restore(starting(told)._replace(verdict=stopped), keeper=answers)
    assert play.state() is JobState.CANCELLED, "it was to be ended, and it has ended"


def test_an_end_that_came_meanwhile_counts() -> None:
    play, effects = restore(at(Phase.RUNNING), ProgramStatus(5.0, WELL))
    assert CollectArtifacts in kinds(effects)
    play, _ = restore(at(Phase.RUNNING), ProgramStatus(5.0, ProgramExit(2)))
    assert play.record.reason.number == 2


def test_a_program_that_nobody_keeps_any_more_is_lost() -> None:
    play, _ = restore(at(Phase.RUNNING))
    assert (play.record.state, play.record.reason.code) == (JobState.LOST, ReasonCode.LOST)


def test_after_a_reboot_a_program_without_ports_runs_again_where_it_was() -> None:
    play, effects = restore(at(Phase.RUNNING), rebooted=True)
    assert kinds(effects) == [WriteJournal, PrepareBundle]
    assert play.state() is JobState.RUNNING
    play, _ = restore(at(Phase.RUNNING, SENDER), rebooted=True, streams_survived=False)
    assert play.state() is JobState.LOST


def test_after_a_reboot_what_was_to_start_is_prepared_again() -> None:
    """The bundle may not have been written to the disk when the power went."""
    for assignment in (PLAIN, SENDER):
        _, effects = restore(at(Phase.STARTING, assignment), rebooted=True, streams_survived=False)
        assert kinds(effects) == [WriteJournal, PrepareBundle]


def test_after_a_reboot_a_program_that_was_to_finish_is_told_so_again() -> None:
    finished = replace(PLAIN, goal=Goal.FINISH)
    play, _ = restore(at(Phase.RUNNING, finished)._replace(finishing=True), rebooted=True)
    assert StopProgram in kinds(play.start(finished))


def test_after_a_reboot_results_that_were_not_looked_at_are_made_again_or_lost() -> None:
    """They may be cut off where the disk had not written them yet, and nothing says so."""
    play, effects = restore(at(Phase.COLLECTING), rebooted=True)
    assert kinds(effects) == [WriteJournal, PrepareBundle]
    play, _ = restore(at(Phase.COLLECTING, SENDER), rebooted=True, streams_survived=False)
    assert play.state() is JobState.LOST


@pytest.mark.parametrize("phase", [Phase.GRANTING, Phase.UPLOADING])
def test_after_a_reboot_results_are_stored_if_they_are_what_they_were(phase: Phase) -> None:
    before = at(phase)._replace(artifacts=(ARTIFACT, Artifact("stderr", 4, "5" * 64)))
    play, effects = restore(before, rebooted=True)
    assert kinds(effects) == [WriteJournal, CollectArtifacts]
    found = (ARTIFACT, Artifact("stderr", 3, "6" * 64))
    assert kinds(play.tell(ArtifactsCollected(REF, play.turn, found))) == [
        WriteJournal,
        WantUploads,
    ]
    assert play.record.artifacts == found

    play, _ = restore(before, rebooted=True)
    cut = (replace(ARTIFACT, sha256="7" * 64),)
    effects = play.tell(ArtifactsCollected(REF, play.turn, cut))
    assert kinds(effects) == [WriteJournal, PrepareBundle]
    assert play.record.artifacts == ()


def test_draining_goes_on_if_its_records_are_still_there() -> None:
    play, effects = restore(at(Phase.DRAINING, SENDER))
    assert effects == [
        UpdateLanes(REF, SENDER.lanes),
        Conclude(REF, succeeded=True),
    ], "it may have missed where they end, and that the program has ended"
    assert play.state() is JobState.DRAINING
    play, _ = restore(at(Phase.DRAINING, SENDER), streams_survived=False)
    assert play.state() is JobState.LOST


def test_a_running_sender_without_its_stream_worker_is_stopped() -> None:
    play, effects = restore(at(Phase.RUNNING, SENDER), ProgramStatus(5.0), streams_survived=False)
    assert StopProgram in kinds(effects)
    play.tell(ProgramEnded(REF, ProgramExit(1)))
    assert play.state() is JobState.LOST


@pytest.mark.parametrize("assignment", [SENDER, TAKER])
def test_an_end_beside_that_of_the_stream_worker_is_no_good_end(assignment: Assignment) -> None:
    """What it sent is gone, and what it read may have ended with the worker."""
    play, _ = restore(
        at(Phase.RUNNING, assignment), ProgramStatus(5.0, WELL), streams_survived=False
    )
    assert play.state() is JobState.LOST


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        (Phase.COLLECTING, [CollectArtifacts]),
        (Phase.GRANTING, []),
        (Phase.UPLOADING, []),
        (Phase.ENDED, []),
        (Phase.FORGETTING, [Forget]),
        (Phase.STOPPING, [StopProgram]),
    ],
)
def test_other_phases_go_on_where_they_stood(phase: Phase, expected: list[type]) -> None:
    program = ProgramStatus(5.0) if phase in ALIVE else None
    play, effects = restore(at(phase), program)
    assert kinds(effects) == expected
    wanted = kinds(play.tell(SessionOpened()))
    archiving = phase in {Phase.GRANTING, Phase.UPLOADING}
    assert wanted == ([WantUploads] if archiving else [])


def test_what_was_to_be_forgotten_is_forgotten() -> None:
    record = at(Phase.STOPPING)._replace(forget=True)
    _, effects = restore(record)
    assert Forget in kinds(effects)


def test_a_session_begins_with_every_end_that_is_not_acknowledged() -> None:
    play, _ = restore(at(Phase.ENDED))
    assert [observation.state for observation in play.worker.observations()] == [JobState.FAILED]
    play.tell(Acknowledged(REF, JobState.RUNNING))
    assert play.worker.observations()
    play.tell(Acknowledged(REF, JobState.FAILED))
    assert play.worker.observations() == ()


def test_an_end_that_is_acknowledged_while_it_is_forgotten_is_not_recorded_again() -> None:
    """The journal may have let go of it already, and nothing would take it out once more."""
    play, _ = restore(at(Phase.ENDED))
    play.tell(DesiredChanged(Desired(2, True), 2))
    assert play.record.phase is Phase.FORGETTING
    assert play.tell(Acknowledged(REF, JobState.FAILED)) == []


def finish(assignment: Assignment, end: int = 3) -> Assignment:
    lanes = tuple(replace(lane, end=end) for lane in assignment.lanes)
    return replace(assignment, goal=Goal.FINISH, lanes=lanes)


ANY_END = (
    ProgramExit(0),
    ProgramExit(143),
    ProgramExit(255, stderr_tail="Exiting normally, received signal 15."),
    ProgramExit(-1, signal=15),
    ProgramExit(-1, signal=9),
    ProgramExit(-1, signal=15, problem="a relay was ended"),
)


@pytest.mark.parametrize("ended", ANY_END)
def test_x1_a_source_is_told_to_end_once_its_streams_have_and_any_end_is_good(
    ended: ProgramExit,
) -> None:
    play = Play()
    play.start(SENDER)
    assert kinds(play.want(finish(SENDER))) == [WriteJournal, UpdateLanes, DesiredRecorded]
    effects = play.tell(StreamsClosed(REF))
    assert kinds(effects) == [WriteJournal, WriteJournal, StopProgram]
    assert play.tell(StreamsClosed(REF)) == [], "it is told again"
    assert play.state() is JobState.RUNNING
    effects = play.tell(ProgramEnded(REF, ended))
    assert effects[0] == Conclude(REF, succeeded=True)
    assert play.state() is JobState.DRAINING


def test_x1_a_program_without_streams_is_told_at_once() -> None:
    play = Play()
    play.start(PLAIN)
    assert kinds(play.want(finish(PLAIN))) == [
        WriteJournal,
        Report,
        WriteJournal,
        StopProgram,
        DesiredRecorded,
    ]
    assert CollectArtifacts in kinds(play.tell(ProgramEnded(REF, ProgramExit(-1, signal=15))))


def test_x1_a_source_that_begins_while_it_is_to_finish_begins_and_ends() -> None:
    play = Play()
    effects = play.start(finish(PLAIN))
    assert kinds(effects) == [WriteJournal, Report, StopProgram]


def test_x1_a_restarted_agent_goes_on_finishing() -> None:
    play = Play()
    play.start(SENDER)
    play.want(finish(SENDER))
    play.tell(StreamsClosed(REF))
    again = Play()
    effects = again.tell(Restored((play.record,), KEEPER, {REF: ProgramStatus(5.0)}, False, True))
    assert kinds(effects) == [AttachStreams, StopProgram]
    again.tell(ProgramEnded(REF, ProgramExit(-1, signal=15)))
    assert again.state() is JobState.DRAINING


def test_x1_a_stop_still_counts_while_it_finishes() -> None:
    play = Play()
    play.start(SENDER)
    play.want(finish(SENDER))
    play.tell(StreamsClosed(REF))
    play.want(stop(SENDER))
    effects = play.tell(ProgramEnded(REF, ProgramExit(-1, signal=15)))
    assert effects[0] == Conclude(REF, succeeded=False)
    assert play.state() is JobState.CANCELLED


@pytest.mark.parametrize(
    ("ended", "good"),
    [
        (ProgramExit(0), True),
        (ProgramExit(-1, signal=13), True),
        (ProgramExit(141), True),
        (ProgramExit(1, stderr_tail="BrokenPipeError: [Errno 32] Broken pipe"), True),
        (ProgramExit(1, stderr_tail="write /dev/stdout: broken pipe"), True),
        (ProgramExit(1, stderr_tail="MemoryError"), False),
        (ProgramExit(-1, signal=11), False),
        (ProgramExit(-1, signal=13, timed_out=True), False),
    ],
)
def test_x4_a_program_that_nobody_reads_any_more_may_end_by_that(
    ended: ProgramExit,
    good: bool,  # noqa: FBT001
) -> None:
    play = Play()
    play.start(SENDER)
    read = replace(LANE, peer=replace(LANE.peer, done=True))
    play.want(replace(SENDER, lanes=(read,)))
    play.tell(ProgramEnded(REF, ended))
    assert play.state() is (JobState.DRAINING if good else JobState.FAILED)


def test_x4_a_broken_pipe_of_its_own_is_no_good_end_while_somebody_reads() -> None:
    play = Play()
    play.start(SENDER)
    play.tell(ProgramEnded(REF, ProgramExit(-1, signal=13, stderr_tail="Broken pipe")))
    assert play.state() is JobState.FAILED


# ---- what outlived an earlier agent


def test_b1_what_a_keeper_of_a_version_before_could_only_start_with_less_waits_for_the_next() -> (
    None
):
    play = Play()
    play.tell(ProgramsListed("old", {}, unable=True))
    play.want(PLAIN)
    for _ in range(3):
        play.tell(Prepared(REF, play.turn))
    assert play.record.phase is Phase.READY
    assert play.tell(KeeperOutdated("old")) == [DismissKeeper("old")]
    assert isinstance(play.tell(ProgramsListed("new", {}))[-1], StartProgram)


def test_b1_a_keeper_that_is_old_goes_once_nothing_of_it_is_needed() -> None:
    play = Play()
    play.tell(ProgramsListed("old", {}))
    play.start()
    assert play.tell(KeeperOutdated("old")) == []
    play.tell(ProgramEnded(REF, ProgramExit(1, end_time=9.0)))
    assert play.tell(KeeperOutdated("another")) == []
    assert play.tell(KeeperOutdated("old")) == [DismissKeeper("old")]


def test_b1_what_is_ready_while_the_keeper_goes_is_started_by_the_next() -> None:
    play = Play()
    play.tell(ProgramsListed("old", {}))
    play.want(PLAIN)
    assert play.tell(KeeperOutdated("old")) == [DismissKeeper("old")]
    for _ in range(3):
        play.tell(Prepared(REF, play.turn))
    assert play.record.phase is Phase.READY
    [journal, start] = play.tell(ProgramsListed("new", {}))
    assert isinstance(journal, WriteJournal)
    assert isinstance(start, StartProgram)
    assert start.keeper == "new"


@pytest.mark.parametrize("phase", sorted(Phase))
def test_b1_a_stream_worker_that_is_old_goes_once_nothing_streams(phase: Phase) -> None:
    over = {Phase.ENDED, Phase.FORGETTING}
    for assignment, busy in ((PLAIN, False), (TAKER, phase not in over)):
        play = Play()
        play.worker._keep(LocalAttempt(assignment, phase))
        expected = [] if busy else [DismissStreamWorker()]
        assert play.tell(StreamWorkerOutdated()) == expected


def test_an_attempt_keeps_the_secrets_that_its_program_was_given() -> None:
    """Its log is hidden by them, whatever they are by now; what the board has lost it takes again."""
    job = replace(PLAIN.job, secrets=(SecretUse("A", "a"), SecretUse("B", "b")))
    first = replace(PLAIN, job=job, secrets={"a": b"old a", "b": b"old b"})
    play = Play()
    play.want(first)
    play.want(replace(first, bundle_url="http://x/2", secrets={"a": b"new a"}))
    assert play.record.assignment.bundle_url == "http://x/2"
    assert play.record.assignment.secrets == first.secrets
    assert play.want(replace(first, bundle_url="http://x/2", secrets={"a": b"new a"})) == [
        DesiredRecorded(1)
    ]
    lost = Play()
    lost.want(replace(first, secrets={"b": b"old b"}))
    lost.want(replace(first, secrets={"a": b"new a", "b": b"new b"}))
    assert lost.record.assignment.secrets == {"a": b"new a", "b": b"old b"}
