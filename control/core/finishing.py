"""Where a pipeline ends that was asked to finish, so that it ends with its results.

Its *sources*, which are the jobs that no stream of the pipeline goes into, are ended; everything
behind them then drains, commits and is archived as at any end. The end of a source is a number of
records on each of its outputs, and that number is recorded before any consumer sees the end. So whatever
dies later is made again up to the same record, and no consumer gets more or less than another one did.

1. The outputs of the source stand still under a number, and say below which record everything lies
   that any consumer may have (`Lane.hold`, as for a scale).
2. That is recorded as `ends` of its job.
3. The port ends there (`Lane.end`) and takes nothing more; then the program is told to end
   (`GOAL_FINISH`), and its end is a good one.

The first attempt of a source stands still at once: nothing was ever sent that it has not sent. A
*replacement* sends again what was sent before, and a number that is smaller than what a consumer
has would fail it. Nor is what its own consumers have enough: `source -> filter -> sink`, and the
board with source and filter dies. The new filter has nothing, the sink has the first 1,000 results.
So a replacement goes on until no port behind it repeats anything (`StreamProgress.repeating`).

A consumer that has committed repeats nothing, and asks no producer for anything again; whether it saw the
end of what it read is recorded with its attempt (`ended_inputs`), and this is what it says: its
producer had ended there by itself. So a replacement of that producer has to end there, too, and
nowhere before. If it is the source, it is left to end by itself; if it is a job behind the source, the
source goes on until that job has ended. Example: `source -> filter -> sink`; the source has ended after
1,000 records, the sink has committed, and the board with source and filter dies. If the new source were
ended after 10 records, filter and source would commit what 10 records make, and the sink has what 1,000
make. A consumer that ended by itself before its input did (after three records) asks for nothing, as it
would have ended there in any case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from control.core import lifecycle
from control.core.state import JobRecord, PipelineRecord
from shoal.model import JobState, StreamCounters

HOLD_FIRST = 1 << 31
"""Holds of finishing sources are numbered from here, above those of any scale."""


def hold_number(term: int) -> int:
    """Return the number of the holds of one start of the controller.

    What was said under the number of an earlier start may be outdated: that hold may have ended.
    """
    return HOLD_FIRST | (term & (HOLD_FIRST - 1))


def sources(pipeline: PipelineRecord) -> Iterator[JobRecord]:
    """The replicas that get nothing from another job; a local job gets its records from its client."""
    for name, job in pipeline.jobs.items():
        if all(end.lane.output or not end.peer for end in pipeline.topology.ends[name]):
            yield job


def ports(pipeline: PipelineRecord, job: JobRecord) -> tuple[str, ...]:
    """The outputs of a replica that another job reads."""
    ends = pipeline.topology.ends[job.ref.job]
    return tuple(dict.fromkeys(end.lane.port for end in ends if end.lane.output and end.peer))


def seen_end(pipeline: PipelineRecord, job: JobRecord) -> str:
    """Say of a source that a committed job saw the end of it, or of one behind it that runs again.

    Returns:
        An empty string if there is none: then it may end wherever no port repeats anything.
    """
    for producer in _behind(pipeline, job):
        if producer.state in lifecycle.ENDED_WELL:
            continue
        for name in pipeline.topology.consumers(producer.ref.job):
            if not _saw_end(pipeline, pipeline.jobs[name], producer):
                continue
            if producer is job:
                return f"it ends by itself where {name} saw its end"
            return f"it ends once {producer.ref.job} has ended where {name} saw its end"
    return ""


def _behind(pipeline: PipelineRecord, job: JobRecord) -> Iterator[JobRecord]:
    """A replica, and all that gets something that it had a part in, each once."""
    seen, waiting = {job.ref.job}, [job.ref.job]
    while waiting:
        name = waiting.pop()
        yield pipeline.jobs[name]
        behind = [other for other in pipeline.topology.consumers(name) if other not in seen]
        seen.update(behind)
        waiting += behind


def _saw_end(pipeline: PipelineRecord, consumer: JobRecord, producer: JobRecord) -> bool:
    """Whether a consumer has committed what it made of all that a producer had.

    What ends at a scale goes on for the next generation of the consumer, so that is no end.
    """
    if consumer.state is not JobState.SUCCEEDED:
        return False
    ended = consumer.attempts[-1].ended_inputs
    return any(
        end.lane.port in ended and end.lane.stretch.consumer_end is None
        for end in pipeline.topology.ends[consumer.ref.job]
        if not end.lane.output and end.peer == producer.ref.job
    )


def repeating(pipeline: PipelineRecord, job: JobRecord) -> str:
    """Say which port at or behind a replica still sends again what was sent, as `job.port`.

    Returns:
        An empty string if there is none: then no consumer has anything that a replica would not make.
    """
    if job.attempt is not None and job.attempt.ref.number == 1:
        return ""
    for one in _behind(pipeline, job):
        if one.state is JobState.SUCCEEDED:
            continue
        for port in ports(pipeline, one):
            said = None if one.attempt is None else _said(one, port)
            if said is None or said.repeating:
                return f"{one.ref.job}.{port}"
    return ""


def ends(pipeline: PipelineRecord, job: JobRecord) -> Mapping[str, int] | None:
    """Return after how many records each output of a source ends; None while one does not say.

    An output all of whose readers have committed is left out: no consumer gets any of it again, so it is
    closed wherever it is, and where that is says nothing of what they got.
    """
    attempt = job.attempt
    found: dict[str, int] = {}
    read = {
        end.lane.port
        for end in pipeline.topology.ends[job.ref.job]
        if end.lane.output and end.peer and pipeline.jobs[end.peer].state is not JobState.SUCCEEDED
    }
    for port in ports(pipeline, job):
        if port not in read:
            continue
        hold = None if attempt is None else attempt.hold(port, attempt.held)
        if hold is None:
            return None
        found[port] = hold.held_at
    return found


def _said(job: JobRecord, port: str) -> StreamCounters | None:
    return next((one for one in job.streams if one.output and one.port == port), None)
