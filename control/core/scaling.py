"""Whether a job can be scaled, and where its next generation of replicas begins.

A scale goes HOLDING -> SETTLED | ABANDONED. While it is holding, every port that streams into the
newest replicas of the job, and every port of theirs, stands still and says how far it is.

Rule: the newest replicas keep the least number of rounds R of which no consumer may have more. All of
them have exactly R rounds, and the next generation begins behind them.

Invariant: no consumer has a record that R leaves to the next generation. So what was sent stays where it
is, and both ends of every lane agree on the first record of the next generation, whatever dies later.

Where R comes from, for n replicas (`rounds`):
- An output of theirs stands still at record `held_at` (exclusive: records 0 … held_at - 1 may be with a
  consumer). A round makes one record on each output, so R >= held_at.
- A producer has m replicas, and record k of replica i has the global index k * m + i. If replica i stands
  still at `held_at` > 0, its last record has the index (held_at - 1) * m + i, so the stream has that many
  records and one more: sent = (held_at - 1) * m + i + 1, behind what earlier generations of it sent.
- The earlier generations of the job take the first records of the stream (`taken_by`). A round of all n
  replicas takes `unit` records more, so R >= (sent - taken) / unit, rounded up.

Why rounded up: a round that was begun is ended by the replica that has begun it.

Example: 3 cameras send to 2 detectors, each round of which takes 2 records. The cameras stand still at 5, 4
and 4, so the last record is number 4 of camera 0, with index 12, and 13 were sent: R = ceil(13 / 2) = 7. Each
detector gets 7 records, 14 in all, and the next generation begins with record 14.

Source: the barrier of Flink's rescaling (nightlies.apache.org/flink, "Checkpointing")
is the neighbour of this idea; docs/adr/0007-generations.md has the alternatives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from control.core import lifecycle
from control.core.answers import Refusal, RefusalCode
from control.core.generations import (
    Generation,
    first_number,
    generations,
    replica_id,
    sent_by,
    taken_by,
    unit,
)
from control.core.rows import ScaleRow
from control.core.state import JobRecord, PipelineRecord
from control.core.topology import Topology, topology
from shoal.limits import JOBS_MAX, LANES_MAX
from shoal.model import JobState, ScaleState
from shoal.names import ID_PATTERN
from shoal.session.port_hold import PortHold
from shoal.spec import Distribute, Job, Merge, Promise, Recovery

SCALES_MAX = 100
"""Most scales of one pipeline: each leaves replicas behind that others may still ask."""

TRANSITIONS: Mapping[ScaleState, frozenset[ScaleState]] = MappingProxyType(
    {ScaleState.HOLDING: frozenset({ScaleState.SETTLED, ScaleState.ABANDONED})}
)
"""From the state of a scale to the states that may follow."""

_GOING_ON = lifecycle.CLAIMING | {JobState.QUEUED, JobState.RETRY_WAIT}


def moved(scale: ScaleRow, state: ScaleState) -> ScaleRow:
    """Return the scale in another state of the table.

    Raises:
        IllegalTransitionError: It is not on the table.
    """
    name = f"{scale.number} of {scale.ref.name}"
    return replace(scale, state=lifecycle.check("scale", name, TRANSITIONS, scale.state, state))


def refusal(pipeline: PipelineRecord, name: str, number: int) -> Refusal | None:
    """Return why a job of the spec cannot be scaled to this number of replicas, or None."""
    if number < 1:
        return _refused(
            "INVALID_REPLICAS",
            f"{number} replicas: a job has at least 1; `shoal cancel` ends a pipeline",
            RefusalCode.INVALID_ARGUMENT,
        )
    if number > JOBS_MAX:  # before anything of that size is made
        return _refused(
            "INVALID_REPLICAS",
            f"{number} replicas: a pipeline has at most {JOBS_MAX} jobs, replicas counted",
            RefusalCode.INVALID_ARGUMENT,
        )
    if pipeline.state.terminal or pipeline.stop is not None:
        return _refused("ENDED", f"{pipeline.ref.name} has ended or is ending: submit it again")
    if pipeline.finish_time is not None:
        return _refused("FINISHING", f"{pipeline.ref.name} is finishing: it was asked to end")
    job = pipeline.spec.job(name)
    why = _unfit(pipeline, job)
    if why:
        return _refused("NOT_SCALABLE", f"job {name} cannot be scaled: {why}")
    holding = pipeline.holding
    if holding is not None:
        return _refused(
            "SCALING",
            f"job {holding.job} is being scaled to {holding.replicas}: "
            "try again when that is settled",
        )
    if len(pipeline.scales) >= SCALES_MAX:
        return _refused("TOO_MANY_SCALES", f"{SCALES_MAX} scales are the most of a pipeline")
    return _too_large(pipeline, name, number) or _ended(pipeline, name)


def _unfit(pipeline: PipelineRecord, job: Job) -> str:
    """Say why a job of this kind is never scaled, with the remedy; empty if it may be."""
    if job.local:
        return "it runs once, beside its client; scale the jobs around it"
    if not job.streams:
        return "it has no stream inputs that could be dealt out anew; scale the jobs behind it"
    if job.recovery is not Recovery.RESUME:
        return (
            "its replicas may keep state, which would stay with the old ones; if it keeps none and "
            "sends one record on each output in each round, submit it with `recovery: resume`"
        )
    if any(stream.merge is not Merge.ORDERED for stream in job.streams):
        return "an input takes records as they arrive, which has no order to be kept: use `ordered`"
    readers = [
        stream
        for other in pipeline.spec.jobs
        for stream in other.streams
        if other is job or stream.job == job.name
    ]
    if any(stream.promise is Promise.LATEST for stream in readers):
        return (
            "a stream into or out of it passes the newest records alone, so that it is unknown "
            "which record is which; submit it with another number of replicas"
        )
    ways = {_distribute(pipeline, job, index) for index in range(len(job.streams))}
    ways |= {output.distribute for output in job.outputs}
    if Distribute.KEY in ways:
        return (
            "records are spread by key, so that each key has its replica; "
            "use `distribute: round-robin`, or submit it with another number of replicas"
        )
    return ""


def _too_large(pipeline: PipelineRecord, name: str, number: int) -> Refusal | None:
    grown = replicas_of(pipeline, name, number)
    taken = [one for one in grown if one in pipeline.jobs]
    if taken:
        return _refused(
            "NAME_TAKEN", f"replica {taken[0]} would have the name of another job: rename that one"
        )
    if any(not ID_PATTERN.fullmatch(one) for one in grown):
        return _refused("NAME_TOO_LONG", f"{grown[-1]} has more than 63 characters: shorten it")
    if len(pipeline.jobs) + number > JOBS_MAX:
        return _refused(
            "TOO_MANY_JOBS",
            f"{len(pipeline.jobs)} jobs and {number} more are too many: a pipeline has at most "
            f"{JOBS_MAX}, those that have ended counted",
        )
    ends = sum(map(len, after(pipeline, name, number, 0).ends.values()))
    if ends > 2 * LANES_MAX:
        return _refused(
            "TOO_MANY_LANES", f"{ends // 2} streams between single replicas: {LANES_MAX} at most"
        )
    return None


def _ended(pipeline: PipelineRecord, name: str) -> Refusal | None:
    for job in (*pipeline.newest(name), *pipeline.producers(name)):
        if job.state not in _GOING_ON:
            return _refused(
                "ENDED",
                f"job {job.ref.job} is {job.state.name}: what it had to send or to take is dealt "
                "out already",
            )
        if not job.number:
            return _refused(
                "NOT_STARTED",
                f"job {job.ref.job} was not placed yet ({job.waiting_for or 'it is about to be'}): "
                f"wait, or submit the pipeline with `replicas` as you want them",
            )
    return None


def _refused(
    reason: str, message: str, code: RefusalCode = RefusalCode.FAILED_PRECONDITION
) -> Refusal:
    return Refusal(code, reason, message)


def grown(pipeline: PipelineRecord) -> dict[str, tuple[Generation, ...]]:
    """Return the generations of every job that was scaled."""
    names = dict.fromkeys(
        scale.job for scale in pipeline.scales if scale.state is ScaleState.SETTLED
    )
    return {name: generations(pipeline.spec.job(name), pipeline.scales) for name in names}


def after(
    pipeline: PipelineRecord, name: str, replicas: int, rounds: int, number: int = 0
) -> Topology:
    """Return the lanes as they would be after a scale: a new one, or the one with that number."""
    before = generations(pipeline.spec.job(name), pipeline.scales)
    opened = number or len(pipeline.scales) + 1
    closed = replace(before[-1], rounds=rounds, closed=opened)
    then = (*before[:-1], closed, Generation(replicas, None, opened))
    return topology(pipeline.spec, {**grown(pipeline), name: then})


def replicas_of(pipeline: PipelineRecord, name: str, replicas: int) -> tuple[str, ...]:
    """Return the ids of the replicas that a scale would add."""
    first = first_number(generations(pipeline.spec.job(name), pipeline.scales))
    return tuple(replica_id(name, first + number) for number in range(replicas))


def stopped_by(pipeline: PipelineRecord, scale: ScaleRow) -> str:
    """Return why a scale that is holding cannot be settled any more, or an empty string."""
    if pipeline.stop is not None or pipeline.state.terminal:
        return "the pipeline is ending"
    for job, port in _reporting(pipeline, scale):
        if job.state not in _GOING_ON and job.state is not JobState.DRAINING:
            return f"job {job.ref.job} is {job.state.name}"
        hold = _hold(job, port, scale)
        if hold is not None and hold.ended:
            return f"the stream of {job.ref.job}.{port} has ended"
    return ""


def rounds(pipeline: PipelineRecord, scale: ScaleRow) -> int | None:
    """Return after how many rounds the next generation begins; None until each replica has reported."""
    least = 0
    spec = pipeline.spec.job(scale.job)
    every = generations(spec, pipeline.scales)
    replicas = every[-1].replicas
    for job, port in _reporting(pipeline, scale):
        hold = _hold(job, port, scale)
        if hold is None:
            return None
        if job.spec.name == scale.job:
            least = max(least, hold.held_at)
            continue
        begun = generations(pipeline.spec.job(job.spec.name), pipeline.scales)
        begin = sent_by(begun[:-1])
        sent = begin
        if hold.held_at:
            sent += (hold.held_at - 1) * job.spec.replicas + job.replica + 1
        for index, stream in enumerate(spec.streams):
            if (stream.job, stream.port) == (job.spec.name, port):
                way = _distribute(pipeline, spec, index)
                beyond = sent - taken_by(every[:-1], stream, way)
                least = max(least, -(-beyond // unit(replicas, stream, way)))
    return least


def silent(pipeline: PipelineRecord, scale: ScaleRow) -> str:
    """Return the first port that has not said how far it is, as `job.port`."""
    for job, port in _reporting(pipeline, scale):
        if _hold(job, port, scale) is None:
            return f"{job.ref.job}.{port}"
    return ""


def _reporting(pipeline: PipelineRecord, scale: ScaleRow) -> Iterator[tuple[JobRecord, str]]:
    """The ports that have to say how far they are."""
    for job in pipeline.newest(scale.job):
        for output in job.spec.outputs:
            yield job, output.name
    sources = dict.fromkeys(
        (stream.job, stream.port) for stream in pipeline.spec.job(scale.job).streams
    )
    for name, port in sources:
        for job in pipeline.newest(name):
            yield job, port


def _hold(job: JobRecord, port: str, scale: ScaleRow) -> PortHold | None:
    return None if job.attempt is None else job.attempt.hold(port, scale.number)


def _distribute(pipeline: PipelineRecord, job: Job, index: int) -> Distribute:
    stream = job.streams[index]
    outputs = pipeline.spec.job(stream.job).outputs
    return next(output.distribute for output in outputs if output.name == stream.port)
