"""What an attempt printed that did not succeed: archived after its end is told, and nothing waits for it."""

from dataclasses import replace

import pytest

from edge_agent.attempts.effects import (
    CancelWork,
    CollectArtifacts,
    Forget,
    PrepareBundle,
    Report,
    StartProgram,
    Upload,
    WantUploads,
    WriteJournal,
)
from edge_agent.attempts.events import (
    Acknowledged,
    ArtifactsCollected,
    DesiredChanged,
    DiskFull,
    GrantsExpired,
    Prepared,
    ProgramEnded,
    Restored,
    SessionOpened,
    Uploaded,
    WorkFailed,
)
from edge_agent.attempts.local_attempt import ProgramExit
from edge_agent.attempts.machine import LOGS_SECONDS
from edge_agent.attempts.phase import Phase
from shoal.model import Artifact, JobState, Reason, ReasonCode
from shoal.names import AttemptRef
from shoal.session.messages import Desired, Fenced
from shoal.session.uploads import UploadGrant, UploadsGranted
from tests.unit.agent.test_attempts_machine import KEEPER, PLAIN, REF, Play, kinds

BADLY = ProgramExit(3, end_time=9.0)
LOG = Artifact("stderr", 20, "0" * 64)
STORED = replace(LOG, key="k")
GRANT = UploadGrant("stderr", "k", "http://s/k")
NEXT = replace(PLAIN, ref=AttemptRef("default", "p", "work", 2, 2))


def failed() -> Play:
    """An attempt whose end is told, and whose logs are being looked for."""
    play = Play()
    play.start()
    play.tell(ProgramEnded(REF, BADLY))
    assert play.record.keeping_logs
    return play


def uploading() -> Play:
    """The same, with its logs on their way."""
    play = failed()
    told = play.tell(ArtifactsCollected(REF, play.turn, (LOG,)))
    assert kinds(told) == [WriteJournal, WantUploads]
    [upload] = play.tell(UploadsGranted(REF, (GRANT,)))
    assert isinstance(upload, Upload)
    assert upload.salvaged, "what others made goes first"
    return play


def test_the_end_is_told_first_and_where_the_logs_are_once_they_are_stored() -> None:
    play = uploading()
    assert not play.record.observation.artifacts
    assert play.state() is JobState.FAILED
    told = play.tell(Uploaded(REF, play.turn, (STORED,)))
    assert kinds(told) == [WriteJournal, Report]
    assert play.record.observation.artifacts == (STORED,)
    assert play.record.observation.state is JobState.FAILED


def test_the_next_attempt_begins_while_the_logs_of_the_one_before_are_stored() -> None:
    play = uploading()
    told = play.tell(DesiredChanged(Desired(2, snapshot=True, assignments=(NEXT,)), 2))
    assert PrepareBundle in kinds(told)
    assert Forget not in kinds(told)
    for _ in range(3):
        told = play.tell(Prepared(NEXT.ref, play.worker.records[NEXT.ref].turn))
    assert StartProgram in kinds(told)
    assert play.record.phase is Phase.UPLOADING


def test_it_is_forgotten_once_the_controller_knows_where_the_logs_are() -> None:
    play = uploading()
    play.tell(Acknowledged(REF, JobState.FAILED))
    assert play.tell(DesiredChanged(Desired(2, snapshot=False, removed=(REF,)), 2))
    told = play.tell(Uploaded(REF, play.turn, (STORED,)))
    assert kinds(told) == [WriteJournal, Report]
    assert not play.record.acknowledged
    assert Report in kinds(play.tell(SessionOpened()))
    assert Forget in kinds(play.tell(Acknowledged(REF, JobState.FAILED)))


def test_nothing_was_printed_so_nothing_is_said() -> None:
    play = failed()
    play.tell(DesiredChanged(Desired(2, snapshot=False, removed=(REF,)), 2))
    told = play.tell(ArtifactsCollected(REF, play.turn, ()))
    assert kinds(told) == [WriteJournal, Forget]


@pytest.mark.parametrize("removed", [False, True])
def test_the_archive_stays_away_and_the_logs_stay_on_the_node(*, removed: bool) -> None:
    play = uploading()
    if removed:
        play.tell(DesiredChanged(Desired(2, snapshot=False, removed=(REF,)), 2))
    assert play.worker.deadline() == LOGS_SECONDS
    told = list(play.worker.tick(LOGS_SECONDS))
    assert CancelWork in kinds(told)
    assert Report not in kinds(told)
    forget = [one for one in told if isinstance(one, Forget)]
    assert [one.keep for one in forget] == ([True] if removed else [])
    assert play.worker.deadline() is None


def test_a_failure_to_store_changes_nothing_of_the_end() -> None:
    play = uploading()
    reason = play.record.reason
    play.tell(WorkFailed(REF, play.turn, Reason(ReasonCode.ARCHIVE, 0, "refused")))
    assert (play.record.phase, play.record.reason) == (Phase.ENDED, reason)


def test_new_addresses_are_asked_for() -> None:
    play = uploading()
    told = play.tell(GrantsExpired(REF, play.turn, (LOG,)))
    assert [one.artifacts for one in told if isinstance(one, WantUploads)] == [(LOG,)]


def test_a_controller_that_knows_nothing_of_it_has_it_forgotten_at_once() -> None:
    """As one of 0.1.0 says, which grants no place to what has ended."""
    play = uploading()
    assert kinds(play.tell(Fenced(REF)))[0] is CancelWork
    assert play.record.phase is Phase.FORGETTING


@pytest.mark.parametrize("rebooted", [False, True])
def test_the_next_start_of_the_agent_looks_for_the_logs_anew(*, rebooted: bool) -> None:
    record = uploading().record
    play = Play()
    told = play.tell(Restored((record,), KEEPER, {}, rebooted=rebooted, streams_survived=False))
    assert kinds(told) == [WriteJournal, CollectArtifacts]
    assert play.state() is JobState.FAILED


def test_a_full_disk_gets_its_room_back_at_once() -> None:
    play = Play()
    play.start()
    told = play.tell(ProgramEnded(REF, replace(BADLY, disk_full="0 bytes free")))
    assert kinds(told) == [WriteJournal, Report]


def test_logs_that_wait_for_the_archive_give_way_when_the_disk_is_short() -> None:
    play = uploading()
    reason = play.record.reason
    told = play.tell(DiskFull(REF, Reason(ReasonCode.DISK, 0, "the disk is short")))
    assert kinds(told) == [CancelWork, WriteJournal]
    assert (play.record.phase, play.record.reason) == (Phase.ENDED, reason)
