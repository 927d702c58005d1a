"""Pipelines come, are asked to end, and are forgotten."""

from __future__ import annotations

from control.core import events
from control.core.admission import refusal, reused
from control.core.answers import Refusal, RefusalCode
from control.core.effects import Taken
from control.core.errors import unknown_pipeline
from control.core.outcomes import Outcomes
from control.core.rows import PipelineAdded
from control.core.scales import Scales
from control.core.situation import Situation
from control.core.sources import Sources
from control.core.state import PipelineRecord
from control.core.topology import topology
from shoal.model import Reason, ReasonCode
from shoal.names import PipelineRef

ID_SUFFIX = 6
"""Random characters at the end of a pipeline's id."""

_ID_MAX = 63


class Submissions:
    """Takes pipelines, and what people ask of them."""

    def __init__(
        self,
        situation: Situation,
        sources: Sources,
        scales: Scales,
        outcomes: Outcomes,
        next_position: int,
    ) -> None:
        self._situation = situation
        self._sources = sources
        self._scales = scales
        self._outcomes = outcomes
        self._next_position = next_position

    def submit(self, event: events.Submit) -> Taken | Refusal:
        """Record a pipeline, unless its request id has made one already."""
        submission = event.submission
        key = (submission.namespace, submission.request_id)
        first = self._situation.cluster.requests.get(key) if submission.request_id else None
        if first is not None:
            spec = self._situation.cluster.pipelines[first].spec
            if spec == submission.spec:
                return Taken(first, repeated=True)
            return reused(submission, first, spec)
        refused = refusal(submission)
        if refused is not None:
            return refused
        if self._situation.open >= self._situation.config.pipelines_open_max:
            return Refusal(
                RefusalCode.RESOURCE_EXHAUSTED,
                "TOO_MANY_PIPELINES",
                f"{self._situation.open} pipelines have not ended yet: submit again when some have",
            )
        added = PipelineAdded(
            ref=self._new_ref(submission.namespace, submission.spec.name),
            position=self._next_position,
            request_id=submission.request_id,
            spec=submission.spec,
            create_time=self._situation.wall_time,
        )
        self._next_position += 1
        pipeline = PipelineRecord.begin(added, topology(added.spec))
        self.remember(pipeline)
        for job in pipeline.jobs.values():
            self._situation.backlog.add(job, pipeline.kind(job))
            self._situation.fresh[job.ref] = job
        self._situation.change.added(added, pipeline)
        return Taken(added.ref, repeated=False)

    def _new_ref(self, namespace: str, name: str) -> PipelineRef:
        while True:
            ref = PipelineRef(
                namespace, f"{name[: _ID_MAX - ID_SUFFIX - 1]}-{self._situation.ids(ID_SUFFIX)}"
            )
            if ref not in self._situation.cluster.pipelines:
                return ref

    def remember(self, pipeline: PipelineRecord) -> None:
        """Keep a pipeline in memory."""
        self._situation.cluster.pipelines[pipeline.ref] = pipeline
        if pipeline.request_id:
            self._situation.cluster.requests[pipeline.ref.namespace, pipeline.request_id] = (
                pipeline.ref
            )
        if not pipeline.state.terminal:
            self._situation.open += 1

    def forget(self, ref: PipelineRef) -> None:
        """Drop an ended pipeline for good."""
        pipeline = self._situation.cluster.pipelines.pop(ref)
        if pipeline.request_id:
            del self._situation.cluster.requests[ref.namespace, pipeline.request_id]
        self._situation.change.forgotten(ref)

    def cancel(self, event: events.Cancel) -> None:
        """End a pipeline."""
        pipeline = self._situation.cluster.pipelines.get(event.ref)
        if pipeline is None:
            self._situation.change.answer(event.call, unknown_pipeline(event.ref))
            return
        why = event.reason or "somebody cancelled it"
        self._outcomes.stop(pipeline, Reason(ReasonCode.CANCELLED, 0, why))
        self._situation.change.answer(event.call, None)

    def finish(self, event: events.Finish) -> None:
        """Ask the sources of a pipeline to end."""
        pipeline = self._situation.cluster.pipelines.get(event.ref)
        if pipeline is None:
            self._situation.change.answer(event.call, unknown_pipeline(event.ref))
            return
        ends = pipeline.state.terminal or pipeline.stop is not None
        if pipeline.finish_time is None and not ends:
            pipeline.finish_time = self._situation.wall_time
            self._situation.change.pipeline(pipeline)
            if pipeline.holding is not None:
                self._scales.abandon(pipeline, pipeline.holding, "the pipeline is finishing")
            self._sources.end(pipeline)
        self._situation.change.answer(event.call, None)
