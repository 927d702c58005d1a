"""Placement as a function: `(snapshot, pending) -> plan`. Equal questions get equal answers.

Jobs that stream to each other (a gang) have to run at the same time, so they are placed together
or not at all: two pipelines that each held half of what they need would wait for ever. Gangs are
tried in the order of their first jobs; one that does not fit does not stop smaller ones behind it.
What is kept for a job that is tried again (`Kept`) is there for its own gang alone.

Cost: jobs of one shape share a heap of nodes, so that a placement looks at the best node and at
those where its pipeline is already, and not at all of them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, NamedTuple

from control.core.scheduler.filters import EVER, FILTERS, Filter, objection
from control.core.scheduler.ranking import base_score, own_score
from control.core.scheduler.room import NodeRoom
from control.core.scheduler.search import constrained_first, fit
from control.core.scheduler.snapshot import Kept, Pending, Placed, Plan, Snapshot
from shoal.names import JobRef, PipelineRef
from shoal.sandbox import ASKS_NOTHING, Sandbox

_Near = dict[str, dict[str, int]]
"""How many attempts of each job of a pipeline are on each node."""

_LOOK_AGAIN: Final = -math.inf
"""The score of a node of which all filters have to be asked."""

_GIB = 1 << 30
_NOBODY: Final = frozenset[str]()


@dataclass(frozen=True, slots=True)
class Missed:
    """Why a gang finds no node: one sentence for people.

    `never` is empty if empty nodes would do, and is else without what is free now. `kept` says that one of its
    jobs has room of its own, so that others that ask for the same may still find some.
    """

    why: str
    never: str = ""
    kept: bool = False


class Asked(NamedTuple):
    """What a job asks for: what all filters look at, and what the common part of the ranking looks at, too."""

    feasibility: str
    shape: str
    features: frozenset[str]


class Planner:
    """Chooses nodes for one gang after the other, from what is left of a snapshot.

    What did not fit does not fit later, so each question is answered once: a gang that asks for the same
    as one that missed is told the same.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._board = _Board(snapshot, FILTERS)
        self._empty: _Board | None = None
        self._missed: dict[tuple[object, ...], Missed] = {}
        self.placed: dict[JobRef, str] = {}
        """The node of each job that was placed, in the order in which they were."""

    def place(self, gang: Sequence[Pending], known: Missed | None = None) -> Missed | None:
        """Choose nodes for all jobs of a gang, or say why there are none: with what is known, if that will do."""
        board = self._board
        mine = board.release(gang)
        # NodeRoom only shrinks while a plan is made: what did not fit before does not fit now. What is
        # kept is said by name within a namespace, and is other room for each job for which it is.
        signature = (gang[0].ref.namespace, mine, *map(feasibility, gang))
        missed = self._missed.get(signature)
        if missed is None:
            first = board.place(gang, self.placed)
            if first is None:
                return None
            if known is not None and not mine:
                return known
            if self._empty is None:
                self._empty = _Board(self._snapshot, EVER, empty=True)
            why, never = _why(self._snapshot, gang, first, (board, self._empty))
            missed = self._missed[signature] = Missed(why, never, bool(mine))
        board.keep(mine)
        return missed


def plan(snapshot: Snapshot, pending: Sequence[Pending]) -> Plan:
    """Choose nodes for as many of the pending jobs as there is room for."""
    gangs: dict[tuple[PipelineRef, str], list[Pending]] = {}
    for job in pending:
        gangs.setdefault((job.ref.pipeline_ref, job.gang), []).append(job)
    planner = Planner(snapshot)
    waiting: dict[JobRef, str] = {}
    never: dict[JobRef, str] = {}
    for gang in gangs.values():
        missed = planner.place(gang)
        if missed is None:
            continue
        for job in gang:
            waiting[job.ref] = missed.why
            if missed.never:
                never[job.ref] = missed.never
    placed = planner.placed
    order = (Placed(job.ref, placed[job.ref]) for job in pending if job.ref in placed)
    return Plan(tuple(order), waiting, never)


def feasibility(job: Pending) -> str:
    """Return everything that the filters look at: equal jobs fit in the same places.

    As text, whose hash is taken once: all jobs of a specification have the same one.
    """
    return job.asks or asked(job).feasibility


def asked(job: Pending) -> Asked:
    """Return what a job asks for, from its fields alone."""
    asks = (job.resources, tuple(sorted(job.place.require.items())), job.pinned_node)
    # Most need none of what follows: theirs is the same in all versions.
    text = repr((*asks, *sorted(job.features), *_of_sandbox(job.sandbox), *_of_secrets(job)))
    return Asked(text, f"{text} {job.place.strategy.value} {job.bundle_digest}", job.features)


def _of_sandbox(asked: Sandbox) -> tuple[str, ...]:
    """Words, since they are written down and those of a set come in another order in each process."""
    if asked == ASKS_NOTHING:
        return ()
    return (asked.level.value, asked.network.value, *sorted(one.value for one in asked.enforce))


def _of_secrets(job: Pending) -> tuple[object, ...]:
    """A secret is its namespace's; words here, too."""
    if not job.secrets:
        return ()
    return (
        job.ref.namespace,
        *((use.variable, use.name, use.form.value) for use in job.secrets),
    )


class _Board:
    """Rooms of all nodes, and heaps over them."""

    def __init__(
        self, snapshot: Snapshot, filters: tuple[Filter, ...], *, empty: bool = False
    ) -> None:
        self.rooms = {node.name: NodeRoom(node, empty=empty) for node in snapshot.nodes}
        self._filters = filters
        self._heaps: dict[str, list[tuple[float, str]]] = {}
        self._near: dict[PipelineRef, dict[str, dict[str, int]]] = {}
        self._residents = snapshot.residents
        self._kept = {} if empty else {one.job: one for one in snapshot.kept}
        self.keep(self._kept.values())

    def release(self, gang: Sequence[Pending]) -> tuple[Kept, ...]:
        """Let the jobs of a gang have what is kept for them; return it."""
        if not self._kept:
            return ()
        mine = tuple(self._kept[job.ref] for job in gang if job.ref in self._kept)
        for kept in mine:
            if kept.node in self.rooms:
                self.rooms[kept.node].release(kept.job)
                for heap in self._heaps.values():  # it may have seemed full
                    heapq.heappush(heap, (_LOOK_AGAIN, kept.node))
        return mine

    def keep(self, kept: Iterable[Kept]) -> None:
        """Let no other job have what is kept for a job."""
        for one in kept:
            if one.node in self.rooms:
                self.rooms[one.node].keep(one)

    def place(self, gang: Sequence[Pending], placed: dict[JobRef, str]) -> Pending | None:
        """Place all jobs of a gang, or none: then return the one that did not fit.

        The spec's order and wishes first. If that leaves a job out, the most constrained go
        first, and then any way is looked for: apart is a wish, running is the point.
        """
        missed = self._place(gang, placed)
        if missed is None or len(gang) == 1:
            return missed
        order = constrained_first(gang, self.rooms, self._filters)
        if self._place(order, placed) is None:
            return None
        nodes = fit(order, self.rooms, self._filters)
        if nodes is None:
            return missed
        for job, node in zip(order, nodes, strict=True):
            self._put(job, node, placed, self._nodes_near(job))
        return None

    def has_room(self, gang: Sequence[Pending]) -> bool:
        """Whether a gang would find nodes; nothing is placed."""
        placed: dict[JobRef, str] = {}
        if self.place(gang, placed) is not None:
            return False
        for job in gang:
            self._take_back(job, placed[job.ref])
        self._heaps.clear()
        return True

    def _take_back(self, job: Pending, node: str) -> None:
        self.rooms[node].give_back(job.resources)
        if not job.alone:
            _count_near(self._nodes_near(job), job, node, -1)

    def _place(self, gang: Sequence[Pending], placed: dict[JobRef, str]) -> Pending | None:
        done: list[tuple[Pending, str]] = []
        for job in gang:
            near = self._nodes_near(job)
            node = self._best(job, near)
            if node is None:
                for earlier, where in done:
                    self._take_back(earlier, where)
                    del placed[earlier.ref]
                if done:  # nodes that seemed full have room again
                    self._heaps.clear()
                return job
            self._put(job, node, placed, near)
            done.append((job, node))
        return None

    def _put(self, job: Pending, node: str, placed: dict[JobRef, str], near: _Near) -> None:
        self.rooms[node].take(job.resources)
        if not job.alone:
            _count_near(near, job, node, 1)
        placed[job.ref] = node

    def _nodes_near(self, job: Pending) -> _Near:
        if job.alone:
            return {}
        pipeline = job.ref.pipeline_ref
        near = self._near.get(pipeline)
        if near is None:
            near = self._near[pipeline] = {}
            for resident in self._residents.get(pipeline, ()):
                there = near.setdefault(resident.node, {})
                there[resident.spec_name] = there.get(resident.spec_name, 0) + 1
        return near

    def _best(self, job: Pending, near: _Near) -> str | None:
        if not near and not job.avoid and not job.place.prefer:
            other = self._best_stranger(job, _NOBODY)
            return None if other is None else other[1]
        special = {*near, *job.avoid, *job.place.prefer}
        best: tuple[float, str] | None = None  # lower is better, then the name decides
        for name in sorted(special):
            room = self.rooms.get(name)
            if room is None or objection(job, room, self._filters):
                continue
            count = near.get(name, {})
            replicas = count.get(job.spec_name, 0)
            neighbours = sum(count.values()) - replicas
            score = base_score(job, room) + own_score(job, name, replicas, neighbours)
            best = min(best or (-score, name), (-score, name))
        other = self._best_stranger(job, special)
        chosen = best or other if best is None or other is None else min(best, other)
        return None if chosen is None else chosen[1]

    def _best_stranger(self, job: Pending, special: AbstractSet[str]) -> tuple[float, str] | None:
        """Return the best of the nodes that mean nothing particular to this job."""
        shape = job.shape or asked(job).shape
        heap = self._heaps.get(shape)
        if heap is None:
            heap = self._heaps[shape] = [
                (-base_score(job, room), name)
                for name, room in self.rooms.items()
                if not objection(job, room, self._filters)
            ]
            heapq.heapify(heap)
        aside: list[tuple[float, str]] = []
        found: tuple[float, str] | None = None
        while heap:
            stored, name = heap[0]
            room = self.rooms[name]
            # What else the filters look at is the same for the whole plan.
            fits = room.fits(job.resources)
            if not fits or (stored == _LOOK_AGAIN and objection(job, room, self._filters)):
                heapq.heappop(heap)  # room only shrinks, so it stays out
                continue
            score = -base_score(job, room)
            if score != stored:
                heapq.heapreplace(heap, (score, name))
                continue
            if name in special:
                aside.append(heapq.heappop(heap))
                continue
            found = (stored, name)
            break
        for entry in aside:
            heapq.heappush(heap, entry)
        return found


def _count_near(near: _Near, job: Pending, node: str, more: int) -> None:
    there = near.setdefault(node, {})
    there[job.spec_name] = there.get(job.spec_name, 0) + more


def _why(
    snapshot: Snapshot, gang: Sequence[Pending], missed: Pending, boards: tuple[_Board, _Board]
) -> tuple[str, str]:
    """Say in one sentence for people why a gang waits, by the job of it that found no node.

    The boards are of the nodes as they are, and of empty ones. The second sentence is empty if empty nodes would
    do, and is else without what is free now.
    """
    if not snapshot.nodes:
        why = "no node has ever connected: start an agent"
        return why, why
    lacking = next((job for job in gang if job.lacks), None)
    if lacking is not None:
        why = f"{lacking.ref.job}: {lacking.lacks}" if len(gang) > 1 else lacking.lacks
        return why, why
    rooms, empty = boards[0].rooms, boards[1]
    warning = "" if empty.has_room(gang) else _warning(snapshot, gang)
    if len(gang) == 1:
        lasting = _counted(missed, empty.rooms) if warning else ""
        return f"{_counted(missed, rooms)}{warning}", lasting
    taken: str = ""
    if any(not objection(missed, room) for room in rooms.values()):
        taken = "there is room for some of them but not for all"
    return (
        f"{len(gang)} jobs that stream to each other have to be placed together, and "
        f"{missed.ref.job} finds no node: {taken or _counted(missed, rooms)}{warning}"
    ), warning


def _warning(snapshot: Snapshot, gang: Sequence[Pending]) -> str:
    """Say of a gang that even empty nodes would not do."""
    if len(gang) == 1:
        return (
            "; even if nothing else ran, the known nodes could not take it: "
            "add a node that can, or ask for less"
        )
    return f"; {_short(gang, snapshot)}: add a node, or ask for less"


def _short(gang: Sequence[Pending], snapshot: Snapshot) -> str:
    """Say of what a gang asks for more than all nodes have together."""
    nodes = [node.capacity for node in snapshot.nodes]
    known = f"the {len(nodes)} known nodes have" if len(nodes) > 1 else "the only known node has"
    cpus = sum(job.resources.cpus for job in gang)
    if cpus > sum(node.cpus for node in nodes):
        have = sum(node.cpus for node in nodes)
        return f"they need {cpus:g} cpus at the same time, and {known} {have:g}"
    memory = sum(job.resources.memory_bytes for job in gang)
    if memory > sum(node.memory_bytes for node in nodes):
        have = sum(node.memory_bytes for node in nodes)
        return f"they need {memory / _GIB:.3g} GiB at the same time, and {known} {have / _GIB:.3g}"
    return (
        f"even if nothing else ran, there is no way to have them ({cpus:g} cpus) on the known nodes"
    )


def _counted(job: Pending, rooms: dict[str, NodeRoom]) -> str:
    said: dict[str, list[str]] = {}
    for name in sorted(rooms):
        reason = objection(job, rooms[name])
        if reason:
            said.setdefault(reason, []).append(name)
    return "; ".join(f"{_some(nodes)}: {reason}" for reason, nodes in said.items())


_NAMED_MAX = 3


def _some(nodes: Sequence[str]) -> str:
    if len(nodes) <= _NAMED_MAX:
        return f"on {', '.join(nodes)}"
    return f"on {', '.join(nodes[:_NAMED_MAX])} and {len(nodes) - _NAMED_MAX} more"


def free(room: NodeRoom) -> str:
    """Return what is free on a node, for people."""
    return f"{max(room.cpus, 0):g} of {room.node.capacity.cpus:g} cpus free"
