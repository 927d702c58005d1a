"""Which reason an attempt has whose program did not end well, and what it tells people to do."""

from dataclasses import replace

import pytest

from edge_agent.attempts.failure import failure
from edge_agent.attempts.local_attempt import LocalAttempt, ProgramExit
from edge_agent.sandbox.group_counts import NO_COUNTS, GroupCounts
from shoal.model import ReasonCode
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.spec import Job, Resources

MIB = 1 << 20
EXIT = ProgramExit(1)
KILLED = ProgramExit(-1, 9)
CLAIMS = Resources(1.0, 64 * MIB, processes=8, disk_bytes=5 * MIB)
KILLS = GroupCounts(1, 0, bounded_memory=True)


def reason(
    ended: ProgramExit, resources: Resources = CLAIMS, counts: GroupCounts = NO_COUNTS
) -> tuple[ReasonCode, int, str]:
    job = Job("work", ("true",), resources=resources, timeout_seconds=3.0)
    record = LocalAttempt(Assignment(AttemptRef("default", "p", "work", 1, 1), job))
    found = failure(record, replace(ended, counts=counts)).reason
    return found.code, found.number, found.message


@pytest.mark.parametrize("ended", [KILLED, ProgramExit(137), EXIT], ids=["leader", "shell", "pool"])
def test_a_kill_in_its_own_group_is_why_it_failed(ended: ProgramExit) -> None:
    code, _, message = reason(ended, counts=KILLS)
    assert code is ReasonCode.OOM
    assert "more memory than the 64.0 MiB that it claims" in message
    assert "resources: {memory: …}" in message


def test_a_kill_below_its_own_bound_is_the_machines() -> None:
    for counts, resources in ((GroupCounts(1), CLAIMS), (KILLS, Resources())):
        code, _, message = reason(KILLED, resources, counts)
        assert code is ReasonCode.OOM
        assert "as memory ran out on its node" in message


def test_a_kill_that_no_group_counted_is_a_signal() -> None:
    assert reason(KILLED, counts=GroupCounts(0))[:2] == (ReasonCode.SIGNAL, 9)
    assert reason(replace(KILLED, out_of_memory=True))[0] is ReasonCode.OOM


def test_processes_that_were_refused_are_why_it_failed() -> None:
    code, number, message = reason(EXIT, counts=GroupCounts(0, 5))
    assert (code, number) == (ReasonCode.PROCESSES, 0)
    assert (
        "exit status 1 after it was refused a process or thread, 5 times: it may have 8" in message
    )
    assert "4096 at once" in reason(EXIT, Resources(), GroupCounts(0, 1))[2]


@pytest.mark.parametrize(
    "words",
    [
        "BlockingIOError: [Errno 11] Resource temporarily unavailable",
        "sh: 1: Cannot fork",
        "RuntimeError: can't start new thread",
        "spawn EAGAIN",
    ],
)
def test_without_a_group_its_last_words_say_that_it_was_refused_a_process(words: str) -> None:
    assert reason(replace(EXIT, stderr_tail=words))[0] is ReasonCode.PROCESSES
    unclaimed = replace(CLAIMS, processes=0)
    assert reason(replace(EXIT, stderr_tail=words), unclaimed)[0] is ReasonCode.EXIT


@pytest.mark.parametrize(
    "ended",
    [
        ProgramExit(-1, 25),
        ProgramExit(128 + 25),
        replace(EXIT, stderr_tail="OSError: [Errno 27] File too large"),
    ],
    ids=["signal", "shell", "words"],
)
def test_a_file_beyond_its_claim_is_why_it_failed(ended: ProgramExit) -> None:
    code, number, message = reason(ended)
    assert (code, number) == (ReasonCode.DISK, 0)
    assert "larger than the 5.0 MiB that it claims" in message
    assert reason(ended, replace(CLAIMS, disk_bytes=0))[0] is not ReasonCode.DISK


def test_a_full_disk_a_port_and_its_last_words_are_said_as_before() -> None:
    full = reason(replace(EXIT, disk_full="1 MiB of 2 MiB free"))
    assert full[0] is ReasonCode.DISK
    assert "ended with exit status 1 while the disk of its node was full (1 MiB of 2 MiB" in full[2]
    assert reason(replace(KILLED, disk_full="x"))[2].startswith("work ended by signal 9 while")
    assert reason(replace(EXIT, problem="no records"))[::2] == (
        ReasonCode.STREAM,
        "work: no records",
    )
    assert reason(replace(EXIT, stderr_tail="bad"))[2] == (
        "work ended with exit status 1; it said last:\nbad"
    )


def test_what_ended_it_first_counts() -> None:
    counts = GroupCounts(1, 5, bounded_memory=True)
    assert reason(replace(KILLED, timed_out=True), counts=counts)[0] is ReasonCode.TIMEOUT
    assert reason(replace(KILLED, lease_ended=True), counts=counts)[0] is ReasonCode.LOST
    assert reason(replace(EXIT, not_begun="no such file"), counts=counts)[0] is ReasonCode.START
    assert reason(KILLED, counts=counts)[0] is ReasonCode.OOM
