"""What is to go wrong in a simulation: one sentence such as `kill detector@3s`, read and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from shoal import spec
from shoal.model import JobState
from shoal.specfile.units import parse_duration
from shoal.suggestion import did_you_mean
from shoal.view import JobView, PipelineView

_SENTENCE: Final = re.compile(r"(\S+)\s+([^\s@]+)\s*(?:@\s*([^+]*?)\s*(?:\+\s*(.*?)\s*)?)?")
_RECORDS: Final = re.compile(r"(\d{1,18})\s*records?")
_EXAMPLE: Final = {
    "kill": "kill JOB@3s",
    "kill-agent": "kill-agent JOB@3s",
    "stop": "stop JOB@2s+1s",
}


class FaultError(ValueError):
    """No fault of ours; the message says what to write instead."""


@dataclass(frozen=True, slots=True)
class AfterSeconds:
    """So many seconds after the pipeline was submitted, or later, once the job runs."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AfterRecords:
    """Once the job has sent so many records, or taken them when it sends none."""

    records: int


When = AfterSeconds | AfterRecords
"""When a fault happens."""


@dataclass(frozen=True, slots=True)
class Kill:
    """The board that runs the job loses its power: agent, keeper, stream worker and jobs end at once."""

    job: str
    when: When
    sentence: str


@dataclass(frozen=True, slots=True)
class KillAgent:
    """The agent of the board that runs the job ends at once, and is started again."""

    job: str
    when: When
    sentence: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The stream worker of that board stands still for some seconds: every link of it is dead so long."""

    job: str
    when: When
    sentence: str
    seconds: float


Fault = Kill | KillAgent | Stop
"""What may go wrong."""


def parse_fault(sentence: str) -> Fault:
    """Read `kill JOB@3s`, `kill-agent JOB@100 records` or `stop JOB@2s+1s`.

    Raises:
        FaultError: it is none of these.
    """
    found = _SENTENCE.fullmatch(sentence.strip())
    if found is None:
        raise FaultError(
            f"{sentence!r} is no fault: write what, which job and when, as in {_EXAMPLE['kill']!r}"
        )
    verb, job, when, pause = found.groups()
    if verb not in _EXAMPLE:
        raise FaultError(
            f"{sentence!r}: nothing is called {verb!r}; {did_you_mean(verb, _EXAMPLE)}"
        )
    if not when:
        raise FaultError(
            f"{sentence!r} does not say when; write {_EXAMPLE[verb]!r}, or a number of records, "
            f"as in '{verb} {job}@100 records{'+1s' if verb == 'stop' else ''}'"
        )
    moment = _when(sentence, when)
    if verb == "stop":
        if not pause:
            raise FaultError(
                f"{sentence!r} does not say for how long; write '{verb} {job}@{when}+1s'"
            )
        seconds = _seconds(sentence, pause)
        if seconds <= 0:
            raise FaultError(f"{sentence!r} stops for no time at all; write for example +1s")
        return Stop(job, moment, sentence, seconds)
    if pause is not None:
        raise FaultError(
            f"{sentence!r}: what is killed does not come back after a while; leave out '+{pause}', "
            f"or write 'stop {job}@{when}+{pause or '1s'}'"
        )
    return (Kill if verb == "kill" else KillAgent)(job, moment, sentence)


def check_fault(fault: Fault, pipeline: spec.Pipeline) -> None:
    """See that the job of a fault exists.

    Raises:
        FaultError: it does not.
    """
    known = {job.name for job in pipeline.jobs}
    known |= {job.replica_id(number) for job in pipeline.jobs for number in range(job.replicas)}
    if fault.job not in known:
        raise FaultError(
            f"{fault.sentence!r}: {pipeline.name} has no job {fault.job!r}; "
            f"{did_you_mean(fault.job, known)}"
        )


def check_boards(faults: tuple[Fault, ...], agents: int) -> None:
    """See that a board is left when all faults have happened.

    Raises:
        FaultError: none is.
    """
    killed = sum(isinstance(fault, Kill) for fault in faults)
    if killed >= agents:
        raise FaultError(
            f"{killed} boards are killed and there are {agents}, so that nothing is left to go on; "
            f"use --agents {killed + 1} or more"
        )


def target(fault: Fault, pipeline: PipelineView) -> JobView | None:
    """Return the job that a fault is about: that of the id, or the first replica of the name."""
    by_id = {job.id: job for job in pipeline.jobs}
    first = [job for job in pipeline.jobs if job.spec_name == fault.job and job.replica == 0]
    return by_id.get(fault.job) or next(iter(first), None)


def due(fault: Fault, job: JobView) -> bool:
    """Say whether a fault may happen, as far as the job goes: it runs, and the records have passed."""
    if job.state is not JobState.RUNNING or not job.node:
        return False
    match fault.when:
        case AfterSeconds():
            return True
        case AfterRecords(records):
            outputs = [stream for stream in job.streams if stream.output]
            return sum(stream.records for stream in outputs or job.streams) >= records


def _when(sentence: str, text: str) -> When:
    if records := _RECORDS.fullmatch(text):
        return AfterRecords(int(records[1]))
    return AfterSeconds(_seconds(sentence, text))


def _seconds(sentence: str, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise FaultError(
            f"{sentence!r}: {text!r} {error}, or a number of records, as in '100 records'"
        ) from None
