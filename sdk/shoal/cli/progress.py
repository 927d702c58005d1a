"""How a pipeline stands, as rows of a table and as lines for where there is no terminal.

Pure: it is fed pictures of a pipeline and moments, and returns text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from shoal.cli.figures import bytes_text, count_text, state_word
from shoal.cli.streams import blocked
from shoal.model import JobState, StreamCounters
from shoal.view import JobView, PipelineView

_SMOOTHING_SECONDS = 2.0
_CHATTER_SECONDS = 5.0
_NUMBER = re.compile(r"\d+(\.\d+)?")
_MOVING = frozenset({JobState.RUNNING, JobState.DRAINING})
_TYPED_FOR = frozenset({JobState.ASSIGNED, JobState.PREPARING, JobState.RUNNING})
_NEWS = frozenset({JobState.QUEUED, JobState.RETRY_WAIT, JobState.FAILED, JobState.CANCELLED})


@dataclass(frozen=True, slots=True)
class Row:
    """One job: how it stands, how fast it is, and what is to be said; rates are per second."""

    job: JobView
    records_rate: float
    bytes_rate: float
    text: str

    @property
    def flow(self) -> str:
        """`1,200 records, 7 dropped, 24/s, 5.1 MiB/s`; empty while nothing has moved."""
        records, _ = moved(self.job)
        if not records:
            return ""
        said = f"{count_text(records)} records"
        if dropped := sum(stream.dropped for stream in self.job.streams):
            said += f", {count_text(dropped)} dropped"
        if self.records_rate > 0.05:
            said += f", {count_text(self.records_rate)}/s, {bytes_text(self.bytes_rate)}/s"
        return said


@dataclass(slots=True)
class _Seen:
    moment: float
    records: int
    size: int
    records_rate: float = 0.0
    bytes_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class _Said:
    head: str
    text: str
    moment: float


class ProgressRows:
    """Follows one pipeline and works out rates."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        self._said: dict[str, _Said] = {}

    def rows(self, pipeline: PipelineView, now: float) -> tuple[Row, ...]:
        """Show every job.

        Args:
            pipeline: how it stands.
            now: seconds on a monotonic clock.
        """
        for job in pipeline.jobs:
            self._measure(job, now)
        return self.last_rows(pipeline)

    def last_rows(self, pipeline: PipelineView) -> tuple[Row, ...]:
        """Show every job with the rates that were last worked out."""
        notes = _notes(pipeline)
        return tuple(self._row(job, notes[job.name]) for job in pipeline.jobs)

    def lines(self, pipeline: PipelineView, now: float, *, typing: str = "") -> tuple[str, ...]:
        """Say what has changed since the last call, one line for each job that did.

        A change of state is said at once; mere progress only every few seconds, because lines stay.

        Args:
            pipeline: how it stands.
            now: seconds on a monotonic clock.
            typing: the job that a person types for, if there is one. Until it has ended, only what goes
                wrong or waits is said, since a line would stand in the middle of what is typed; what
                changed besides is said later.
        """
        quiet = any(job.id == typing and job.state in _TYPED_FOR for job in pipeline.jobs)
        said: list[str] = []
        notes = _notes(pipeline)
        for row, job in zip(self.rows(pipeline, now), pipeline.jobs, strict=True):
            flow = row.flow if job.state in _MOVING else ""
            head, text = _head(job), "; ".join(filter(None, (notes[job.name], flow)))
            if quiet and job.state not in _NEWS:
                continue
            before = self._said.get(job.id)
            if before is not None and before.head == head:
                # Of what is waited for, other numbers are no news.
                same = text == before.text or (not flow and _words(text) == _words(before.text))
                if same or now - before.moment < _CHATTER_SECONDS:
                    continue
            self._said[job.id] = _Said(head, text, now)
            said.append(f"{job.id}: {head}: {text}" if text else f"{job.id}: {head}")
        return tuple(said)

    def _measure(self, job: JobView, now: float) -> None:
        records, size = moved(job)
        seen = self._seen.get(job.name)
        if seen is None or records < seen.records:  # a new attempt counts from 0 again
            self._seen[job.name] = _Seen(now, records, size)
        elif now - seen.moment >= _SMOOTHING_SECONDS / 4:
            passed = now - seen.moment
            share = min(1.0, passed / _SMOOTHING_SECONDS)
            seen.records_rate += share * ((records - seen.records) / passed - seen.records_rate)
            seen.bytes_rate += share * ((size - seen.size) / passed - seen.bytes_rate)
            seen.moment, seen.records, seen.size = now, records, size

    def _row(self, job: JobView, text: str) -> Row:
        seen = self._seen.get(job.name)
        if seen is None or job.state not in _MOVING:
            return Row(job, 0.0, 0.0, text or job.waiting_for)
        return Row(job, seen.records_rate, seen.bytes_rate, text or job.waiting_for)


def moved(job: JobView) -> tuple[int, int]:
    """Count the records and bytes that a job sent, or that it took when it sends none."""
    outputs: Sequence[StreamCounters] = [item for item in job.streams if item.output]
    counted = outputs or job.streams
    return sum(item.records for item in counted), sum(item.bytes for item in counted)


def note(job: JobView) -> str:
    """Say the one thing about a job that matters now: why it ended, waits, or what it says."""
    if job.state in {JobState.FAILED, JobState.RETRY_WAIT, JobState.CANCELLED} and job.reason.code:
        sentence = first_sentence(job.reason.message)
        said = f"{job.reason.short}: {sentence}" if sentence else job.reason.short
        return f"{said}; {job.waiting_for}" if job.waiting_for else said
    if job.state in {JobState.QUEUED, JobState.RUNNING} and job.waiting_for:
        return job.waiting_for
    return "" if job.state.terminal else blocked(job) or job.progress or _why_again(job)


def _why_again(job: JobView) -> str:
    """Say why there is a second attempt: how the one before it ended."""
    if len(job.attempts) < 2 or not job.attempts[-2].reason.code:
        return ""
    before = job.attempts[-2].reason
    return f"attempt {len(job.attempts) - 1}: {before.short}: {first_sentence(before.message)}"


def _notes(pipeline: PipelineView) -> dict[str, str]:
    """Return the notes of all jobs by name; what several wait for is said once, of the first of them."""
    notes: dict[str, str] = {}
    first: dict[str, str] = {}
    for job in pipeline.jobs:
        said = notes[job.name] = note(job)
        if job.state is JobState.QUEUED and said:
            before = first.setdefault(said, job.id)
            if before != job.id:
                notes[job.name] = f"waits as {before} does"
    return notes


def first_sentence(message: str) -> str:
    """Take the first line of a reason, without the words that announce the next ones."""
    line = message.strip().partition("\n")[0]
    return line.rpartition(";")[0] or line.rstrip(":") if line.endswith(":") else line


def _words(text: str) -> str:
    return _NUMBER.sub("", text)


def _head(job: JobView) -> str:
    words = [state_word(job.state)]
    if job.node and not job.state.terminal:
        words.append(f"on {job.node}")
    if len(job.attempts) > 1:
        words.append(f"(attempt {len(job.attempts)})")
    return " ".join(words)
