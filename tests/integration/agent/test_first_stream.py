"""A real agent whose stream port is fixed starts a stream worker with the first attempt that streams."""

import contextlib
import socket
from collections.abc import AsyncIterator

from edge_agent.keeper.client import KeeperClient
from edge_agent.links.stream_worker import HELPER
from shoal.model import JobState
from shoal.spec import Job, Output
from tests.integration.agent.board import Board
from tests.kit.agent_process import AgentProcess
from tests.kit.object_server import ObjectServer
from tests.kit.ports import accepts, free_port
from tests.kit.scripted_controller import ScriptedController
from tests.kit.until import until

STREAMING = Job("source", ("sh", "-c", "sleep 600"), outputs=(Output("out"),))


@contextlib.asynccontextmanager
async def board(port: int) -> AsyncIterator[Board]:
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
        AgentProcess(controller.address, "--streams", f"127.0.0.1:{port}") as agent,
    ):
        found = Board(objects, controller, agent)
        await found.connected()
        yield found


async def worker(board: Board) -> int:
    """Process of the stream worker that runs; 0 for none."""
    async with KeeperClient(board.agent.state / "keeper.sock") as keeper:
        return next(
            (one.pid for one in await keeper.list() if one.attempt == HELPER and one.running), 0
        )


def told(board: Board) -> str:
    """Where the controller was told last that streams of this node are."""
    return board.controller.hellos[-1].stream_address


async def test_a_node_without_streams_has_no_stream_worker() -> None:
    port = free_port()
    async with board(port) as node:
        assert told(node) == f"127.0.0.1:{port}"
        ref = node.run(Job("plain", ("true",)))
        assert await node.end(ref) is JobState.SUCCEEDED
        await node.idle()
        assert not await worker(node)
        assert not accepts(port)

        ref = node.run(STREAMING)
        await node.state(ref, JobState.RUNNING)
        first = await worker(node)
        assert first
        await until(lambda: accepts(port))
        # The controller hears of it anew, since it looks there when a session begins.
        await until(lambda: node.controller.sessions == 2)
        assert told(node) == f"127.0.0.1:{port}"

        node.agent.kill()
        node.agent.start("--streams", f"127.0.0.1:{port}")
        await node.connected(3)
        assert await worker(node) == first
        assert node.controller.states(ref)[-1] is JobState.RUNNING


async def test_a_port_that_a_stranger_has_is_told_at_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        async with board(port) as node:
            assert told(node) == ""
            assert "jobs without streams can run" in node.agent.log()
