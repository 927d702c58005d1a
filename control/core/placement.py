"""Jobs get nodes: one plan for all that happened in a step."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from math import inf

from control.core.errors import UnknownJobError, unknown_pipeline
from control.core.job_news import JobNews
from control.core.job_secrets import JobSecrets
from control.core.machine_part import MachinePart
from control.core.plan_step import PlanStep
from control.core.scheduler.explain import explain
from control.core.scheduler.plan import Missed
from control.core.scheduler.snapshot import NodeSnapshot, Pending, Snapshot
from control.core.sources import Sources
from control.core.state import AttemptRecord, JobRecord, PipelineRecord, Residents
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
    # By when they were last asked for, as all are given the same time, which stands still while the controller does
    # and so cannot take what an agent said; ordered, since the first ones go.
    _untouched: OrderedDict[AttemptRef, tuple[float, AttemptRecord]] = field(
        default_factory=OrderedDict[AttemptRef, tuple[float, AttemptRecord]], init=False
    )
    _tell_at: float = field(default=inf, init=False)

    def deadline(self) -> float | None:
        """When an agent has left an assignment alone for too long, or words are to be told again."""
        at = self._tell_at
        if self._untouched:
            first, _ = next(iter(self._untouched.values()))
            at = min(at, self._situation.leases.moment(first))
        return None if at == inf else at

    def nodes(self) -> tuple[NodeSnapshot, ...]:
        """What the scheduler has to know of every node, by name."""
        cluster = self._cluster
        return tuple(cluster.snapshot(cluster.nodes[name]) for name in sorted(cluster.nodes))

    def snapshot(self) -> Snapshot:
        """What the scheduler has to know to place jobs."""
        residents = Residents(self._cluster.pipelines)
        return Snapshot(self.nodes(), residents, self._situation.kept_rooms.all())

    def told(self, job: Pending) -> Pending:
        """Return what the scheduler has to know of a job, with what it lacks of secrets now."""
        if not job.secrets:
            return job
        return replace(job, lacks=self._secrets.lack(job.ref.namespace, job.secrets))

    def place_all(self) -> None:
        """Make one plan for all jobs that may find room now.

        With more room somewhere that is the first of each kind, the next one once that is placed, and so on; what
        has only just come is looked at besides, and is else all that may find room.
        """
        situation, backlog = self._situation, self._situation.backlog
        if situation.room_grew:
            self.enter()  # what enters is fresh
        grew, situation.room_grew = situation.room_grew, False
        fresh, situation.fresh = situation.fresh, {}
        if not backlog:
            return
        plan = PlanStep(
            situation,
            self.snapshot,
            self.told,
            self._take_missed,
            everything=grew or len(fresh) >= len(backlog),
        )
        if grew:
            plan.look_at_lines()
        if not plan.cut_short:
            plan.look_at(fresh)
        self._tell_at = plan.tell_at
        for ref, node in plan.placed.items():
            self.place(backlog[ref].job, node)
        if plan.cut_short or (plan.placed and backlog.in_lines):
            situation.room_grew = True
            if plan.cut_short:
                situation.fresh = {ref: job for ref, job in fresh.items() if ref in backlog}

    def _take_missed(
        self, pipeline: PipelineRecord, job: JobRecord, missed: Missed, *, first: bool
    ) -> None:
        if self._situation.kept_rooms.tried(job.ref):
            self._situation.room_grew = True
        if job.waiting_for != missed.why:
            job.waiting_for = missed.why
            self._change.show_job(pipeline, job)
        self._news.waits(job, missed.never, first=first)

    def tell_again(self) -> None:
        """Look at the whole queue again, once those behind the first ones may be told why they wait."""
        if self._tell_at <= self._situation.now:
            self._tell_at = inf
            self._situation.room_grew = True

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

    def place(self, job: JobRecord, name: str) -> None:
        """Begin an attempt of a job on a node."""
        pipeline, node = self._situation.pipeline_of(job), self._cluster.nodes[name]
        ref = job.ref
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
        job.attempt = pipeline.attempts[ref.job] = attempt
        job.attempts.append(attempt)
        node.attempts[attempt.ref] = attempt
        self.chase(attempt)
        self._change.show_job(pipeline, job)
        self._change.attempt(attempt)
        self._change.show_node(node)
        self._change.set_desired(name)
        self._news.placed(job)
        self.lanes_changed(job)
        self._sources.end(pipeline)

    def lanes_changed(self, job: JobRecord) -> None:
        """Tell the agents of a job's neighbours where it stands now."""
        pipeline = self._situation.pipeline_of(job)
        for neighbour in pipeline.topology.neighbours[job.ref.job]:
            attempt = pipeline.jobs[neighbour].attempt
            if attempt is not None:
                attempt.assignment = None
                self._change.set_desired(attempt.node)
            if pipeline.jobs[neighbour].state is JobState.DRAINING:
                self._change.show_job(pipeline, pipeline.jobs[neighbour])  # which job it waits for

    def chase_untouched(self) -> None:
        """End the session of an agent that leaves an assignment alone, so that both compare."""
        while self._untouched:
            at, attempt = next(iter(self._untouched.values()))
            if at > self._situation.leases.listened(self._situation.now):
                return
            self.taken_up(attempt)
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
        listened = self._situation.leases.listened(self._situation.now)
        at = listened + self._config.assigned_seconds
        self._untouched[attempt.ref] = (at, attempt)

    def taken_up(self, attempt: AttemptRecord) -> None:
        """Look at an assignment no more: its agent has taken it up, or it has ended."""
        self._untouched.pop(attempt.ref, None)

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
        verdicts = explain(self.snapshot(), self.told(pipeline.pending(job)))
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
