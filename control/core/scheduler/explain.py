"""One sentence a node: why a job could or could not be placed there."""

from __future__ import annotations

from collections import Counter

from control.core.scheduler.filters import objections
from control.core.scheduler.plan import free
from control.core.scheduler.ranking import base_score, own_score
from control.core.scheduler.room import NodeRoom
from control.core.scheduler.snapshot import Pending, Snapshot
from shoal.node_facts import Heat
from shoal.view import NodeVerdict


def explain(snapshot: Snapshot, job: Pending) -> tuple[NodeVerdict, ...]:
    """Return a verdict on each node, the best first, then the unfit by name."""
    there: dict[str, Counter[str]] = {}
    for resident in snapshot.residents.get(job.ref.pipeline_ref, ()):
        there.setdefault(resident.node, Counter())[resident.spec_name] += 1
    verdicts: list[NodeVerdict] = []
    for node in snapshot.nodes:
        room = NodeRoom(node)
        for kept in snapshot.kept:
            if kept.node == node.name and kept.job != job.ref:
                room.keep(kept)
        against = objections(job, room)
        if against:
            sentence = f"Node {node.name} is unfit: {'; '.join(against)}."
            verdicts.append(NodeVerdict(node.name, feasible=False, sentence=sentence))
            continue
        count = there.get(node.name, Counter[str]())
        replicas = count[job.spec_name]
        neighbours = count.total() - replicas
        score = base_score(job, room) + own_score(job, node.name, replicas, neighbours)
        sentence = f"Node {node.name} fits: {', '.join(_merits(job, room, count))}."
        verdicts.append(NodeVerdict(node.name, feasible=True, sentence=sentence, score=score))
    return tuple(sorted(verdicts, key=lambda one: (not one.feasible, -one.score, one.node)))


def _merits(job: Pending, room: NodeRoom, count: Counter[str]) -> list[str]:
    node = room.node
    said = [free(room)]
    if node.name in job.avoid:
        said.append("but an earlier attempt was lost there")
    if node.name in job.place.prefer:
        said.append(f"preferred as number {job.place.prefer.index(node.name) + 1}")
    if node.suspected:
        said.append("gossip suspects it")
    if node.heat is Heat.HOT:
        said.append("but it is hot, so others go before it")
    elif node.heat is Heat.WARM:
        said.append("it is warm")
    if count.total() == 1:
        said.append("1 job of the pipeline is there")
    elif count.total():
        said.append(f"{count.total()} jobs of the pipeline are there")
    if job.bundle_digest and job.bundle_digest in node.bundles:
        said.append("has the bundle")
    return said
