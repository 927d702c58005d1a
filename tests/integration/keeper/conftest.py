"""A keeper in a folder of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.keeper.client import KeeperClient, KeeperGoneError, ensure_keeper
from tests.kit.until import until


@pytest.fixture
async def board(tmp_path: Path) -> AsyncIterator[Path]:
    """A folder in which a keeper runs."""
    await ensure_keeper(tmp_path / "keeper.sock", tmp_path / "keeper.log")
    yield tmp_path
    try:
        async with KeeperClient(tmp_path / "keeper.sock") as client:
            await client.shutdown()
    except KeeperGoneError:
        return
    await until(lambda: not (tmp_path / "keeper.sock").exists(), what="the keeper ended")
