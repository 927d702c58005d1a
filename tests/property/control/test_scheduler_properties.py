"""What holds for every plan; invariant 8 among it: no node is oversubscribed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from control.core.scheduler.explain import explain
from control.core.scheduler.filters import objection
from control.core.scheduler.plan import plan
from control.core.scheduler.room import NodeRoom
from control.core.scheduler.snapshot import Kept, NodeSnapshot, Pending, Plan, Snapshot
from shoal.model import Capacity
from shoal.names import JobRef
from shoal.spec import Place, Resources, Strategy


def _tuple(found: list[str]) -> tuple[str, ...]:
    return tuple(found)


DEVICES = st.lists(st.sampled_from(["video", "gpu"]), max_size=2).map(_tuple)
CPUS = st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0])


@st.composite
def nodes(draw: st.DrawFn) -> tuple[NodeSnapshot, ...]:
    made: list[NodeSnapshot] = []
    for index in range(draw(st.integers(0, 5))):
        capacity = Capacity(
            draw(st.sampled_from([1.0, 2.0, 4.0])), draw(st.integers(0, 4)), draw(DEVICES)
        )
        made.append(
            NodeSnapshot(
                name=f"n{index}",
                connected=draw(st.booleans()) or draw(st.booleans()),
                drained=draw(st.booleans()) and draw(st.booleans()),
                capacity=capacity,
                claimed=Capacity(draw(st.sampled_from([0.0, 0.5, 1.0]))),
                labels={"role": draw(st.sampled_from(["a", "b"]))},
                bundles=frozenset({"x"}) if draw(st.booleans()) else frozenset(),
                suspected=draw(st.booleans()),
            )
        )
    return tuple(made)


@st.composite
def pendings(draw: st.DrawFn) -> tuple[Pending, ...]:
    made: list[Pending] = []
    for index in range(draw(st.integers(0, 12))):
        pipeline = f"p{draw(st.integers(0, 4))}"
        require = {"role": draw(st.sampled_from(["a", "b"]))} if draw(st.booleans()) else {}
        made.append(
            Pending(
                ref=JobRef("default", pipeline, f"j{index}"),
                spec_name=draw(st.sampled_from(["x", "y"])),
                gang=draw(st.sampled_from(["g", "h"])),
                resources=Resources(draw(CPUS), draw(st.integers(0, 2)), draw(DEVICES)),
                place=Place(
                    require=require,
                    prefer=tuple(draw(st.lists(st.sampled_from(["n0", "n9"]), max_size=2))),
                    strategy=draw(st.sampled_from(Strategy)),
                ),
                bundle_digest=draw(st.sampled_from(["", "x"])),
                pinned_node=draw(st.sampled_from(["", "", "n1"])),
                avoid=frozenset(draw(st.lists(st.sampled_from(["n0", "n2"]), max_size=2))),
            )
        )
    return tuple(made)


def rooms_after(
    made: Plan, found: Sequence[NodeSnapshot], jobs: Sequence[Pending]
) -> dict[str, NodeRoom]:
    by_ref = {job.ref: job for job in jobs}
    rooms = {node.name: NodeRoom(node) for node in found}
    for placed in made.placed:
        rooms[placed.node].take(by_ref[placed.job].resources)
    return rooms


@given(nodes(), pendings())
@settings(max_examples=150)
def test_a_plan_oversubscribes_nobody_and_obeys_every_filter(
    found: tuple[NodeSnapshot, ...], jobs: tuple[Pending, ...]
) -> None:
    made = plan(Snapshot(found), jobs)
    for room in rooms_after(made, found, jobs).values():
        taken = any(placed.node == room.node.name for placed in made.placed)
        assert not taken or room.cpus >= -1e-6
        assert not taken or room.memory_bytes >= 0
        assert not taken or min(room.devices.values(), default=0) >= 0
    by_ref = {job.ref: job for job in jobs}
    empty = {node.name: NodeRoom(node) for node in found}
    for placed in made.placed:
        assert not objection(by_ref[placed.job], empty[placed.node])


@given(nodes(), pendings(), st.lists(st.tuples(st.sampled_from(["n0", "n1"]), CPUS), max_size=6))
@settings(max_examples=100)
def test_a_plan_leaves_what_is_kept_for_others(
    found: tuple[NodeSnapshot, ...], jobs: tuple[Pending, ...], wanted: list[tuple[str, float]]
) -> None:
    """Some of the jobs for which something is kept are to be placed now, some are not."""
    names = [*(job.ref for job in jobs[:3]), *(JobRef("b", "q", f"k{n}") for n in range(6))]
    pairs = zip(names, wanted, strict=False)
    kept = tuple(Kept(ref, node, Resources(cpus), pinned=True) for ref, (node, cpus) in pairs)
    made = plan(Snapshot(found, kept=kept), jobs)
    rooms = rooms_after(made, found, jobs)
    placed = {one.job: one.node for one in made.placed}
    for one in kept:
        if one.job not in placed and one.node in rooms:
            rooms[one.node].keep(one)
    assert all(rooms[node].cpus >= -1e-6 for node in placed.values())


@given(nodes(), pendings())
@settings(max_examples=150)
def test_every_job_is_placed_or_told_why_and_gangs_are_whole(
    found: tuple[NodeSnapshot, ...], jobs: tuple[Pending, ...]
) -> None:
    made = plan(Snapshot(found), jobs)
    placed = {one.job for one in made.placed}
    assert len(placed) == len(made.placed)
    assert placed | set(made.waiting) == {job.ref for job in jobs}
    assert not placed & set(made.waiting)
    assert all(made.waiting.values())
    gangs: defaultdict[object, Counter[bool]] = defaultdict(Counter)
    for job in jobs:
        gangs[job.ref.pipeline, job.gang][job.ref in placed] += 1
    assert all(len(count) == 1 for count in gangs.values())


@given(nodes(), pendings(), st.randoms(use_true_random=False))
def test_the_order_of_the_nodes_means_nothing(
    found: tuple[NodeSnapshot, ...], jobs: tuple[Pending, ...], random: Random
) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)
    assert plan(Snapshot(tuple(shuffled)), jobs) == plan(Snapshot(found), jobs)


@given(nodes(), pendings())
@settings(max_examples=100)
def test_a_single_job_waits_only_if_no_node_is_feasible(
    found: tuple[NodeSnapshot, ...], jobs: tuple[Pending, ...]
) -> None:
    for job in jobs:
        snapshot = Snapshot(found)
        verdicts = explain(snapshot, job)
        assert [verdict.node for verdict in verdicts if verdict.feasible] == [
            verdict.node for verdict in verdicts
        ][: sum(verdict.feasible for verdict in verdicts)]
        made = plan(snapshot, [job])
        if made.placed:
            assert made.placed[0].node == verdicts[0].node, "the plan takes the best"
        else:
            assert not any(verdict.feasible for verdict in verdicts)


@given(nodes(), pendings())
@settings(max_examples=150)
def test_a_gang_waits_only_if_there_is_no_way_to_place_it(
    found: tuple[NodeSnapshot, ...], jobs: tuple[Pending, ...]
) -> None:
    gang = [
        replace(job, ref=JobRef("default", "p", job.ref.job), gang="g")
        for job in jobs[:4]
        if job.resources.cpus < 3
    ]
    made = plan(Snapshot(found[:3]), gang)
    assert bool(made.placed) == (bool(gang) and _fits_somehow(found[:3], gang))


def _fits_somehow(found: Sequence[NodeSnapshot], gang: Sequence[Pending]) -> bool:
    """Try everything."""
    for ways in product(range(len(found)), repeat=len(gang)):
        rooms = [NodeRoom(node) for node in found]
        for job, index in zip(gang, ways, strict=True):
            if objection(job, rooms[index]):
                break
            rooms[index].take(job.resources)
        else:
            return True
    return False
