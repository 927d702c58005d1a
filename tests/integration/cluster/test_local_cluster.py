"""A cluster that cannot come up says why, and at once."""

from pathlib import Path

import pytest

from compose.child import ChildEndedError
from compose.local_cluster import LocalCluster, LocalClusterConfig
from shoal.credentials import IDENTITY_FILE


async def test_an_agent_that_ends_before_its_session_is_told_with_its_last_words(
    tmp_path: Path,
) -> None:
    config = LocalClusterConfig(
        tmp_path, agents=1, mqtt="none", labels={"": "wrong"}, insecure=True
    )
    with pytest.raises(ChildEndedError, match=r"(?s)node-1 ended before .*is not KEY=VALUE"):
        async with LocalCluster(config):
            pass


async def test_a_cluster_comes_up_again_with_more_agents(tmp_path: Path) -> None:
    """The token is for those that have not joined yet."""
    proofs: list[bytes] = []
    for agents in (1, 2):
        config = LocalClusterConfig(tmp_path, agents=agents, mqtt="none")
        async with LocalCluster(config) as cluster, cluster.client() as client:
            assert len(await client.nodes()) == agents
        proofs.append((cluster.state_of("node-1") / "identity" / IDENTITY_FILE).read_bytes())
    assert proofs[0] == proofs[1]
