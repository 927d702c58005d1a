"""Agents of a cluster with identity, which have joined already."""

import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from services.identity.cluster_identity import ClusterIdentity
from services.identity.trust_file import write_trust
from shoal.credentials import Credentials, make_credentials, write_credentials
from shoal.identity import Identity, Role
from shoal.session.trust import Trust
from shoal.signing_request import new_key, signing_request
from tests.kit.agent_process import AgentProcess


def issue(cluster: ClusterIdentity, role: Role, name: str) -> Credentials:
    """Issue a certificate with a key of its own."""
    key = new_key()
    own = Identity(cluster.cluster, role, name)
    certificate = cluster.issue(signing_request(key, name), own)
    return make_credentials(key, certificate, cluster.bundle)


def opened_identity(state: Path) -> ClusterIdentity:
    """Open what the cluster of a controller's state folder is known by, beside that controller."""
    folder = state / "identity"
    cluster = (folder / "cluster").read_text()
    return ClusterIdentity(folder, cluster, "controller", lambda: dt.datetime.now(dt.UTC))


def trust_of(cluster: ClusterIdentity, *revoked: str) -> Trust:
    """What a cluster trusts."""
    return Trust(cluster.bundle, (cluster.signer.public_key,), revoked)


@contextlib.asynccontextmanager
async def joined_agents(
    cluster: ClusterIdentity, controller: str, names: Sequence[str], *extra: str
) -> AsyncIterator[list[AgentProcess]]:
    """Start agents of nodes, each with the label `board` of its name."""
    agents = [
        AgentProcess(controller, "--no-insecure", "--label", f"board={name}", *extra, name=name)
        for name in names
    ]
    async with contextlib.AsyncExitStack() as stack:
        for agent in agents:
            folder = agent.state / "identity"
            write_credentials(folder, issue(cluster, Role.NODE, agent.name))
            write_trust(folder, trust_of(cluster))
            await stack.enter_async_context(agent)
        yield agents
