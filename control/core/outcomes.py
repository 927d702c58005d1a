"""What becomes of attempts that end, and of their jobs and pipelines."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from zlib import crc32

from control.core import lifecycle, outbox_rows
from control.core.dashboard import Dashboard
from control.core.job_news import JobNews
from control.core.machine_part import MachinePart
from control.core.placement import Placer
from control.core.rows import ManifestRow
from control.core.scales import Scales
from control.core.standing import counted
from control.core.state import AttemptRecord, JobRecord, NodeRecord, PipelineRecord
from control.core.tracing import Tracing
from services.archive.manifest import manifest_key
from shoal.backoff import Backoff
from shoal.model import NO_REASON, Artifact, DeadLetter, JobState, PipelineState, Reason, ReasonCode
from shoal.names import AttemptRef
from shoal.session.observation import Observation

_AVOID_MAX = 8

_RETRY_JITTER = 0.2
"""Which share of the wait before a retry is left to chance; it is never longer than the specification says."""


@dataclass(eq=False)
class Outcomes(MachinePart):
    """Ends attempts, tries jobs again, ends jobs and pipelines."""

    _placement: Placer
    _scales: Scales
    _news: JobNews
    _dashboard: Dashboard
    _tracing: Tracing
    _ties: Iterator[int] = field(default_factory=count, init=False)
    _retries: list[tuple[float, int, int, JobRecord]] = field(
        default_factory=list[tuple[float, int, int, JobRecord]], init=False
    )

    def deadline(self) -> float | None:
        """When a job is to be tried again."""
        return self._retries[0][0] if self._retries else None

    def taken_up(self, attempt: AttemptRecord) -> None:
        """The agent of an attempt has begun with it."""
        self._placement.taken_up(attempt)

    def succeed(
        self, pipeline: PipelineRecord, job: JobRecord, attempt: AttemptRecord, seen: Observation
    ) -> None:
        """Commit a job with the artifacts of its current attempt."""
        self._end_attempt(attempt, JobState.SUCCEEDED, NO_REASON, seen.end_time)
        job.move(JobState.SUCCEEDED)
        job.reason = NO_REASON
        self._commit_artifacts(pipeline, job, attempt.ref, seen.artifacts)
        if job.manifest is not None:
            # Before the event and the texts, which wait for the copies.
            now = self._situation.wall_time
            for row in outbox_rows.result_copies(pipeline.spec.compat, job.manifest, now):
                self._change.outbox(row)
        self._situation.job_event(job, "succeeded")
        self._dashboard.succeeded(pipeline, attempt)
        self.job_ended(pipeline, job)

    def _commit_artifacts(
        self,
        pipeline: PipelineRecord,
        job: JobRecord,
        attempt: AttemptRef,
        artifacts: Sequence[Artifact],
    ) -> None:
        """Let a job that has ended have these artifacts, all of one attempt, for good."""
        job.manifest = ManifestRow(
            key=manifest_key(job.ref),
            attempt=attempt,
            artifacts=tuple(sorted(artifacts, key=lambda one: one.path)) if artifacts else (),
            commit_time=self._situation.wall_time,
        )
        self._change.job(pipeline, job)
        self._change.manifest(job.manifest)
        # In this order the manifest can be read before its event arrives.
        self._change.outbox(outbox_rows.manifest_object(job.manifest, self._situation.wall_time))

    def fail(
        self,
        attempt: AttemptRecord,
        reason: Reason,
        end_time: datetime | None,
        kept: Sequence[Artifact] = (),
    ) -> None:
        """An attempt failed; `kept` is what it has in the archive."""
        attempt.artifacts = tuple(kept)
        self._end_attempt(attempt, JobState.FAILED, reason, end_time)
        self._go_on(attempt, reason)

    def cancelled(
        self, attempt: AttemptRecord, seen: Observation, kept: Sequence[Artifact] = ()
    ) -> None:
        """An agent ended an attempt, as it was asked to or on its own; `kept` is as in `fail`."""
        attempt.artifacts = tuple(kept)
        self._end_attempt(attempt, JobState.CANCELLED, seen.reason, seen.end_time)
        # If the controller did not ask for it, it was something at the node.
        message = seen.reason.message or f"node {attempt.node} ended it on its own"
        if attempt.moving:
            message = f"node {attempt.node} is drained, so the job goes elsewhere"
        self._go_on(attempt, Reason(ReasonCode.LOST, 0, message))

    def lose(self, attempt: AttemptRecord, why: str) -> None:
        """An attempt is gone, or given up."""
        job, reason = self._situation.job(attempt), Reason(ReasonCode.LOST, 0, why)
        self._end_attempt(attempt, JobState.LOST, reason, None)
        others = (name for name in job.avoid if name != attempt.node)
        job.avoid = (attempt.node, *others)[:_AVOID_MAX]
        self._go_on(attempt, reason)

    def _end_attempt(
        self, attempt: AttemptRecord, state: JobState, reason: Reason, end_time: datetime | None
    ) -> None:
        pipeline, node = self._situation.pipeline(attempt), self._cluster.nodes[attempt.node]
        job = pipeline.jobs[attempt.ref.job]
        attempt.move(state)
        attempt.reason = reason
        attempt.end_time = end_time or self._situation.wall_time
        self._situation.end_counts.attempt_ended(pipeline, attempt)
        if pipeline.traceparent:
            self._tracing.attempt_ended(pipeline, job, attempt)
        self._placement.taken_up(attempt)
        job.progress = ""
        job.attempt = None
        del pipeline.attempts[job.ref.job]
        self._news.forget(job, attempt)
        del node.attempts[attempt.ref]
        self._situation.room_grew = True
        self._change.attempt(attempt)
        self._change.show_node(node)
        self._change.set_desired(node.name)
        self._placement.lanes_changed(job)

    def _go_on(self, attempt: AttemptRecord, reason: Reason) -> None:
        """Queue the job of an attempt anew, or let it fail, then with what that has in the archive.

        In a pipeline that ends, the job ends as well.
        """
        pipeline, job = self._situation.pipeline(attempt), self._situation.job(attempt)
        if pipeline.stop is not None:
            self._cancel_job(pipeline, job)
            return
        job.reason = reason
        job.pending = None
        job.waiting_for = ""
        if attempt.moving and reason.code is ReasonCode.LOST:
            last, delay = False, 0.0  # a person wanted it, and it says nothing about the job
        elif reason.code in lifecycle.UNCOUNTED:
            lived = (self._situation.wall_time - job.attempts[-1].create_time).total_seconds()
            # Losses that lie far apart say nothing about the job.
            job.losses = 1 if lived > self._config.stable_seconds else job.losses + 1
            last = job.losses > self._config.losses_max
            # The first loss costs nothing; a job that is lost again and again slows down.
            delay = self._config.loss_backoff.delay_seconds(job.losses - 1, 0.0)
        else:
            job.failures += 1
            last = job.failures >= job.spec.retry.attempts
            delay = _retry_backoff(job).delay_seconds(job.failures, _chance(job))
        if last:
            self._fail_job(pipeline, job)
            return
        if delay > 0:
            job.move(JobState.RETRY_WAIT)
            job.retry_time = self._situation.wall_time + timedelta(seconds=delay)
            self.retry_at(job, self._situation.now + delay)
        else:
            self._queue_again(pipeline, job)
        self._situation.kept_rooms.keep(pipeline, job)
        self._change.job(pipeline, job)
        self._situation.job_event(job, "retry")
        self._dashboard.tried_again(pipeline, job)

    def _queue_again(self, pipeline: PipelineRecord, job: JobRecord) -> None:
        job.move(JobState.QUEUED)
        self._situation.backlog.add(job, pipeline.kind(job))
        # Those of its gang that wait already have to be looked at too.
        self._situation.room_grew = True

    def retry_at(self, job: JobRecord, at: float) -> None:
        """Try a job again at a moment, in monotonic seconds."""
        heapq.heappush(self._retries, (at, next(self._ties), job.epoch, job))

    def _fail_job(self, pipeline: PipelineRecord, job: JobRecord) -> None:
        job.move(JobState.FAILED)
        self._commit_last(pipeline, job)
        self._change.job(pipeline, job)
        self._situation.job_event(job, "failed")
        self._dashboard.failed(pipeline, job)
        self.stop(
            pipeline,
            Reason(ReasonCode.NEIGHBOUR, 0, f"job {job.ref.job} failed ({job.reason.short})"),
        )
        self.job_ended(pipeline, job)

    def _commit_last(self, pipeline: PipelineRecord, job: JobRecord) -> None:
        """Let a job that did not succeed have what its last attempt has in the archive."""
        last = job.attempts[-1] if job.attempts else None
        if last is not None and last.artifacts:
            self._commit_artifacts(pipeline, job, last.ref, last.artifacts)
            last.artifacts = ()
            self._change.attempt(last)

    def stop(self, pipeline: PipelineRecord, reason: Reason) -> None:
        """End all jobs of a pipeline: at once what runs nowhere, else by its agent."""
        if pipeline.stop is not None or pipeline.state.terminal:
            return
        pipeline.stop = reason
        self._change.pipeline(pipeline)
        if pipeline.holding is not None:
            self._scales.abandon(pipeline, pipeline.holding, "the pipeline is ending")
        for job in pipeline.jobs.values():
            attempt = job.attempt
            if attempt is None:
                if not job.ended:
                    self._cancel_job(pipeline, job)
            elif not self._situation.leases.holds(attempt.node):
                self.lose(attempt, f"node {attempt.node} is away")
            else:
                attempt.assignment = None
                self._change.set_desired(attempt.node)

    def _cancel_job(self, pipeline: PipelineRecord, job: JobRecord) -> None:
        job.move(JobState.CANCELLED)
        self._commit_last(pipeline, job)
        job.reason = pipeline.stop or Reason(ReasonCode.CANCELLED)
        job.waiting_for = ""
        job.retry_time = None
        self._news.forget(job)
        self._situation.backlog.remove(job.ref)
        self._situation.fresh.pop(job.ref, None)
        if self._situation.kept_rooms.release(job.ref) is not None:
            self._situation.room_grew = True
        self._change.job(pipeline, job)
        self._situation.job_event(job, "cancelled")
        self._dashboard.cancelled(pipeline, job)
        self.job_ended(pipeline, job)

    def job_ended(self, pipeline: PipelineRecord, job: JobRecord) -> None:
        """One more job of a pipeline has ended; the last one ends the pipeline."""
        if pipeline.traceparent:
            self._tracing.job_ended(pipeline, job)
        pipeline.open_jobs -= 1
        if pipeline.open_jobs:
            return
        pipeline.job_counts = counted([job.state for job in pipeline.jobs.values()])
        states = dict(pipeline.job_counts)
        failed = JobState.FAILED in states
        failure = outbox_rows.first_failure(pipeline.jobs.values()) if failed else None
        if failure is not None:
            pipeline.state, pipeline.reason = PipelineState.FAILED, failure
        elif JobState.CANCELLED in states:
            pipeline.state = PipelineState.CANCELLED
            pipeline.reason = pipeline.stop or Reason(ReasonCode.CANCELLED)
        else:
            pipeline.state = PipelineState.SUCCEEDED
        if pipeline.holding is not None:
            self._scales.abandon(pipeline, pipeline.holding, "the pipeline has ended")
        pipeline.end_time = self._situation.wall_time
        self._situation.end_counts.pipelines[pipeline.state] += 1
        pipeline.prefetched = None
        self._cluster.prefetch_changed |= pipeline.ref in self._cluster.prefetching
        self._change.pipeline(pipeline)
        if failure is None:
            self._situation.ended[pipeline.ref] = None
        else:
            pipeline.dead_letter = DeadLetter.KEPT
            self._situation.dead[pipeline.ref] = pipeline.end_time
        event = outbox_rows.pipeline_event(pipeline, pipeline.end_time)
        pipeline.final_event_id = event.id
        self._change.outbox(event)
        if pipeline.traceparent:
            self._tracing.pipeline_ended(pipeline)
        self._situation.recent.append(pipeline.ref)
        self._situation.open -= 1
        self._situation.count_of(pipeline.creator, -1)

    def begin_retries(self) -> None:
        """Queue the jobs again whose wait is over."""
        while self._retries and self._retries[0][0] <= self._situation.now:
            _, _, epoch, job = heapq.heappop(self._retries)
            if job.state is JobState.RETRY_WAIT and job.epoch == epoch:
                job.retry_time = None
                job.waiting_for = ""
                pipeline = self._situation.pipeline_of(job)
                self._queue_again(pipeline, job)
                self._change.job(pipeline, job)


def present(node: NodeRecord) -> Iterator[AttemptRecord]:
    """The attempts on a node; losing one may end others before their turn comes."""
    for attempt in tuple(node.attempts.values()):
        if attempt.ref in node.attempts:
            yield attempt


def _retry_backoff(job: JobRecord) -> Backoff:
    retry = job.spec.retry
    first = max(retry.backoff_seconds, 0.001)
    return Backoff(first, max(retry.backoff_limit_seconds, first), jitter=_RETRY_JITTER)


def _chance(job: JobRecord) -> float:
    """A number of [0, 1) that is another one for each job and attempt: jobs that failed together come back apart.

    Drawn from their names, because a machine has no randomness.
    """
    return crc32(f"{job.ref.namespace}/{job.ref.name}/{job.number}".encode()) / (1 << 32)
