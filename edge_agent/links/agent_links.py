"""Every link of one agent."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from edge_agent.links.disk import DiskMeter
from edge_agent.links.facts import FactsMeter
from edge_agent.links.journal import AttemptJournal
from edge_agent.links.keeper import KeeperDoor
from edge_agent.links.logs import LogsOpener
from edge_agent.links.session import HandshakeExplainer, SessionDialler, no_explanation
from edge_agent.links.stream_worker import StreamWorkerDoor
from edge_agent.links.workshop import Workshop
from edge_agent.node_identity import NodeIdentity
from shoal.sandbox import NodeSandbox
from shoal.session.trust import Trust


@dataclass(frozen=True, slots=True)
class AgentLinks:
    """All through which an agent reaches what is outside of it.

    `controllers` yields the addresses of controllers, best first, whenever they change. `cluster` is the id
    of the cluster that the node's certificate is of, empty without one; `trust` returns what it trusts now.
    `sandbox` is what the node can do to keep jobs apart.
    `identity` is that of the node, None in a cluster without; `take_gossip_keys` takes keys that seal gossip.
    """

    controllers: Callable[[], AsyncGenerator[tuple[str, ...], None]]
    dial: SessionDialler
    keeper: KeeperDoor
    stream_worker: StreamWorkerDoor
    journal: AttemptJournal
    workshop: Workshop
    disk: DiskMeter
    logs: LogsOpener
    facts: FactsMeter
    sandbox: NodeSandbox
    cluster: str = ""
    trust: Callable[[], Trust | None] = lambda: None
    identity: NodeIdentity | None = None
    take_gossip_keys: Callable[[Sequence[bytes]], None] = lambda _: None
    explain: HandshakeExplainer = no_explanation
