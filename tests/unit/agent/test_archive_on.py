"""U8: what attempts have left that did not succeed is archived where the job wants that."""

from dataclasses import replace

import pytest

from edge_agent.attempts.effects import (
    CancelWork,
    CollectArtifacts,
    DesiredRecorded,
    Forget,
    Upload,
    WantUploads,
    WriteJournal,
)
from edge_agent.attempts.events import (
    Acknowledged,
    ArtifactsCollected,
    DesiredChanged,
    ProgramEnded,
    Restored,
    StreamsDrained,
    Uploaded,
    WorkFailed,
)
from edge_agent.attempts.local_attempt import LocalAttempt, ProgramExit
from edge_agent.attempts.machine import SALVAGE_SECONDS
from edge_agent.attempts.phase import Phase
from shoal.model import JobState, Reason, ReasonCode
from shoal.session.assignment import Assignment, Goal
from shoal.session.messages import Desired, Fenced
from shoal.session.uploads import UploadsGranted
from shoal.spec import ArchiveOn
from tests.unit.agent.test_attempts_machine import (
    ARTIFACT,
    GRANT,
    KEEPER,
    PLAIN,
    REF,
    SENDER,
    STORED,
    WELL,
    Play,
)

BADLY = ProgramExit(3, end_time=9.0)


def always(assignment: Assignment = PLAIN, on: ArchiveOn = ArchiveOn.ALWAYS) -> Assignment:
    return replace(assignment, job=replace(assignment.job, archive_on=on))


def ended(end: ProgramExit, assignment: Assignment) -> Play:
    """An attempt whose program has ended so."""
    play = Play()
    play.start(assignment)
    play.tell(ProgramEnded(REF, end))
    return play


def store(play: Play, problem: str = "") -> None:
    """Archive what it left."""
    [wanted] = [
        one
        for one in play.tell(ArtifactsCollected(REF, play.turn, (ARTIFACT,)))
        if isinstance(one, WantUploads)
    ]
    assert wanted.artifacts == (ARTIFACT,)
    [upload] = play.tell(UploadsGranted(REF, (GRANT,)))
    assert isinstance(upload, Upload)
    play.tell(Uploaded(REF, play.turn, (STORED,), problem))


def forgotten(play: Play) -> Forget:
    """How it is forgotten once its end is recorded."""
    play.tell(Acknowledged(REF, play.record.state))
    play.tell(Fenced(REF))
    [found] = [one for one in play.effects if isinstance(one, Forget)]
    return found


@pytest.mark.parametrize("on", list(ArchiveOn))
@pytest.mark.parametrize("end", [WELL, BADLY])
def test_u8_files_are_archived_after_the_ends_that_the_job_names(
    on: ArchiveOn, end: ProgramExit
) -> None:
    play = ended(end, always(on=on))
    good = end is WELL
    collecting = [one.succeeded for one in play.effects if isinstance(one, CollectArtifacts)]
    # Looked at in any case, as logs are archived; after a failure without files only once its end is told.
    assert collecting == [good]
    told = on is ArchiveOn.SUCCESS
    assert play.state() is (
        JobState.ARCHIVING if good else JobState.FAILED if told else JobState.RUNNING
    )


@pytest.mark.parametrize("end", [WELL, BADLY])
def test_u8_what_cannot_be_archived_stays_on_the_node(end: ProgramExit) -> None:
    play = ended(end, always())
    found = ArtifactsCollected(REF, play.turn, (ARTIFACT,), "one result is not archived: 'x'")
    play.tell(found)
    play.tell(UploadsGranted(REF, (GRANT,)))
    play.tell(Uploaded(REF, play.turn, (STORED,)))
    assert play.state() is JobState.FAILED
    assert forgotten(play).keep


def test_u8_a_failed_attempt_is_running_until_its_files_are_archived() -> None:
    """What is ARCHIVING has ended well, so to the controller it is what it was."""
    play = ended(BADLY, always())
    assert (play.record.phase, play.state()) == (Phase.COLLECTING, JobState.RUNNING)
    store(play)
    seen = play.record.observation
    assert (seen.state, seen.reason.code, seen.artifacts) == (
        JobState.FAILED,
        ReasonCode.EXIT,
        (STORED,),
    )
    assert not forgotten(play).keep
    assert play.worker.deadline() is None


def test_u8_a_cancelled_attempt_keeps_its_state_and_says_what_could_not_be_archived() -> None:
    play = Play()
    play.start(always())
    play.want(replace(always(), goal=Goal.STOP))
    play.tell(ProgramEnded(REF, BADLY))
    store(play, "one result is not archived: 'x'")
    seen = play.record.observation
    assert (seen.state, seen.reason.code, seen.artifacts) == (
        JobState.CANCELLED,
        ReasonCode.CANCELLED,
        (STORED,),
    )
    assert "one result is not archived: 'x'" in seen.reason.message
    assert forgotten(play).keep, "not everything is in the archive"


def test_u8_a_sender_that_is_cancelled_while_it_drains_is_archived() -> None:
    play = ended(WELL, always(SENDER))
    assert play.state() is JobState.DRAINING
    play.want(replace(always(SENDER), goal=Goal.STOP))
    assert (play.record.phase, play.state()) == (Phase.COLLECTING, JobState.DRAINING)
    play.tell(StreamsDrained(REF))
    store(play)
    assert play.record.observation.state is JobState.CANCELLED


def test_u8_an_archive_that_is_away_is_not_waited_for_without_an_end() -> None:
    play = ended(BADLY, always())
    play.tell(ArtifactsCollected(REF, play.turn, (ARTIFACT,)))
    stopped = play.want(replace(always(), goal=Goal.STOP))
    assert stopped == [WriteJournal(play.record), DesiredRecorded(1)]
    assert play.worker.deadline() == SALVAGE_SECONDS
    assert play.worker.tick(SALVAGE_SECONDS - 1) == []
    play.effects += play.worker.tick(SALVAGE_SECONDS)
    assert CancelWork(REF) in play.effects
    seen = play.record.observation
    assert (seen.state, seen.reason.code, seen.artifacts) == (JobState.FAILED, ReasonCode.EXIT, ())
    assert "were not archived within 300 s, and stay on its node" in seen.reason.message
    assert play.worker.deadline() is None
    assert forgotten(play).keep


def test_u8_files_that_cannot_be_looked_at_do_not_hide_why_the_attempt_failed() -> None:
    play = ended(BADLY, always())
    play.tell(WorkFailed(REF, play.turn, Reason(ReasonCode.ARCHIVE, 0, "the disk is broken")))
    seen = play.record.observation
    assert (seen.state, seen.reason.code) == (JobState.FAILED, ReasonCode.EXIT)
    assert "the disk is broken" in seen.reason.message


def test_u8_what_filled_the_disk_is_not_archived() -> None:
    play = ended(replace(BADLY, disk_full="1 MiB free"), always())
    assert play.record.observation.reason.code is ReasonCode.DISK


@pytest.mark.parametrize("rebooted", [False, True])
@pytest.mark.parametrize("phase", [Phase.COLLECTING, Phase.GRANTING, Phase.UPLOADING])
def test_u8_the_next_agent_goes_on_unless_the_machine_went_down(
    phase: Phase, *, rebooted: bool
) -> None:
    before = ended(BADLY, always()).record
    found: LocalAttempt = before._replace(phase=phase, artifacts=(ARTIFACT,))
    play = Play()
    play.tell(Restored((found,), KEEPER, {}, rebooted, streams_survived=True))
    if rebooted:
        seen = play.record.observation
        assert (seen.state, seen.reason.code) == (JobState.FAILED, ReasonCode.EXIT)
        assert "went down before its files were archived" in seen.reason.message
        assert forgotten(play).keep
    else:
        assert play.record.salvaging
        assert play.worker.deadline() == SALVAGE_SECONDS


def test_u8_an_end_with_very_many_artifacts_is_no_good_end_in_a_hello() -> None:
    play = ended(BADLY, always())
    many = tuple(replace(STORED, path=f"results/{number}") for number in range(1001))
    play.tell(ArtifactsCollected(REF, play.turn, many))
    play.tell(UploadsGranted(REF, ()))
    play.tell(Uploaded(REF, play.turn, many))
    [said] = play.worker.observations()
    assert (said.state, said.artifacts) == (JobState.RUNNING, ())


def test_u8_an_attempt_that_is_not_wanted_any_more_is_given_up_and_kept() -> None:
    play = ended(BADLY, always())
    effects = play.worker.handle(DesiredChanged(Desired(2, True, ()), 2), 0.0)
    assert [type(one) for one in effects if isinstance(one, CancelWork | Forget)] == [
        CancelWork,
        Forget,
    ]
    [forget] = [one for one in effects if isinstance(one, Forget)]
    assert forget.keep
    assert play.worker.deadline() is None
