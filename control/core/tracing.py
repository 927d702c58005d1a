"""The way of a pipeline as spans: made from what is recorded, in the transaction that records the end of each thing.

Rule. A pipeline that is in a trace has its span id, and so have its jobs and attempts: each follows from the trace and
from its name. When an attempt, a job or the pipeline has ended, its spans are rows of the same transaction. They stay
in the store until they have left, so neither a crash nor a collector that is away loses one that had room
(`control.leader.span_export`), and a pipeline without a trace costs one look at an empty text.

Times of a node are by its clock, which need not agree with ours. They lie between the moment in which the attempt was
placed and the one in which its end was recorded, so they are moved until they do, all by as much, and the span says it.

Example: `fetch` from 10:07:01 to 10:07:04 on a node whose clock is two minutes ahead, of an attempt that was placed at
10:05:00 and ended at 10:05:09. All times of the node are moved by -115 s, as `shoal.clock_moved_seconds` says.

    pipeline                                             [submitted … last job ended]
      job                                                [submitted … ended]
        wait                                             [submitted, or the attempt before ended … placed]
        attempt                                          [placed … end recorded]
          assign, fetch, install, start, run, drain, collect, store
      event                                              [recorded … taken by the broker]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from control.core.machine_part import MachinePart
from control.core.rows import SpansRow
from control.core.state import AttemptRecord, JobRecord, PipelineRecord
from services.traces.span import Span, as_text, shift_into
from shoal.model import JobState, PipelineState, Reason, ReasonCode
from shoal.names import PipelineRef
from shoal.session.stage import AttemptStage
from shoal.trace_context import TraceContext, begun_trace

_STEPS: Final = (
    ("fetch", AttemptStage.FETCHING, AttemptStage.FETCHED),
    ("install", AttemptStage.INSTALLING, AttemptStage.INSTALLED),
    ("collect", AttemptStage.COLLECTING, AttemptStage.COLLECTED),
)
"""Steps of an attempt between two stages that its agent told."""
_REASON_CHARACTERS: Final = 500
_SHARE_DIGITS: Final = 8
_NO_FAILURES: Final = frozenset({JobState.SUCCEEDED, JobState.CANCELLED})
_OF_PROGRAMS: Final = frozenset(
    {
        ReasonCode.EXIT,
        ReasonCode.SIGNAL,
        ReasonCode.OOM,
        ReasonCode.PROCESSES,
        ReasonCode.TIMEOUT,
    }
)
"""Reasons that say that a program failed, and not what was done around it."""
_Step = tuple[datetime, datetime]


@dataclass(eq=False)
class Tracing(MachinePart):
    """Says in which trace a pipeline is, and makes the spans of what has ended."""

    _cluster_id: str

    def begun(self, pipeline: PipelineRef, create_time: datetime) -> str:
        """Return the trace of a pipeline that was submitted in none; empty if it gets none.

        Which ones get one follows from their names, as from dice.
        """
        share = self._config.traces_share if self._config.traces else 0.0
        if not share:
            return ""
        name = f"{pipeline.namespace}/{pipeline.pipeline}"
        found = begun_trace(self._cluster_id, name, create_time.isoformat())
        drawn = int(found.trace_id[:_SHARE_DIGITS], 16) / 16**_SHARE_DIGITS
        return str(found) if drawn < share else ""

    def attempt_ended(
        self, pipeline: PipelineRecord, job: JobRecord, attempt: AttemptRecord
    ) -> None:
        """Make the spans of an attempt that has ended just now, and of the wait before it."""
        if self._kept(pipeline) is not None:
            spans = _of_attempt(pipeline, job, attempt, self._situation.wall_time)
            self._change.spans(SpansRow(as_text(spans)))

    def job_ended(self, pipeline: PipelineRecord, job: JobRecord) -> None:
        """Make the span of a job that has ended just now."""
        if self._kept(pipeline) is None:
            return
        span = Span(
            pipeline.span(job.ref),
            pipeline.span(pipeline.ref).span_id,
            "job",
            *_ordered(pipeline.create_time, self._situation.wall_time),
            attributes=_named(job.ref.name, job.ref.namespace, job.state),
            failed=_said(job.reason) if job.state is JobState.FAILED else "",
        )
        self._change.spans(SpansRow(as_text((span,))))

    def pipeline_ended(self, pipeline: PipelineRecord) -> None:
        """Make the span of a pipeline that has ended just now."""
        if (trace := self._kept(pipeline)) is None:
            return
        named = _named(pipeline.ref.name, pipeline.ref.namespace, pipeline.state)
        span = Span(
            pipeline.span(pipeline.ref),
            trace.parent_id,
            "pipeline",
            *_ordered(pipeline.create_time, self._situation.wall_time),
            attributes={**named, "shoal.jobs": len(pipeline.jobs)},
            failed=_said(pipeline.reason) if pipeline.state is PipelineState.FAILED else "",
        )
        self._change.spans(SpansRow(as_text((span,))))

    def _kept(self, pipeline: PipelineRecord) -> TraceContext | None:
        """The trace of a pipeline whose spans are kept."""
        if not pipeline.traceparent or not self._config.traces:
            return None
        trace = TraceContext.of(pipeline.traceparent)
        return trace if trace.sampled else None


def _of_attempt(
    pipeline: PipelineRecord, job: JobRecord, attempt: AttemptRecord, now: datetime
) -> Iterator[Span]:
    ref, begun = attempt.ref, attempt.create_time
    parent = pipeline.span(job.ref).span_id
    number = job.attempts.index(attempt)
    before = job.attempts[number - 1].end_time if number else None
    start, end = _ordered(begun, now)
    named = _named(ref.name, ref.namespace, attempt.state)
    yield Span(
        pipeline.span(ref, "wait"),
        parent,
        "wait",
        *_ordered(before or pipeline.create_time, begun),
        attributes={"shoal.name": ref.name},
    )
    steps = dict(_steps(job, attempt))
    moved = shift_into((moment for pair in steps.values() for moment in pair), start, end)
    whole = pipeline.span(ref)
    collected = next(
        (one.time for one in attempt.stages if one.stage is AttemptStage.COLLECTED), None
    )
    if collected is not None and attempt.state is JobState.SUCCEEDED:
        steps["store"] = (collected, end - moved)
    yield Span(
        whole,
        parent,
        "attempt",
        start,
        end,
        attributes={
            **named,
            "shoal.attempt": ref.number,
            "shoal.epoch": ref.epoch,
            "shoal.node": attempt.node,
            **({"shoal.clock_moved_seconds": moved.total_seconds()} if moved else {}),
        },
        failed="" if attempt.state in _NO_FAILURES else _said(attempt.reason),
    )
    if taken := min((step_start for step_start, _ in steps.values()), default=None):
        yield Span(
            pipeline.span(ref, "assign"),
            whole.span_id,
            "assign",
            *_ordered(start, min(taken + moved, end)),
            attributes={"shoal.name": ref.name},
        )
    for name, (step_start, step_end) in steps.items():
        failed = _said(attempt.reason) if name == "run" and _program_failed(attempt) else ""
        yield Span(
            pipeline.span(ref, name),
            whole.span_id,
            name,
            *_ordered(*(min(max(one + moved, start), end) for one in (step_start, step_end))),
            node=attempt.node,
            attributes={"shoal.name": ref.name},
            failed=failed,
        )


def _steps(job: JobRecord, attempt: AttemptRecord) -> Iterator[tuple[str, _Step]]:
    """What an attempt did on its node, by the clock there."""
    times = {one.stage: one.time for one in attempt.stages}
    for name, first, last in _STEPS:
        if first in times and last in times:
            yield name, (times[first], times[last])
    if attempt.start_time is None:
        return
    ready = times.get(AttemptStage.INSTALLED)
    if ready is not None:
        yield "start", (ready, attempt.start_time)
    if attempt.end_time is None:
        return
    yield "run", (attempt.start_time, attempt.end_time)
    looked = times.get(AttemptStage.COLLECTING)
    if looked is not None and (job.spec.streams or job.spec.outputs):
        yield "drain", (attempt.end_time, looked)


def _program_failed(attempt: AttemptRecord) -> bool:
    return attempt.reason.code in _OF_PROGRAMS


def _ordered(start: datetime, end: datetime) -> _Step:
    """Two moments; a clock that was set back between them makes them one."""
    return start, max(start, end)


def _named(
    name: str, namespace: str, state: JobState | PipelineState
) -> dict[str, str | int | float]:
    return {"shoal.name": name, "shoal.namespace": namespace, "shoal.state": state.name}


def _said(reason: Reason) -> str:
    return f"{reason.short} {reason.message}"[:_REASON_CHARACTERS].strip()
