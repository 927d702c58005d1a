"""What agents say of attempts, compared with what is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from control.core import events, lifecycle, outbox_rows
from control.core.dashboard import Dashboard
from control.core.errors import SessionEndedError
from control.core.job_news import JobNews
from control.core.machine_part import MachinePart
from control.core.outcomes import Outcomes
from control.core.scales import Scales
from control.core.sources import Sources
from control.core.state import AttemptRecord, JobRecord, NodeRecord, PipelineRecord
from services.archive.artifact_key import LOG_PATHS
from shoal.model import Artifact, JobState, PipelineState, Reason, ReasonCode
from shoal.names import AttemptRef
from shoal.session.messages import Fenced
from shoal.session.observation import Observation


@dataclass(eq=False)
class Observations(MachinePart):
    """Moves jobs on as their agents observe them; what is stale is fenced."""

    _sources: Sources
    _scales: Scales
    _outcomes: Outcomes
    _news: JobNews
    _dashboard: Dashboard

    def take(self, event: events.Observed) -> tuple[Fenced, ...] | SessionEndedError:
        """Take what an agent says in its session; returns what is stale of it."""
        node = self._situation.heard(event.node, event.session_id)
        if node is None:
            return SessionEndedError(f"this session of node {event.node} is over: dial again")
        return self.observe_all(node, () if node.quarantine else event.observations)

    def observe_all(
        self, node: NodeRecord, observations: Sequence[Observation]
    ) -> tuple[Fenced, ...]:
        """Take observations in their order; returns those that are stale."""
        answers = [self.observe(node, one) for one in observations]
        return tuple(fenced for fenced in answers if fenced is not None) if any(answers) else ()

    def observe(self, node: NodeRecord, seen: Observation) -> Fenced | None:
        """Take one observation; says why if it is stale."""
        job = self._cluster.job(seen.ref)
        if job is None:
            return Fenced(seen.ref, f"there is no {seen.ref.job_ref.name}")
        attempt = job.attempt
        if attempt is not None and attempt.ref == seen.ref and attempt.node == node.name:
            # Recorded as it moves on.
            attempt.ended_inputs = seen.ended_inputs or attempt.ended_inputs
            attempt.stages = seen.stages or attempt.stages
            pipeline = self._situation.pipeline_of(job)
            self._dashboard.observed(pipeline, attempt, seen)
            self.advance(pipeline, job, seen)
            self._take_holds(pipeline, attempt, seen)
            return None
        for old in job.attempts:
            # What was committed is said again because the answer was lost: that is no intruder.
            if old.ref == seen.ref and old.node == node.name and old.state in lifecycle.ENDED:
                if seen.state is old.state or seen.state not in lifecycle.ENDED:
                    self._take_logs(job, old, seen)
                    return None
                break
        return Fenced(
            seen.ref,
            f"{seen.ref.name} with epoch {seen.ref.epoch} on node {node.name} is stale: "
            f"the job is {job.state.name} with epoch {job.epoch}",
        )

    def _take_logs(self, job: JobRecord, attempt: AttemptRecord, seen: Observation) -> None:
        """Record where the logs are of an attempt that did not succeed: they come after its end."""
        logs = tuple(one for one in seen.artifacts if one.path in LOG_PATHS)
        committed = job.manifest is not None and job.manifest.attempt == attempt.ref
        late = seen.state is attempt.state and attempt.state is not JobState.SUCCEEDED
        if not late or not logs or attempt.artifacts or committed:
            return
        if not _artifact_problem(attempt.ref, logs):
            attempt.artifacts = logs
            self._change.attempt(attempt)
            self._change.show_job(self._situation.pipeline_of(job), job)

    def advance(self, pipeline: PipelineRecord, job: JobRecord, seen: Observation) -> None:
        """Move the current attempt of a job and the job on."""
        attempt = job.attempt
        if attempt is None or not lifecycle.grows(attempt.state, seen.state):
            return  # a repetition
        before = attempt.state
        attempt.start_time = seen.start_time or attempt.start_time
        if seen.state is JobState.SUCCEEDED:
            problem = _artifact_problem(attempt.ref, seen.artifacts)
            if problem:
                self._outcomes.fail(attempt, Reason(ReasonCode.ARCHIVE, 0, problem), seen.end_time)
            else:
                self._outcomes.succeed(pipeline, job, attempt, seen)
        elif seen.state is JobState.FAILED:
            self._outcomes.fail(attempt, seen.reason, seen.end_time, _archived(attempt, seen))
        elif seen.state is JobState.CANCELLED:
            self._outcomes.cancelled(attempt, seen, _archived(attempt, seen))
        elif seen.state is JobState.LOST:
            self._outcomes.lose(attempt, seen.reason.message or "its agent lost it")
        else:
            self._outcomes.taken_up(attempt)
            attempt.move(seen.state)
            job.move(seen.state)
            if (before, seen.state) != (JobState.ASSIGNED, JobState.PREPARING):
                job.progress = ""  # it was about the state before
            self._change.attempt(attempt)
            self._change.show_job(pipeline, job)
            node = self._cluster.nodes[attempt.node]
            if seen.state in lifecycle.STARTED and before not in lifecycle.STARTED:
                self._started(pipeline, job, attempt, node)
            if before in lifecycle.CLAIMING and seen.state not in lifecycle.CLAIMING:
                self._situation.room_grew = True
                self._change.show_node(node)

    def _take_holds(
        self, pipeline: PipelineRecord, attempt: AttemptRecord, seen: Observation
    ) -> None:
        """Record how far the outputs of an attempt are that stand still, and act on all of them."""
        if (
            seen.holds
            and attempt.holds != seen.holds
            and self._situation.job(attempt).attempt is attempt
        ):
            attempt.holds = seen.holds
            self._change.attempt(attempt)
            self._sources.end(pipeline)
        if pipeline.holding is not None:  # an end may be what it waits for no longer
            self._scales.try_to_settle(pipeline, pipeline.holding)

    def _started(
        self, pipeline: PipelineRecord, job: JobRecord, attempt: AttemptRecord, node: NodeRecord
    ) -> None:
        if pipeline.spec.bundle_digest:
            node.bundles |= {pipeline.spec.bundle_digest}
            self._cluster.prefetch_changed |= pipeline.spec.prefetch
        self._situation.job_event(job, "running")
        self._news.runs(job, attempt)
        if pipeline.state is PipelineState.QUEUED:
            pipeline.state = PipelineState.RUNNING
            self._change.pipeline(pipeline)
            self._change.outbox(outbox_rows.pipeline_event(pipeline, self._situation.wall_time))

    def progress(self, event: events.Progressed) -> None:
        """Take counters and words of an attempt; stale ones are ignored."""
        node = self._situation.heard(event.node, event.session_id)
        said = event.progress
        job = self._cluster.job(said.ref)
        if node is None or node.quarantine or job is None or job.attempt is None:
            return
        if job.attempt.ref != said.ref or job.attempt.node != node.name:
            return
        # An agent that sends words alone does not know the streams.
        if said.streams:
            job.streams = said.streams
            self._news.progressed(job, job.attempt)
        job.progress = said.text
        pipeline = self._situation.pipeline_of(job)
        self._change.show_job(pipeline, job)
        self._sources.end(pipeline)


def _archived(attempt: AttemptRecord, seen: Observation) -> Sequence[Artifact]:
    """What an attempt that did not succeed has in the archive."""
    return () if _artifact_problem(attempt.ref, seen.artifacts) else seen.artifacts


def _artifact_problem(ref: AttemptRef, artifacts: Sequence[Artifact]) -> str:
    """What is wrong with a list of artifacts: an attempt may only write under its own prefix."""
    paths: set[str] = set()
    for artifact in artifacts:
        if not artifact.key.startswith(f"{ref.prefix}/"):
            return f"artifact {artifact.path} has key {artifact.key!r} outside {ref.prefix}/"
        if artifact.path in paths:
            return f"artifact {artifact.path} is listed twice"
        if len(artifact.sha256) != 64:
            return f"artifact {artifact.path} has no SHA-256: {artifact.sha256!r}"
        paths.add(artifact.path)
    return ""
