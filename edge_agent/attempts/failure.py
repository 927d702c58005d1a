"""Why a program that did not end well failed: the code and the sentence.

Rule, the first that holds counts: its lease ended; it was never executed; its timeout; memory (OOM); processes
(PROCESSES); files beyond its claim, or a full disk (DISK); a port (STREAM); the signal (SIGNAL) or status (EXIT).

What the kernel counted in the program's own group is about this attempt and no other, so a program that failed, in
whatever way, after one of its processes was killed for want of memory, or after it was refused a process, failed for
that: its leader is often a shell or a pool that only sees a worker go. Where there is no such group, its last words
count where it claims a bound: those of the error, by strerror(3) and nearly every language (EAGAIN, EFBIG).

Example. `resources: {processes: 8}` and a Python program that forks twelve times: the ninth fork raises
BlockingIOError, the exit status is 1, `max` of `pids.events` is 1, the reason is PROCESSES.
"""

import re
from collections.abc import Callable
from typing import Final

from edge_agent.attempts.local_attempt import LocalAttempt, ProgramExit, Verdict
from edge_agent.disk_watch import size_text
from shoal.limits import PROCESSES_DEFAULT
from shoal.model import JobState, Reason, ReasonCode

_SIGXFSZ: Final = 25
_SHELL_SIGNAL: Final = 128
_NO_PROCESS: Final = re.compile(
    r"resource temporarily unavailable|\bEAGAIN\b|cannot fork|can't start new thread", re.IGNORECASE
)
_TOO_LARGE: Final = re.compile(r"file too large|\bEFBIG\b", re.IGNORECASE)

LEASE_ENDED: Final = Verdict(
    JobState.LOST,
    Reason(
        ReasonCode.LOST,
        0,
        "the node's lease ran out, and the job may not run twice: it was ended here",
    ),
)


def failure(record: LocalAttempt, program_exit: ProgramExit) -> Verdict:
    """Return how an attempt ends whose program has not ended well."""
    if program_exit.lease_ended:
        return LEASE_ENDED
    name = record.ref.job
    if program_exit.not_begun:
        said = f"{name}: {program_exit.not_begun}"
        return Verdict(JobState.FAILED, Reason(ReasonCode.START, 0, said))
    causes: tuple[tuple[ReasonCode, Callable[[LocalAttempt, ProgramExit], str]], ...] = (
        (ReasonCode.TIMEOUT, _timeout),
        (ReasonCode.OOM, _memory),
        (ReasonCode.PROCESSES, _processes),
        (ReasonCode.DISK, _disk),
        (ReasonCode.STREAM, lambda _, ended: f": {ended.problem}" if ended.problem else ""),
    )
    code, number, words = ReasonCode.EXIT, program_exit.exit_code, ""
    if program_exit.signal:
        code, number = ReasonCode.SIGNAL, program_exit.signal
    for cause, why in causes:
        if words := why(record, program_exit):
            code, number = cause, 0
            break
    said = f"{name}{words or _ended(program_exit)}"
    tail = f"; it said last:\n{program_exit.stderr_tail}" if program_exit.stderr_tail else ""
    return Verdict(JobState.FAILED, Reason(code, number, f"{said}{tail}"))


def _ended(program_exit: ProgramExit) -> str:
    if program_exit.signal:
        return f" was ended by signal {program_exit.signal}"
    return f" ended with exit status {program_exit.exit_code}"


def _timeout(record: LocalAttempt, program_exit: ProgramExit) -> str:
    if not program_exit.timed_out:
        return ""
    limit = record.assignment.job.timeout_seconds
    return f" ran longer than its timeout of {limit:g} s and was ended"


def _memory(record: LocalAttempt, program_exit: ProgramExit) -> str:
    counts, claimed = program_exit.counts, record.assignment.job.resources.memory_bytes
    if not counts.memory_kills and not program_exit.out_of_memory:
        return ""
    if counts.memory_kills and counts.bounded_memory and claimed:
        return (
            f" took more memory than the {size_text(claimed)} that it claims, all its processes together, and the "
            f"kernel killed {_number(counts.memory_kills)} of them; let it take less, or claim what it takes by "
            "`resources: {memory: …}`"
        )
    return (
        " was killed by the kernel, as memory ran out on its node or in the agent's container; "
        "let it take less, ask for what it takes by `resources: {memory: …}`, or give the node more"
    )


def _processes(record: LocalAttempt, program_exit: ProgramExit) -> str:
    refused, claimed = (
        program_exit.counts.refused_processes,
        record.assignment.job.resources.processes,
    )
    if not refused and not (claimed and _NO_PROCESS.search(program_exit.stderr_tail)):
        return ""
    times = f", {refused} times" if refused > 1 else ""
    return (
        f"{_ended(program_exit)} after it was refused a process or thread{times}: it may have "
        f"{claimed or PROCESSES_DEFAULT} at once; let it start fewer, or claim more by `resources: {{processes: …}}`"
    )


def _disk(record: LocalAttempt, program_exit: ProgramExit) -> str:
    claimed = record.assignment.job.resources.disk_bytes
    number = program_exit.signal or program_exit.exit_code - _SHELL_SIGNAL
    if claimed and (number == _SIGXFSZ or _TOO_LARGE.search(program_exit.stderr_tail)):
        return (
            f"{_ended(program_exit)} as it wrote a file larger than the {size_text(claimed)} that it claims; "
            "write less, or claim more by `resources: {disk: …}`"
        )
    if program_exit.disk_full:
        return (
            f"{_ended(program_exit).replace(' was ended', ' ended')} while the disk of its node was full "
            f"({program_exit.disk_full}); write less, or place the job where there is more room"
        )
    return ""


def _number(count: int) -> str:
    return "one" if count == 1 else str(count)
