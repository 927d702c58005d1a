"""A cluster that cannot come up says why, and at once."""

from pathlib import Path

import pytest

from compose.child import ChildEndedError
from compose.local_cluster import LocalCluster, LocalClusterConfig


async def test_an_agent_that_ends_before_its_session_is_told_with_its_last_words(
    tmp_path: Path,
) -> None:
    config = LocalClusterConfig(
        tmp_path, agents=1, mqtt="none", labels={"": "wrong"}, insecure=True
    )
    with pytest.raises(ChildEndedError, match=r"(?s)node-1 ended before .*is not KEY=VALUE"):
        async with LocalCluster(config):
            pass
