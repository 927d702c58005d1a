"""Agents as real processes join a real controller with a token, and need it never again."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from shoal.channel import USER, channel_options, open_channel
from shoal.v1 import nodes_service_pb2, nodes_service_pb2_grpc
from tests.integration.identity.test_newcomers import Cluster, running
from tests.kit.agent_process import AgentProcess
from tests.kit.until import until


class Board(AgentProcess):
    """An agent that joins."""

    def __init__(self, cluster: Cluster, *extra: str, name: str = "cam-1") -> None:
        super().__init__(
            cluster.addresses.grpc,
            "--no-insecure", "--newcomers", cluster.addresses.newcomers, *extra,
            name=name,
        )  # fmt: skip

    def take(self, word: str) -> None:
        """Put a token on the board."""
        self.token_file.write_text(f"{word}\n")
        self.token_file.chmod(0o600)

    @property
    def token_file(self) -> Path:
        return self.state / "token"

    def begin(self, *extra: str) -> None:
        self.start("--token-file", str(self.token_file), *extra)

    def said(self) -> str:
        return (self.state / "agent.log").read_text(errors="replace")


@contextlib.asynccontextmanager
async def board(cluster: Cluster, *extra: str, name: str = "cam-1") -> AsyncIterator[Board]:
    one = Board(cluster, *extra, name=name)
    try:
        yield one
    finally:
        await one.__aexit__()


async def connected(cluster: Cluster, name: str = "cam-1") -> bool:
    async with open_channel(
        cluster.addresses.grpc, channel_options(USER), cluster.operator
    ) as channel:
        stub = nodes_service_pb2_grpc.NodesServiceStub(channel)
        answer = await stub.ListNodes(nodes_service_pb2.ListNodesRequest(), timeout=10)
    return any(node.connected for node in answer.nodes if node.name == name)


async def test_a_board_joins_with_a_token_that_it_needs_never_again(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, board(cluster) as cam:
        cam.take(await cluster.token())
        cam.begin()
        await until(lambda: connected(cluster), 60)
        folder = cam.state / "identity"
        files = {path.name for path in folder.iterdir()}
        assert files == {"identity.pem", "authorities.pem", "trust.json", "gossip.keyring"}
        assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
        assert folder.stat().st_mode & 0o077 == 0
        cam.token_file.unlink()
        cam.kill()
        await until(lambda: not_connected(cluster), 60)
        cam.begin()
        await until(lambda: connected(cluster), 60)


async def not_connected(cluster: Cluster) -> bool:
    return not await connected(cluster)
