"""Where a pipeline ends that somebody asked to finish, so that it ends with its results.

Its *sources*, which are the jobs that no stream of the pipeline goes into, are ended; everything
behind them then drains, commits and is archived as at any end. The end of a source is a number of
records on each of its outputs, and that number is recorded before anybody sees the end. So whatever
dies later is made again up to the same record, and nobody gets more or less than somebody else did.

1. The outputs of the source stand still under a number, and say below which record everything lies
   that any consumer may have (`Lane.hold`, as for a scale).
2. That is recorded as `ends` of its job.
3. The port ends there (`Lane.end`) and takes nothing more; then the program is told to end
   (`GOAL_FINISH`), and its end is a good one.

The first attempt of a source stands still at once: nothing was ever sent that it has not sent. A
*replacement* sends again what was sent before, and a number that is smaller than what a consumer
has would fail it. Nor is what its own consumers have enough: `source -> filter -> sink`, and the
board with source and filter dies. The new filter has nothing, the sink has the first 1,000 results.
So a replacement goes on until nobody behind it repeats anything (`StreamProgress.repeating`).

A consumer that has committed may have seen the end of the source (one that stops after three records
has not). Wherever a replacement of the source stands now, it is left to end by itself: there, and
nowhere before. That the end was seen is known by the consumer's counters, which a restarted
controller has not got: then the source ends where it stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from control.state import JobRecord, PipelineRecord
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


def end_seen_by(pipeline: PipelineRecord, job: JobRecord) -> str:
    """Return the id of a committed consumer that has seen the end of a source; empty if none has."""
    for name in pipeline.topology.consumers(job.ref.job):
        consumer = pipeline.jobs[name]
        inputs = {
            end.lane.port
            for end in pipeline.topology.ends[name]
            if not end.lane.output and end.peer == job.ref.job
        }
        seen = any(one.ended for one in consumer.streams if not one.output and one.port in inputs)
        if consumer.state is JobState.SUCCEEDED and seen:
            return name
    return ""


def repeating(pipeline: PipelineRecord, job: JobRecord) -> str:
    """Say which port at or behind a replica still sends again what was sent, as `job.port`.

    Returns:
        An empty string if there is none: then nobody has anything that a replica would not make.
    """
    if job.attempt is not None and job.attempt.ref.number == 1:
        return ""
    seen, waiting = {job.ref.job}, [job.ref.job]
    while waiting:
        name = waiting.pop()
        one = pipeline.jobs[name]
        if one.state is not JobState.SUCCEEDED:
            for port in ports(pipeline, one):
                said = None if one.attempt is None else _said(one, port)
                if said is None or said.repeating:
                    return f"{name}.{port}"
        behind = [other for other in pipeline.topology.consumers(name) if other not in seen]
        seen.update(behind)
        waiting += behind
    return ""


def ends(pipeline: PipelineRecord, job: JobRecord) -> Mapping[str, int] | None:
    """Return after how many records each output of a source ends; None while one does not say."""
    attempt = job.attempt
    found: dict[str, int] = {}
    for port in ports(pipeline, job):
        hold = None if attempt is None else attempt.hold(port, attempt.held)
        if hold is None:
            return None
        found[port] = hold.held_at
    return found


def _said(job: JobRecord, port: str) -> StreamCounters | None:
    return next((one for one in job.streams if one.output and one.port == port), None)
