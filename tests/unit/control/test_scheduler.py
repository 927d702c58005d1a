"""The scheduler: filters that explain themselves, ranking, gangs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from control.core.scheduler.explain import explain
from control.core.scheduler.plan import plan
from control.core.scheduler.snapshot import NodeSnapshot, Pending, Resident, Snapshot
from shoal.model import Capacity
from shoal.names import JobRef, PipelineRef
from shoal.node_facts import Heat
from shoal.sandbox import Claim, NodeSandbox, Sandbox, SandboxLevel
from shoal.spec import Place, Resources, Strategy

NONE, USER, CONFINED = SandboxLevel


def node(name: str, cpus: float = 4.0, **changes: object) -> NodeSnapshot:
    made = NodeSnapshot(name, connected=True, drained=False, capacity=Capacity(cpus))
    return replace(made, **changes)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def job(name: str = "main", pipeline: str = "p", cpus: float = 1.0, **changes: object) -> Pending:
    made = Pending(
        ref=JobRef("default", pipeline, name),
        spec_name=name.rstrip("-0123456789"),
        gang=name,
        resources=Resources(cpus=cpus),
        place=Place(),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def where(nodes: list[NodeSnapshot], *jobs: Pending, **residents: list[Resident]) -> dict[str, str]:
    """Plan, and return job name to node name."""
    there = {PipelineRef("default", name): tuple(found) for name, found in residents.items()}
    made = plan(Snapshot(tuple(nodes), there), jobs)
    assert {one.job for one in made.placed} | set(made.waiting) == {one.ref for one in jobs}
    return {placed.job.job: placed.node for placed in made.placed}


def why(nodes: list[NodeSnapshot], *jobs: Pending) -> str:
    made = plan(Snapshot(tuple(nodes)), jobs)
    assert not made.placed
    (sentence,) = set(made.waiting.values())
    return sentence


def test_a_hot_node_is_last_and_a_warm_one_only_breaks_a_tie() -> None:
    cool, warm, hot = (node(f"n{heat}", heat=heat) for heat in (Heat.COOL, Heat.WARM, Heat.HOT))
    assert where([hot, warm, cool], job()) == {"main": "n1"}
    assert where([hot, warm], job()) == {"main": "n2"}
    assert where([hot], job()) == {"main": "n3"}, "it is no reason to wait"
    beside = [Resident("n2", "main")] * 3
    assert where([hot, warm], job(pipeline="p"), p=beside) == {"main": "n2"}
    beside = [Resident("n1", "main")]
    assert where([warm, cool], job(pipeline="p"), p=beside) == {"main": "n2"}
    assert where([hot, cool], job(place=Place(prefer=("n3",)))) == {"main": "n3"}
    said = {one.node: one.sentence for one in explain(Snapshot((hot, warm)), job())}
    assert "but it is hot, so others go before it" in said["n3"]
    assert "it is warm" in said["n2"]


def test_a_node_can_be_required_by_its_name_unless_a_label_says_otherwise() -> None:
    """Case E1: `place.require: {node: n2}`."""
    bound = job(place=Place(require={"node": "n2"}))
    assert where([node("n1"), node("n2"), node("n3")], bound) == {"main": "n2"}
    called = [node("n1", labels={"node": "n2"}), node("n2", labels={"node": "x"})]
    assert where(called, bound) == {"main": "n1"}


@pytest.mark.parametrize(
    ("state", "wanted", "words"),
    [
        (node("n1", connected=False), job(), "not connected"),
        (node("n1", drained=True), job(), "drained"),
        (node("n1"), job(pinned_node="n2"), "pinned to n2"),
        (node("n1"), job(place=Place(require={"role": "camera"})), "it has no role"),
        (
            node("n1", labels={"role": "x"}),
            job(place=Place(require={"role": "camera"})),
            "label role=camera is required, and it has role=x",
        ),
        (
            node("n1"),
            job(place=Place(require={"node": "n2"})),
            "label node=n2 is required, and it has node=n1",
        ),
        (node("n1", claimed=Capacity(3.5)), job(), "1 cpus are needed, 0.5 of 4 free"),
        (node("n1", 1.0), job(cpus=2.0), "add a node that can, or ask for less"),
        (
            node("n1", capacity=Capacity(4.0, 100), claimed=Capacity(0.0, 60)),
            job(resources=Resources(1.0, 50)),
            "50 bytes of memory are needed, 40 of 100 free",
        ),
        (
            node("n1", capacity=Capacity(4.0, 0, ("video",)), claimed=Capacity(1.0, 0, ("video",))),
            job(resources=Resources(1.0, 0, ("video",))),
            "no free device of class video",
        ),
        (node("n1"), job(sandbox=Sandbox(USER)), "does not say which sandboxes it can do: update"),
        (
            node(
                "n1", sandbox=NodeSandbox(NONE, frozenset({NONE}), refused={USER: "it is not root"})
            ),
            job(sandbox=Sandbox(USER)),
            "the job asks for the sandbox `user`, and it can do `none` (it is not root)",
        ),
        (
            node("n1", sandbox=NodeSandbox(USER, frozenset({USER}), {Claim.CPUS: "cgroup v1"})),
            job(sandbox=Sandbox(CONFINED, enforce=frozenset({Claim.CPUS, Claim.DISK}))),
            "and it can do `user`; the job's claims of disk have to bind it, and cannot there",
        ),
    ],
)
def test_every_filter_explains_itself(state: NodeSnapshot, wanted: Pending, words: str) -> None:
    assert words in why([state], wanted)
    (verdict,) = explain(Snapshot((state,)), wanted)
    assert not verdict.feasible
    assert verdict.sentence.startswith("Node n1 is unfit: ")


def test_a_job_goes_where_its_sandbox_can_be_had() -> None:
    nodes = [
        node("n1"),
        node("n2", sandbox=NodeSandbox(NONE, frozenset({NONE}))),
        node("n3", sandbox=NodeSandbox(USER, frozenset({USER}), {Claim.MEMORY: "rlimit"})),
        node("n4", sandbox=NodeSandbox(NONE, frozenset({NONE, CONFINED}))),
    ]
    memory = frozenset({Claim.MEMORY})
    assert where(nodes, job(sandbox=Sandbox(enforce=memory))) == {"main": "n3"}
    assert where(nodes, job(sandbox=Sandbox(CONFINED))) == {"main": "n4"}
    assert where(nodes, *(job(f"a-{n}", sandbox=Sandbox(USER)) for n in range(2))) == {
        "a-0": "n3",
        "a-1": "n4",
    }
    never = plan(Snapshot(tuple(nodes)), [job(sandbox=Sandbox(CONFINED, enforce=memory))]).never
    assert len(never) == 1, "it would find no node if nothing else ran"


def test_a_gang_finds_the_nodes_of_its_sandboxes_by_search() -> None:
    """Nodes with equal room are not alike where they can do other sandboxes."""
    one = NodeSandbox(NONE, frozenset({NONE}))
    both = NodeSandbox(NONE, frozenset({NONE, CONFINED}))
    nodes = [node("n1", 1, sandbox=both), node("n2", 1, sandbox=one)]
    gang = [job("a", gang="g"), job("b", gang="g", sandbox=Sandbox(CONFINED))]
    assert where(nodes, *gang) == {"a": "n2", "b": "n1"}


def test_devices_are_counted_by_class() -> None:
    two = Capacity(4.0, 0, ("video", "video", "gpu"))
    eye = Resources(1.0, 0, ("video",))
    both = Resources(1.0, 0, ("video", "video"))
    assert where([node("n1", capacity=two)], job("a", resources=both)) == {"a": "n1"}
    placed = where([node("n1", capacity=two)], *(job(f"a{n}", resources=eye) for n in range(3)))
    assert len(placed) == 2


def test_nobody_at_all_is_said() -> None:
    assert "start an agent" in why([], job())


def test_many_reasons_are_counted_in_one_sentence() -> None:
    nodes = [node(f"n{n}", connected=False) for n in range(5)] + [node("z", drained=True)]
    assert why(nodes, job()) == (
        "on n0, n1, n2 and 2 more: its agent is not connected; on z: it is drained"
    )


def test_the_least_claimed_node_is_taken() -> None:
    nodes = [node("n1", claimed=Capacity(2.0)), node("n2"), node("n3", claimed=Capacity(1.0))]
    assert where(nodes, job()) == {"main": "n2"}


def test_equal_nodes_are_taken_by_name() -> None:
    assert where([node("b"), node("a"), node("c")], job()) == {"main": "a"}


def test_fractions_of_cores_add_up() -> None:
    nodes = [node("n1", 1.0)]
    placed = where(nodes, *(job(f"a{n}", f"p{n}", cpus=0.1) for n in range(11)))
    assert len(placed) == 10


def test_spread_keeps_replicas_then_neighbours_apart() -> None:
    nodes = [node("n1"), node("n2"), node("n3")]
    placed = where(nodes, job("d-0"), job("d-1"), job("d-2"), job("c"))
    assert sorted(placed[name] for name in ("d-0", "d-1", "d-2")) == ["n1", "n2", "n3"]
    beside = where(nodes[:2], job("d-1"), p=[Resident("n1", "d"), Resident("n2", "c")])
    assert beside == {"d-1": "n2"}, "a neighbour is better than a replica of the same job"


def test_pack_puts_them_together() -> None:
    tight = Place(strategy=Strategy.PACK)
    nodes = [node("n1"), node("n2", claimed=Capacity(1.0)), node("n3")]
    placed = where(nodes, *(job(f"d-{n}", place=tight) for n in range(4)))
    assert [placed[f"d-{n}"] for n in range(4)] == ["n2", "n2", "n2", "n1"]


def test_preferred_nodes_come_first_in_their_order() -> None:
    nodes = [node("n1"), node("n2", claimed=Capacity(2.0)), node("n3", drained=True)]
    assert where(nodes, job(place=Place(prefer=("n3", "n2", "n1")))) == {"main": "n2"}
    assert where(nodes, job(place=Place(prefer=("nobody",)))) == {"main": "n1"}


def test_a_node_with_the_bundle_is_better_than_an_idle_one() -> None:
    nodes = [node("n1"), node("n2", claimed=Capacity(3.0), bundles=frozenset({"abc"}))]
    assert where(nodes, job(bundle_digest="abc")) == {"main": "n2"}
    assert where(nodes, job(bundle_digest="xyz")) == {"main": "n1"}


def test_a_suspected_node_is_the_last_choice_but_one_that_lost_the_job() -> None:
    nodes = [node("n1"), node("n2", suspected=True), node("n3")]
    assert where(nodes, job(avoid=frozenset({"n1", "n3"}))) == {"main": "n2"}
    assert where(nodes[:1], job(avoid=frozenset({"n1"}))) == {"main": "n1"}, "there is no other"


def test_a_gang_is_placed_as_a_whole_or_not_at_all() -> None:
    gang = [job(f"d-{n}", gang="d") for n in range(3)]
    assert where([node("n1", 2.0)], *gang) == {}
    assert "3 jobs that stream to each other" in why([node("n1", 2.0)], *gang)
    assert where([node("n1", 2.0), node("n2", 1.0)], *gang).keys() == {"d-0", "d-1", "d-2"}


def test_a_gang_that_does_not_fit_leaves_no_claims_behind() -> None:
    nodes = [node("n1", 2.0)]
    gang = [job(f"d-{n}", "big", gang="d") for n in range(3)]
    assert where(nodes, *gang, job("x", "p1"), job("y", "p2")).keys() == {"x", "y"}


def test_a_gang_is_packed_if_apart_does_not_work() -> None:
    nodes = [node("n1", 2.0), node("n2", 2.0)]
    gang = [job("a", gang="g"), job("b", gang="g"), job("c", gang="g", cpus=2.0)]
    placed = where(nodes, *gang)
    assert placed["a"] == placed["b"] != placed["c"]


def test_the_constrained_jobs_of_a_gang_go_first() -> None:
    nodes = [node("n1", 2.0), node("n2", 2.0)]
    gang = [
        job("a", gang="g"),
        job("b-0", gang="g", pinned_node="n1"),
        job("b-1", gang="g", pinned_node="n1"),
        job("c", gang="g", cpus=0.5),
    ]
    assert where(nodes, *gang) == {"a": "n2", "b-0": "n1", "b-1": "n1", "c": "n2"}


def test_a_gang_is_placed_if_there_is_any_way_at_all() -> None:
    # Neither the order of the spec nor the largest first fills 6 and 5 with 3, 3, 2, 2, 1.
    nodes = [node("n1", 6.0), node("n2", 5.0)]
    gang = [job(f"{n}-{c:g}", gang="g", cpus=c) for n, c in enumerate((2.0, 3.0, 1.0, 2.0, 3.0))]
    placed = where(nodes, *gang)
    assert len(placed) == 5
    video = Capacity(2.0, 0, ("video",))
    nodes = [node("n1", 2.0), node("n2", capacity=video), node("n3", 1.0, labels={"a": "b"})]
    gang = [
        job("x", gang="g", cpus=2.0),
        job("y", gang="g", resources=Resources(1.0, 0, ("video",))),
        job("z", gang="g", place=Place(require={"a": "b"})),
        job("w", gang="g"),
    ]
    assert where(nodes, *gang) == {"x": "n1", "y": "n2", "z": "n3", "w": "n2"}


def test_a_hopeless_gang_on_many_nodes_is_given_up() -> None:
    nodes = [node(f"n{n:03}", 1.5 + n / 1000) for n in range(200)]
    gang = [job(f"d-{n}", gang="g") for n in range(201)]
    assert where(nodes, *gang) == {}


def test_a_gang_that_could_fit_but_not_now_is_told_so() -> None:
    gang = [job(f"d-{n}", gang="d") for n in range(4)]
    sentence = why([node("n1", claimed=Capacity(2.0))], *gang)
    assert "0 of 4 free" in sentence or "not for all" in sentence
    assert "could not take" not in sentence
    assert "at the same time" not in sentence


@pytest.mark.parametrize(
    ("cpus", "memory", "words"),
    [
        (2.0, 0, "they need 8 cpus at the same time, and the 3 known nodes have 6: add a node"),
        (
            1.0,
            2 << 30,
            "they need 8 GiB at the same time, and the 3 known nodes have 3: add a node",
        ),
        (1.5, 0, "there is no way to have them (6 cpus) on the known nodes: add a node"),
    ],
)
def test_b4_a_gang_that_can_never_fit_is_told_what_it_needs_and_what_there_is(
    cpus: float, memory: int, words: str
) -> None:
    nodes = [node(name, capacity=Capacity(2.0, 1 << 30)) for name in ("n1", "n2", "n3")]
    wanted = Resources(cpus=cpus, memory_bytes=memory)
    sentence = why(nodes, *(job(f"d-{n}", gang="d", resources=wanted) for n in range(4)))
    assert sentence.startswith("4 jobs that stream to each other have to be placed together")
    assert words in sentence


def test_what_does_not_fit_does_not_stop_what_does() -> None:
    nodes = [node("n1", 2.0)]
    placed = where(nodes, job("big", "p1", cpus=3.0), job("small", "p2"))
    assert placed == {"small": "n1"}


def test_explain_ranks_the_feasible_and_counts_their_merits() -> None:
    nodes = (
        node("n1", suspected=True),
        node("n2", bundles=frozenset({"abc"})),
        node("n3", drained=True, connected=False),
        node("n4"),
    )
    there = {PipelineRef("default", "p"): (Resident("n4", "other"),)}
    wanted = job(bundle_digest="abc", avoid=frozenset({"n1"}), place=Place(prefer=("n2",)))
    verdicts = explain(Snapshot(nodes, there), wanted)
    assert [verdict.node for verdict in verdicts] == ["n2", "n4", "n1", "n3"]
    assert "preferred as number 1, has the bundle" in verdicts[0].sentence
    assert "1 job of the pipeline is there" in verdicts[1].sentence
    assert "lost there" in verdicts[2].sentence
    assert verdicts[3].sentence == ("Node n3 is unfit: its agent is not connected; it is drained.")


def test_the_plan_follows_the_ranking_that_explain_shows() -> None:
    nodes = [node(f"n{n}", claimed=Capacity(float(n % 3))) for n in range(9)]
    wanted = job(place=Place(prefer=("n7",)))
    best = explain(Snapshot(tuple(nodes)), wanted)[0]
    assert where(nodes, wanted) == {"main": best.node}
