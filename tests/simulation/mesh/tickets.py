"""The identity of the mesh: its controllers sign tickets, and its stream workers check them.

There is no TLS on links in memory, so workers check as with `--streams-security ticket`. Key and
authority are made once a process; nothing that a history decides depends on them.
"""

from functools import cache
from pathlib import Path

from control.front.lane_tickets import LaneTickets
from services.streams.worker.node_proof import NodeProof
from shoal.identity import Role
from tests.kit.identities import ProvenCluster


@cache
def mesh_cluster() -> ProvenCluster:
    """The cluster of every history."""
    return ProvenCluster("mesh")


def lane_tickets() -> LaneTickets:
    """What a controller signs tickets with."""
    return LaneTickets(mesh_cluster().signer, "mesh")


@cache
def node_proof(node: str) -> NodeProof:
    """What the stream worker of a node checks tickets with; its calls are not cut by anything."""
    cluster = mesh_cluster()
    own = cluster.credentials(Role.NODE, node)
    return NodeProof(Path("nowhere"), own, cluster.trust(), proven=False)
