"""One look at the jobs that may find room now.

Rule: of each line of equals the first is looked at, in the order of the whole queue; once it is placed, the next
one. The first that misses stands for all behind it, so a look costs what is placed and how many kinds wait, and
not how many jobs do. Those that have room of their own (`KeptRooms`) are looked at besides.

Those behind the first of a line are told why they wait when that has changed, the first `plan_width` of them and
at most once a second: as many words would change with each job that ends else. The first one itself, if it has been
told before, is told within a second of what is free now, and at once of anything else that changed of a node: in a busy
cluster each end makes other words, more than a person can read.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import Final, Protocol

from control.core.backlog import Equals, Ticket, Waiting
from control.core.scheduler.plan import Missed, Planner
from control.core.scheduler.snapshot import Pending, Snapshot
from control.core.situation import Situation
from control.core.state import JobRecord, PipelineRecord
from shoal.names import JobRef, PipelineRef

PLACED_MAX: Final = 500
"""Most jobs of one step, about 20 ms; the rest is for the next one, and messages are taken in between."""

TELL_SECONDS: Final = 1.0
"""How often those behind the first of a line are told why they wait, at most."""


class TakesMissed(Protocol):
    """Takes down that a job found no node; `first` says that it is the first of the queue that did not."""

    def __call__(
        self, pipeline: PipelineRecord, job: JobRecord, missed: Missed, *, first: bool
    ) -> None:
        """Take it down."""
        ...


@dataclass(eq=False)
class PlanStep:
    """One plan, made of as many looks as there is room for.

    Args:
        situation: What is shared; neither its queue nor its rooms change meanwhile.
        snapshot: Makes what the plan decides from.
        told: Adds to what a job asks for what it lacks now.
        missed: Is told of each job that was looked at and found no node.
        everything: Whether all that waits has its turn, so that the first one that misses is the first of the queue.
    """

    situation: Situation
    snapshot: Callable[[], Snapshot]
    told: Callable[[Pending], Pending]
    missed: TakesMissed
    everything: bool
    cut_short: bool = field(default=False, init=False)
    """Whether more may find room than one step places."""
    tell_at: float = field(default=inf, init=False)
    """When those behind a first one may be told that they wait for something else."""

    def __post_init__(self) -> None:
        self._planner: Planner | None = None
        self._gangs: dict[tuple[PipelineRef, str], Missed] = {}
        self.placed: Mapping[JobRef, str] = {}
        """The node of each job that was placed, in order."""

    def look_at_lines(self) -> None:
        """Look at the first of each line, and go on where that is placed."""
        backlog = self.situation.backlog
        turns: list[tuple[Ticket, int, Waiting, Iterator[Waiting]]] = []
        for number, equals in enumerate(backlog.kinds()):
            equals.before, equals.missed = equals.missed, {}
            line = iter(equals)
            first = next(line)
            turns.append((first.ticket, number, first, line))
        for ref in self.situation.kept_rooms:
            if ref in backlog:
                alone = backlog[ref]
                turns.append((alone.ticket, -len(turns), alone, iter(())))
        heapq.heapify(turns)
        while turns:
            _, number, waiting, line = turns[0]
            overtakes = waiting.new and backlog.in_lines and self.placed
            if overtakes or len(self.placed) >= PLACED_MAX:
                self.cut_short = True
                return
            following = next(line, None) if self._look(waiting) else None
            if following is None:
                heapq.heappop(turns)
            else:
                heapq.heapreplace(turns, (following.ticket, number, following, line))

    def look_at(self, fresh: Mapping[JobRef, JobRecord]) -> None:
        """Look at jobs that no plan has looked at; those whose equals miss are told so at once."""
        backlog, kept = self.situation.backlog, self.situation.kept_rooms
        for waiting in sorted((backlog[ref] for ref in fresh), key=lambda one: one.ticket):
            job = waiting.job
            if job.ref in self.placed:
                continue
            known = waiting.equals.missed.get(job.ref.namespace)
            if known is None or job.ref in kept:
                if len(self.placed) >= PLACED_MAX:
                    self.cut_short = True
                    return
                self._look(waiting)
                continue
            pipeline = self.situation.cluster.pipelines[job.pipeline]
            if (job.pipeline, pipeline.topology.gangs[job.ref.job]) not in self._gangs:
                self.missed(pipeline, job, known, first=False)

    def _look(self, waiting: Waiting) -> bool:
        """Look at a job and its gang; returns whether those behind it may find room."""
        job = waiting.job
        if job.ref in self.placed:
            return True
        pipeline = self.situation.cluster.pipelines[job.pipeline]
        name = pipeline.topology.gangs[job.ref.job]
        missed = self._gangs.get((job.pipeline, name))
        if missed is None:
            gang = self._gang(pipeline, job, name)
            known = self._told_lately(waiting, gang)
            missed = self._place(pipeline, gang, known)
            if missed is None:
                return True
            first = self.everything and not self._gangs
            self._gangs[job.pipeline, name] = missed
            if missed is known:
                equals = waiting.equals
                equals.missed[job.ref.namespace] = missed
                self.tell_at = min(self.tell_at, equals.worded_at + TELL_SECONDS)
                return False
            for one in gang:
                self.missed(pipeline, one, missed, first=first and one is job)
        if missed.kept:
            return True
        self._note(waiting, missed)
        return False

    def _told_lately(self, waiting: Waiting, gang: Sequence[JobRecord]) -> Missed | None:
        """What a gang was told that is good enough for now if it misses again."""
        equals, situation = waiting.equals, self.situation
        known = equals.before.get(waiting.job.ref.namespace)
        lately = (
            known is not None
            and situation.now < equals.worded_at + TELL_SECONDS
            and equals.nodes_then == situation.change.node_changes
            and all(one.waiting_for for one in gang)
        )
        return known if lately else None

    def _gang(self, pipeline: PipelineRecord, job: JobRecord, name: str) -> Sequence[JobRecord]:
        """The jobs of a gang that wait, in the order of the queue."""
        members = pipeline.topology.members[name]
        if len(members) == 1:
            return (job,)
        backlog = self.situation.backlog
        jobs = (pipeline.jobs[member] for member in members)
        found = [backlog[one.ref] for one in jobs if one.ref in backlog]
        return [one.job for one in sorted(found, key=lambda one: one.ticket)]

    def _place(
        self, pipeline: PipelineRecord, gang: Sequence[JobRecord], known: Missed | None = None
    ) -> Missed | None:
        if self._planner is None:
            self._planner = Planner(self.snapshot())
            self.placed = self._planner.placed
        return self._planner.place([self.told(pipeline.pending(job)) for job in gang], known)

    def _note(self, waiting: Waiting, missed: Missed) -> None:
        """Keep with a line why its first one missed, and tell those behind it if that is news."""
        equals, now = waiting.equals, self.situation.now
        equals.missed[waiting.job.ref.namespace] = missed
        equals.worded_at, equals.nodes_then = now, self.situation.change.node_changes
        if missed.why == equals.told:
            return
        may_tell_at = equals.told_at + TELL_SECONDS
        if may_tell_at > now:
            self.tell_at = min(self.tell_at, may_tell_at)
            return
        equals.told, equals.told_at = missed.why, now
        self._tell(equals)

    def _tell(self, equals: Equals) -> None:
        cluster, kept = self.situation.cluster, self.situation.kept_rooms
        for waiting in islice(equals, 1, self.situation.config.plan_width):
            job = waiting.job
            pipeline = cluster.pipelines[job.pipeline]
            if job.ref in kept or job.ref in self.placed:
                continue
            missed = equals.missed.get(job.ref.namespace)
            if (
                missed is None
            ):  # what it is told may name other jobs, those of its own namespace alone
                name = pipeline.topology.gangs[job.ref.job]
                missed = self._place(pipeline, self._gang(pipeline, job, name))
                if missed is None or missed.kept:
                    continue
                equals.missed[job.ref.namespace] = missed
            if job.waiting_for != missed.why:
                self.missed(pipeline, job, missed, first=False)
