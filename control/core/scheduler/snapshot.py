"""What the scheduler decides from: nodes as they are, jobs that wait, and where neighbours are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from shoal.model import NO_CAPACITY, Capacity, no_strings
from shoal.names import JobRef, PipelineRef
from shoal.node_facts import Heat
from shoal.sandbox import ASKS_NOTHING, NodeSandbox, Sandbox
from shoal.secret import SecretUse
from shoal.spec import Place, Resources


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """One node: what it has, what is claimed of it, and what is held against it.

    `suspected` means that gossip doubts it although its session lives; `refuses` is why its agent
    takes no new work, or nothing. `heat` is how much thermal headroom it has, and `features` what its
    agent can do beyond the first version. `sandbox` is what it can do to keep jobs apart, None where it does
    not tell.
    """

    name: str
    connected: bool
    drained: bool
    capacity: Capacity
    claimed: Capacity = NO_CAPACITY
    labels: Mapping[str, str] = field(default_factory=no_strings)
    bundles: frozenset[str] = frozenset()
    suspected: bool = False
    quarantine: str = ""
    refuses: str = ""
    heat: Heat = Heat.UNKNOWN
    features: frozenset[str] = frozenset()
    sandbox: NodeSandbox | None = None


@dataclass(frozen=True, slots=True)
class Resident:
    """An attempt of some pipeline that is on a node."""

    node: str
    spec_name: str


@dataclass(slots=True)
class Pending:
    """A job that waits for a node.

    Jobs of a pipeline with the same `gang` stream to each other, so they are placed together or
    not at all. `pinned_node` is where it has to go, if anywhere; nodes in `avoid` lost it before.
    `features` is what its agent has to be able to do, and `sandbox` what its node has to be able to do. `secrets`
    are those that it names, and `lacks` is why it cannot be given them now. `alone` says that its pipeline has no
    other job, so that none is near.
    """

    ref: JobRef
    spec_name: str
    gang: str
    resources: Resources
    place: Place
    bundle_digest: str = ""
    pinned_node: str = ""
    avoid: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()
    sandbox: Sandbox = ASKS_NOTHING
    secrets: tuple[SecretUse, ...] = ()
    lacks: str = ""
    alone: bool = False
    asks: str = field(default="", compare=False, repr=False)
    shape: str = field(default="", compare=False, repr=False)
    """What `plan.asked` said of it; empty where it was not asked."""


def _nobody() -> Mapping[PipelineRef, tuple[Resident, ...]]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Kept:
    """Room on a node that is kept for a job that waits for its next attempt there.

    Its neighbours run and wait for it. If one of them, or another job, were given its room meanwhile,
    it would wait for room and they for it, for ever. `pinned` jobs can go nowhere else.
    """

    job: JobRef
    node: str
    resources: Resources
    pinned: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Nodes by name, the placed attempts of each pipeline that has pending jobs, and kept rooms."""

    nodes: tuple[NodeSnapshot, ...]
    residents: Mapping[PipelineRef, tuple[Resident, ...]] = field(default_factory=_nobody)
    kept: tuple[Kept, ...] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """A decision: this job goes to that node."""

    job: JobRef
    node: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Placements in the order of the pending jobs, and for every other job why it waits.

    `never` has those of them that would find no node if nothing else ran, with a sentence that changes
    only with the nodes that there are.
    """

    placed: tuple[Placed, ...]
    waiting: Mapping[JobRef, str]
    never: Mapping[JobRef, str]
