"""Pipelines come, are asked to end, and are forgotten."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from hashlib import sha256

from control.core import events
from control.core.admission import refusal, reused
from control.core.answers import Refusal, RefusalCode, Submission
from control.core.call_note import CallNote
from control.core.effects import Taken
from control.core.errors import UnknownPipelineError, unknown_pipeline
from control.core.job_secrets import JobSecrets
from control.core.machine_part import MachinePart
from control.core.memory import Memory
from control.core.outcomes import Outcomes
from control.core.rows import KnownRequest, PipelineAdded
from control.core.scales import Scales
from control.core.sources import Sources
from control.core.state import PipelineRecord
from control.core.tracing import Tracing
from shoal.model import Reason, ReasonCode
from shoal.names import PipelineRef

ID_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
ID_ORDERED = 4
"""Characters of a pipeline's id that rise with each submission, so that what is submitted together stands together in
the store: it writes a fraction of the pages that it would write for random ids. They begin anew after 1.7 million, and
with a new store."""
ID_RANDOM = 4
"""Random characters behind them, at the end: an archive outlives stores, and an id in it may not come again."""
ID_SUFFIX = ID_ORDERED + ID_RANDOM

_ID_MAX = 63
_PAIRS = [first + second for first in ID_DIGITS for second in ID_DIGITS]
_SHAPES_KEPT = 10_000


@dataclass(eq=False)
class Submissions(MachinePart):
    """Takes pipelines, and what people ask of them."""

    _sources: Sources
    _scales: Scales
    _outcomes: Outcomes
    _memory: Memory
    _secrets: JobSecrets
    _tracing: Tracing
    _next_position: int
    _shapes: dict[tuple[Hashable, ...], str] = field(
        default_factory=dict[tuple[Hashable, ...], str], init=False
    )

    def submit(self, event: events.Submit) -> Taken | Refusal:
        """Record a pipeline, unless its request id has made one already."""
        return self._take(event.submission, event.note)

    def revive(self, submission: Submission, event: events.Revive) -> Taken | Refusal:
        """Record a pipeline that runs a dead letter again."""
        return self._take(submission, event.note, event.ref.pipeline)

    def _take(
        self, submission: Submission, note: CallNote | None, revived_from: str = ""
    ) -> Taken | Refusal:
        digest, data = "", submission.data
        if submission.request_id:
            data = submission.encoded()
            digest = sha256(submission.asked or data).hexdigest()
            known = self._situation.requests.get((submission.namespace, submission.request_id))
            if known is not None:
                return _repeated(submission, digest, known)
        refused = submission.refused or refusal(submission) or self._secrets.refusal(submission)
        if refused is not None:
            return refused
        if self._situation.open >= self._config.pipelines_open_max:
            return Refusal(
                RefusalCode.RESOURCE_EXHAUSTED,
                "TOO_MANY_PIPELINES",
                f"{self._situation.open} pipelines have not ended yet: submit again when some have",
            )
        if note is not None and (over := self._over_quota(note)):
            return over
        creator = "" if note is None else note.described
        ref, create_time = (
            self._new_ref(submission.namespace, submission.spec.name),
            self._situation.wall_time,
        )
        added = PipelineAdded(
            ref=ref,
            position=self._next_position,
            request_id=submission.request_id,
            spec=submission.spec,
            create_time=create_time,
            data=data,
            digest=digest,
            creator=creator,
            revived_from=revived_from,
            stored=submission.stored,
            listings=submission.listings,
            traceparent=submission.traceparent or self._tracing.begun(ref, create_time),
        )
        self._situation.count_of(creator, 1)
        self._next_position += 1
        pipeline = PipelineRecord.begin(added, self._cluster.topology(added.spec))
        self._memory.remember(pipeline)
        if digest:
            key = (submission.namespace, submission.request_id)
            self._memory.remember_request(key, KnownRequest(added.ref, digest, added.spec))
        backlog, fresh = self._situation.backlog, self._situation.fresh
        kinds: list[Hashable] = []
        for job in pipeline.jobs.values():
            kind = pipeline.kind(job)
            kinds.append(kind)
            backlog.add(job, kind)
            fresh[job.ref] = job
        added.kind = self._shape(tuple(kinds), pipeline)
        self._change.added(added, pipeline)
        return Taken(added.ref, repeated=False)

    def _over_quota(self, note: CallNote) -> Refusal | None:
        """Refuse a caller that has as many open pipelines as one may."""
        most = self._config.caller_pipelines_max
        if self._situation.open_of[note.caller] < most:
            return None
        return Refusal(
            RefusalCode.RESOURCE_EXHAUSTED,
            "QUOTA",
            f"{note.caller} has {most} pipelines that have not ended, which is the most: submit again when "
            "some have, or let an operator raise --caller-pipelines of the controller",
            {"caller": note.caller, "option": "--caller-pipelines"},
        )

    def _new_ref(self, namespace: str, name: str) -> PipelineRef:
        begin = f"{name[: _ID_MAX - ID_SUFFIX - 1]}-"
        ids = self._situation.ids
        ref = PipelineRef(namespace, f"{begin}{_ordered(self._next_position)}{ids(ID_RANDOM)}")
        while self._memory.remembers(ref):
            ref = PipelineRef(namespace, f"{begin}{ids(ID_SUFFIX)}")
        return ref

    def _shape(self, kinds: tuple[Hashable, ...], pipeline: PipelineRecord) -> str:
        shape = self._shapes.get(kinds)
        if shape is None:
            if len(self._shapes) >= _SHAPES_KEPT:
                self._shapes.clear()
            shape = self._shapes[kinds] = pipeline.shape()
        return shape

    def cancel(self, event: events.Cancel) -> UnknownPipelineError | None:
        """End a pipeline."""
        pipeline = self._cluster.pipeline(event.ref)
        if pipeline is None:
            return unknown_pipeline(event.ref)
        why = event.reason or "somebody cancelled it"
        self._outcomes.stop(pipeline, Reason(ReasonCode.CANCELLED, 0, why))
        return None

    def finish(self, event: events.Finish) -> UnknownPipelineError | None:
        """Ask the sources of a pipeline to end."""
        pipeline = self._cluster.pipeline(event.ref)
        if pipeline is None:
            return unknown_pipeline(event.ref)
        ends = pipeline.state.terminal or pipeline.stop is not None
        if pipeline.finish_time is None and not ends:
            pipeline.finish_time = self._situation.wall_time
            self._change.pipeline(pipeline)
            if pipeline.holding is not None:
                self._scales.abandon(pipeline, pipeline.holding, "the pipeline is finishing")
            self._sources.end(pipeline)
        return None


def _ordered(position: int) -> str:
    """Write the last digits of a position, two at a time."""
    high, low = divmod(position, len(_PAIRS))
    return _PAIRS[high % len(_PAIRS)] + _PAIRS[low]


def _repeated(submission: Submission, digest: str, known: KnownRequest) -> Taken | Refusal:
    """Answer a request id that was used before: the same pipeline for the same spec, else a refusal."""
    same = known.digest == digest or (known.spec is not None and known.spec == submission.spec)
    undecided = not known.digest and known.spec is None  # an earlier version kept no digest
    if same or undecided:
        return Taken(known.ref, repeated=True, ended=known.ended)
    return reused(submission, known.ref, known.spec)
