"""What is to go wrong in a simulation: a sentence such as `kill detector@3s`, read and checked."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from shoal import spec
from shoal.model import JobState
from shoal.specfile.units import parse_duration
from shoal.suggestion import did_you_mean
from shoal.view import JobView, PipelineView

_SENTENCE: Final = re.compile(r"(\S+)\s+([^\s@]+)\s*(?:@\s*([^+]*?)\s*(?:\+\s*(.*?)\s*)?)?")
_LASTING: Final = ("stop", "drop")
_RECORDS: Final = re.compile(r"(\d{1,18})\s*records?")
_AT_ONCE: Final = re.compile(r"drop\s+([^\s@]+)\s+([^\s@+]+)")
_EXAMPLE: Final = {
    "kill": "kill JOB@3s",
    "kill-agent": "kill-agent JOB@3s",
    "stop": "stop JOB@2s+1s",
    "drop": "drop JOB-JOB@3s+2s",
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
class JobFault:
    """What happens to the board that runs a job."""

    job: str
    when: When
    sentence: str


class Kill(JobFault):
    """The board loses its power: agent, keeper, stream worker and jobs end at once."""


class KillAgent(JobFault):
    """The agent of the board ends at once, and is started again."""


@dataclass(frozen=True, slots=True)
class Stop(JobFault):
    """The stream worker of the board stands still for some seconds: every link of it is dead so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Drop:
    """Everything is lost for some seconds between the boards of two jobs that a stream joins.

    `pair` are both names with a hyphen between.
    """

    pair: str
    when: When
    sentence: str
    seconds: float


Fault = Kill | KillAgent | Stop | Drop
"""What may go wrong."""


def parse_fault(sentence: str) -> Fault:
    """Read `kill JOB@3s`, `kill-agent JOB@100 records`, `stop JOB@2s+1s` or `drop A-B@3s+2s`.

    `drop A-B 2s` drops as soon as both run.

    Raises:
        FaultError: it is none of these.
    """
    if at_once := _AT_ONCE.fullmatch(sentence.strip()):
        seconds = _length(sentence, at_once[2], "drop")
        return Drop(at_once[1], AfterSeconds(0), sentence, seconds)
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
            f"as in '{verb} {job}@100 records{'+1s' if verb in _LASTING else ''}'"
        )
    moment = _when(sentence, when)
    if verb in _LASTING:
        if not pause:
            raise FaultError(
                f"{sentence!r} does not say for how long; write '{verb} {job}@{when}+1s'"
            )
        seconds = _length(sentence, pause, verb)
        return (Stop if verb == "stop" else Drop)(job, moment, sentence, seconds)
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
    owners = {job.name: job.name for job in pipeline.jobs}
    for job in pipeline.jobs:
        owners |= {job.replica_id(number): job.name for number in range(job.replicas)}
    known = frozenset(owners)
    if isinstance(fault, Drop):
        pair = pair_of(fault, known)
        if not any(pair):
            raise FaultError(
                f"{fault.sentence!r}: {fault.pair!r} is not two jobs of {pipeline.name} with a hyphen "
                f"between; its jobs are {', '.join(sorted(known))}"
            )
        ends = {owners[name] for name in pair}
        joined = [{job.name, stream.job} for job in pipeline.jobs for stream in job.streams]
        if ends not in joined:
            raise FaultError(
                f"{fault.sentence!r}: no stream joins {pair[0]!r} and {pair[1]!r}, so nothing would "
                "be lost; name two jobs with a stream between them"
            )
        return
    if fault.job not in known:
        raise FaultError(
            f"{fault.sentence!r}: {pipeline.name} has no job {fault.job!r}; "
            f"{did_you_mean(fault.job, known)}"
        )


def pair_of(fault: Drop, known: Collection[str]) -> tuple[str, str]:
    """Return the two jobs of a fault; names may have hyphens, too. Empty when they are not known."""
    words = fault.pair.split("-")
    for cut in range(1, len(words)):
        first, second = "-".join(words[:cut]), "-".join(words[cut:])
        if first in known and second in known:
            return first, second
    return "", ""


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


def targets(fault: Fault, pipeline: PipelineView) -> tuple[JobView, ...]:
    """Return the jobs that a fault is about: those of the ids, or the first replicas of the names.

    One, or two for what is between them; none while they are not there.
    """
    by_name = {job.spec_name: job for job in pipeline.jobs if job.replica == 0}
    by_name |= {job.id: job for job in pipeline.jobs}
    wanted = pair_of(fault, by_name) if isinstance(fault, Drop) else (fault.job,)
    found = tuple(by_name[name] for name in wanted if name in by_name)
    return found if len(found) == len(wanted) else ()


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


def _length(sentence: str, text: str, verb: str) -> float:
    seconds = _seconds(sentence, text)
    if seconds <= 0:
        raise FaultError(f"{sentence!r} {verb}s for no time at all; write for example +1s")
    return seconds


def _seconds(sentence: str, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise FaultError(
            f"{sentence!r}: {text!r} {error}, or a number of records, as in '100 records'"
        ) from None
