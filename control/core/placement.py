"""Jobs get nodes: one plan for all that happened in a step."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from control.core.errors import UnknownJobError, unknown_pipeline
from control.core.job_news import JobNews
from control.core.job_secrets import JobSecrets
from control.core.machine_part import MachinePart
from control.core.scheduler.explain import explain
from control.core.scheduler.plan import plan
from control.core.scheduler.snapshot import NodeSnapshot, Pending, Snapshot
from control.core.sources import Sources
from control.core.state import AttemptRecord, JobRecord, PipelineRecord
from control.core.views import waits_for
from shoal.model import JobState
from shoal.names import AttemptRef, JobRef, PipelineRef
from shoal.spec import Placement
from shoal.view import NodeVerdict


@dataclass(eq=False)
class Placer(MachinePart):
    """Places what waits, and sees to it that agents take it up."""

    _sources: Sources
    _news: JobNews
    _secrets: JobSecrets
    _ties: Iterator[int] = field(default_factory=count, init=False)
    _untouched: list[tuple[float, int, AttemptRecord]] = field(
        default_factory=list[tuple[float, int, AttemptRecord]], init=False
    )

    def deadline(self) -> float | None:
        """When an agent has left an assignment alone for too long."""
        return self._untouched[0][0] if self._untouched else None

    def nodes(self) -> tuple[NodeSnapshot, ...]:
        """What the scheduler has to know of every node, by name."""
        cluster = self._cluster
        return tuple(cluster.snapshot(cluster.nodes[name]) for name in sorted(cluster.nodes))

    def snapshot(self, *pipelines: PipelineRecord) -> Snapshot:
        """What the scheduler has to know to place jobs of these pipelines."""
        return Snapshot(
            self.nodes(),
            {pipeline.ref: pipeline.residents() for pipeline in pipelines},
            self._situation.kept_rooms.all(),
        )

    def told(self, job: Pending) -> Pending:
        """Return what the scheduler has to know of a job, with what it lacks of secrets now."""
        if not job.secrets:
            return job
        return replace(job, lacks=self._secrets.lack(job.ref.namespace, job.secrets))

    def place_all(self) -> None:
        """Make one plan for all jobs that may find room now."""
        everything = self._situation.room_grew or len(self._situation.fresh) >= len(
            self._situation.backlog
        )
        jobs = self._candidates()
        self._situation.room_grew = False
        self._situation.fresh = {}
        if not jobs:
            return
        pipelines = {job.ref.pipeline_ref: self._situation.pipeline_of(job.ref) for job in jobs}
        pending = [self.told(pipelines[job.ref.pipeline_ref].pending(job)) for job in jobs]
        made = plan(self.snapshot(*pipelines.values()), pending)
        for placed in made.placed:
            self.place(placed.job, placed.node)
        if made.placed and len(jobs) < len(self._situation.backlog) + len(made.placed):
            self._situation.room_grew = True  # there may be room for those that were not looked at
        # Behind the first one others may wait their turn; that they do is no news.
        first = next((job.ref for job in jobs if job.ref in made.waiting), None)
        for ref, why in made.waiting.items():
            if self._situation.kept_rooms.tried(ref):
                self._situation.room_grew = True
            job = pipelines[ref.pipeline_ref].jobs[ref.job]
            if job.waiting_for != why:
                job.waiting_for = why
                self._change.show_job(pipelines[ref.pipeline_ref], job)
            self._news.waits(job, made.never.get(ref, ""), first=everything and ref == first)

    def _candidates(self) -> list[JobRecord]:
        """Jobs that may find room now, with the rest of their gangs, in the order of the queue."""
        if self._situation.room_grew:
            self.enter()
        found = dict(self._situation.fresh)
        if self._situation.room_grew:  # else what waited before cannot have found any
            found |= {
                job.ref: job for job in self._situation.backlog.heads(self._config.plan_width)
            }
        for job in tuple(found.values()):
            pipeline = self._situation.pipeline_of(job.ref)
            if len(pipeline.jobs) > 1:
                gang = pipeline.topology.gangs[job.ref.job]
                for other in pipeline.jobs.values():
                    if (
                        other.ref in self._situation.backlog
                        and pipeline.topology.gangs[other.ref.job] == gang
                    ):
                        found[other.ref] = other
        return sorted(found.values(), key=lambda job: self._situation.backlog.ticket(job.ref))

    def enter(self) -> None:
        """Let the lines of the queue fill their windows; the next plan looks at what enters."""
        for ref in self._situation.backlog.entering(self._config.plan_width):
            self._enter(ref)

    def _enter(self, ref: PipelineRef) -> None:
        """Let a pipeline of a line enter the queue; it may have been cancelled meanwhile."""
        pipeline, backlog = self._cluster.pipeline(ref), self._situation.backlog
        waits = False
        for job in pipeline.jobs.values() if pipeline is not None else ():
            if pipeline is not None and job.state is JobState.QUEUED and job.ref not in backlog:
                backlog.add(job, pipeline.kind(job), early=True)
                self._situation.fresh[job.ref] = job
                waits = True
        if not waits:
            backlog.leave(ref)

    def place(self, ref: JobRef, name: str) -> None:
        """Begin an attempt of a job on a node."""
        pipeline, node = self._situation.pipeline_of(ref), self._cluster.nodes[name]
        job = pipeline.jobs[ref.job]
        self._situation.backlog.remove(ref)
        kept = self._situation.kept_rooms.release(ref)
        if kept is not None and kept.node != name:
            self._situation.room_grew = True
        job.move(JobState.ASSIGNED)
        job.epoch += 1
        job.number += 1
        job.waiting_for = ""
        job.streams = ()
        job.progress = ""
        if job.spec.placement is Placement.PINNED:
            job.pinned_node = name
        attempt = AttemptRecord(
            ref=AttemptRef(ref.namespace, ref.pipeline, ref.job, job.number, job.epoch),
            node=name,
            state=JobState.ASSIGNED,
            create_time=self._situation.wall_time,
        )
        job.attempt = attempt
        job.attempts.append(attempt)
        node.attempts[attempt.ref] = attempt
        self.chase(attempt)
        self._change.job(pipeline, job)
        self._change.attempt(attempt)
        self._change.show_node(node)
        self._change.set_desired(name)
        self._news.placed(job)
        self.lanes_changed(ref)
        self._sources.end(pipeline)

    def lanes_changed(self, ref: JobRef) -> None:
        """Tell the agents of a job's neighbours where it stands now."""
        pipeline = self._situation.pipeline_of(ref)
        for neighbour in pipeline.topology.neighbours[ref.job]:
            attempt = pipeline.jobs[neighbour].attempt
            if attempt is not None:
                attempt.assignment = None
                self._change.set_desired(attempt.node)
            if pipeline.jobs[neighbour].state is JobState.DRAINING:
                self._change.show_job(pipeline, pipeline.jobs[neighbour])  # which job it waits for

    def chase_untouched(self) -> None:
        """End the session of an agent that leaves an assignment alone, so that both compare."""
        while self._untouched and self._untouched[0][0] <= self._situation.now:
            _, _, attempt = heapq.heappop(self._untouched)
            if attempt.state is JobState.ASSIGNED:
                node = self._cluster.nodes[attempt.node]
                if not node.quarantine:
                    self._situation.end_session(
                        node,
                        f"node {attempt.node} did not take up {attempt.ref.name} within "
                        f"{self._config.assigned_seconds:g} s",
                    )
                self.chase(attempt)

    def chase(self, attempt: AttemptRecord) -> None:
        """Look at an assignment again after a while."""
        at = self._situation.now + self._config.assigned_seconds
        heapq.heappush(self._untouched, (at, next(self._ties), attempt))

    def explain(self, ref: JobRef) -> tuple[NodeVerdict, ...]:
        """One sentence for each node.

        Raises:
            UnknownPipelineError: There is no such pipeline.
            UnknownJobError: It has no such job.
        """
        pipeline = self._cluster.pipeline(ref.pipeline_ref)
        if pipeline is None:
            raise unknown_pipeline(ref.pipeline_ref)
        job = pipeline.jobs.get(ref.job)
        if job is None:
            raise UnknownJobError(
                f"pipeline {ref.pipeline} has no job {ref.job!r}: "
                f"its jobs are {', '.join(pipeline.jobs)}"
            )
        verdicts = explain(self.snapshot(pipeline), self.told(pipeline.pending(job)))
        return tuple(_as_it_stands(pipeline, job, verdict) for verdict in verdicts)


def _as_it_stands(pipeline: PipelineRecord, job: JobRecord, verdict: NodeVerdict) -> NodeVerdict:
    """Say what matters more than room: the job has ended, or is somewhere already."""
    attempt = job.attempt
    if job.ended:
        sentence = f"Node {verdict.node} is not asked: the job is {job.state.name} already."
        return NodeVerdict(verdict.node, feasible=False, sentence=sentence)
    if attempt is None:
        return verdict
    if attempt.node == verdict.node:
        said = waits_for(pipeline, job)
        waits = f"; {said}" if said else ""
        sentence = (
            f"Node {verdict.node} has it: attempt {attempt.ref.number} is {attempt.state.name}"
            f"{waits}."
        )
        return NodeVerdict(verdict.node, feasible=True, sentence=sentence, score=verdict.score)
    return NodeVerdict(
        verdict.node,
        feasible=verdict.feasible,
        sentence=f"{verdict.sentence} The job is on node {attempt.node}.",
        score=verdict.score,
    )
