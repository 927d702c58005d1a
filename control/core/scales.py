"""The number of replicas of a job changes while streams stand still (control.core.scaling)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from control.core import events, outbox_rows, scaling
from control.core.answers import Refusal, RefusalCode
from control.core.errors import ControlError, UnknownJobError, unknown_pipeline
from control.core.machine_part import MachinePart
from control.core.placement import Placer
from control.core.rows import ScaleRow
from control.core.scheduler.plan import plan
from control.core.scheduler.snapshot import Pending, Placed
from control.core.state import PipelineRecord
from control.core.topology import Topology
from shoal.model import ScaleState
from shoal.names import JobRef, PipelineRef
from shoal.session.feature import needed_features


@dataclass(eq=False)
class Scales(MachinePart):
    """Begins scales, and settles or abandons each."""

    _placement: Placer
    _holding: dict[PipelineRef, float] = field(default_factory=dict[PipelineRef, float], init=False)

    def deadlines(self) -> Iterable[float]:
        """When streams have stood still for too long."""
        return self._holding.values()

    def scale(self, event: events.Scale) -> Refusal | ControlError | None:
        """Take a wish for another number of replicas."""
        pipeline = self._cluster.pipeline(event.ref)
        if pipeline is None:
            return unknown_pipeline(event.ref)
        if all(job.name != event.job for job in pipeline.spec.jobs):
            return _no_job(pipeline, event.job)
        holding = pipeline.holding
        if holding is not None and (holding.job, holding.replicas) == (event.job, event.replicas):
            return None  # asked for again
        if holding is None and len(pipeline.newest(event.job)) == event.replicas:
            return None
        refused = scaling.refusal(pipeline, event.job, event.replicas)
        if refused is not None:
            return refused
        for job in (*pipeline.newest(event.job), *pipeline.producers(event.job)):
            why = "" if job.attempt is None else self._situation.unheard(job.attempt)
            if why:
                return Refusal(RefusalCode.FAILED_PRECONDITION, "OLD_AGENT", why)
        then = scaling.after(pipeline, event.job, event.replicas, 0)
        why = self._fit(pipeline, then)[1]
        if why:
            return Refusal(RefusalCode.FAILED_PRECONDITION, "NO_ROOM", why)
        scale = ScaleRow(
            ref=pipeline.ref,
            number=len(pipeline.scales) + 1,
            job=event.job,
            replicas=event.replicas,
            state=ScaleState.HOLDING,
            create_time=self._situation.wall_time,
        )
        pipeline.scales.append(scale)
        self.hold(pipeline)
        self._change.scale(pipeline, scale)
        self._tell_all(pipeline)
        return None

    def hold(self, pipeline: PipelineRecord) -> None:
        """Let the streams of a pipeline stand still for no longer than is set."""
        self._holding[pipeline.ref] = self._situation.now + self._config.hold_seconds

    def _fit(self, pipeline: PipelineRecord, then: Topology) -> tuple[tuple[Placed, ...], str]:
        """Where the replicas that a scale adds would go, or why they would go nowhere."""
        new = [one for one in then.replicas.values() if one.id not in pipeline.jobs]
        pending = [
            self._placement.told(
                Pending(
                    ref=JobRef(pipeline.ref.namespace, pipeline.ref.pipeline, one.id),
                    spec_name=one.job.name,
                    gang=then.gangs[one.id],
                    resources=one.job.resources,
                    place=one.job.place,
                    bundle_digest=pipeline.spec.bundle_digest,
                    features=needed_features(pipeline.spec, one.job),
                    sandbox=one.job.sandbox,
                    secrets=one.job.secrets,
                )
            )
            for one in new
        ]
        made = plan(self._placement.snapshot(), pending)
        why = next(iter(made.waiting.values()), "")
        if why:
            why = (
                f"{len(new)} new replicas of {new[0].job.name} run beside the old ones until those "
                f"have ended, and they do not fit: {why}"
            )
        return made.placed, why

    def try_to_settle(self, pipeline: PipelineRecord, scale: ScaleRow) -> None:
        """Record where the new replicas begin and place them, once all their ports stand still."""
        why = scaling.stopped_by(pipeline, scale)
        if why:
            self.abandon(pipeline, scale, why)
            return
        rounds = scaling.rounds(pipeline, scale)
        if rounds is None:
            return
        then = scaling.after(pipeline, scale.job, scale.replicas, rounds, number=scale.number)
        placed, why = self._fit(pipeline, then)
        if why:
            self.abandon(pipeline, scale, why)
            return
        self._end(pipeline, replace(scaling.moved(scale, ScaleState.SETTLED), rounds=rounds))
        for job in pipeline.grow(then):
            self._situation.backlog.add(job, pipeline.kind(job))
        for one in placed:
            self._placement.place(pipeline.jobs[one.job.job], one.node)
        done = pipeline.scales[-1]
        self._change.outbox(outbox_rows.scale_event(done, self._situation.wall_time))

    def abandon(self, pipeline: PipelineRecord, scale: ScaleRow, why: str) -> None:
        """Give a scale up, so that streams go on."""
        self._end(pipeline, replace(scaling.moved(scale, ScaleState.ABANDONED), message=why))

    def _end(self, pipeline: PipelineRecord, scale: ScaleRow) -> None:
        scale = replace(scale, end_time=self._situation.wall_time)
        pipeline.scales[-1] = scale
        del self._holding[pipeline.ref]
        self._change.scale(pipeline, scale)
        self._tell_all(pipeline)

    def end_holds(self) -> None:
        """Let streams go on whose scale takes too long."""
        for ref in [ref for ref, at in self._holding.items() if at <= self._situation.now]:
            pipeline = self._cluster.pipelines[ref]
            scale = pipeline.holding
            if scale is not None:
                self.abandon(
                    pipeline,
                    scale,
                    f"{scaling.silent(pipeline, scale)} did not say within "
                    f"{self._config.hold_seconds:g} s how far it is: try again when all jobs run",
                )

    def _tell_all(self, pipeline: PipelineRecord) -> None:
        """Tell the agents of all attempts of a pipeline what their lanes are now."""
        for job in pipeline.jobs.values():
            if job.attempt is not None:
                job.attempt.assignment = None
                self._change.set_desired(job.attempt.node)


def _no_job(pipeline: PipelineRecord, name: str) -> UnknownJobError:
    jobs = ", ".join(job.name for job in pipeline.spec.jobs)
    return UnknownJobError(
        f"the specification of {pipeline.ref.pipeline} has no job {name!r}: its jobs are {jobs}; "
        "replicas are scaled together, by the name of their job"
    )
