"""B1: a real agent says which keeper or stream worker is old, and replaces it once it is idle."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.keeper.client import KeeperClient, ensure_keeper
from edge_agent.links.stream_worker import HELPER
from shoal.model import JobState
from shoal.spec import Job, Output
from tests.integration.agent.board import Board
from tests.kit.agent_process import AgentProcess
from tests.kit.object_server import ObjectServer
from tests.kit.ports import free_port
from tests.kit.scripted_controller import ScriptedController
from tests.kit.until import until


@pytest.fixture
async def stopped(tmp_path: Path) -> AsyncIterator[Board]:
    """A board whose agent has not been started yet; packages in the test's folder come before ours."""
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
    ):
        environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
        agent = AgentProcess(controller.address, environ=environ)
        try:
            yield Board(objects, controller, agent)
        finally:
            await agent.__aexit__()


async def worker(board: Board) -> tuple[int, str]:
    """Process and `made` of the stream worker that runs."""
    async with KeeperClient(board.agent.state / "keeper.sock") as keeper:
        for one in await keeper.list():
            if one.attempt == HELPER and one.running:
                return one.pid, one.made
    return 0, ""


async def test_b1_a_changed_setting_takes_effect_once_nothing_streams(stopped: Board) -> None:
    board = stopped
    board.agent.start()
    await board.connected()
    streaming = Job("source", ("sh", "-c", "sleep 600"), outputs=(Output("out"),))
    ref = board.run(streaming)
    await board.state(ref, JobState.RUNNING)
    before, _ = await worker(board)
    port = free_port()
    assert await board.agent.terminate() == 0
    board.agent.start("--streams", f"127.0.0.1:{port}")
    await board.connected(2)

    def outdated() -> str:
        return str(board.controller.conditions[-1].outdated)

    await until(lambda: "its stream worker runs with" in outdated(), 20, "it being said")
    assert f"--streams 127.0.0.1:{port}" in outdated()
    assert "replaced once nothing streams there" in outdated()
    assert (await worker(board))[0] == before, "what streams is not ended"
    assert board.controller.state(ref) is JobState.RUNNING
    board.controller.stop_attempt(ref)
    assert await board.end(ref) is JobState.CANCELLED
    await until(lambda: not outdated(), 20, "it being replaced")
    after, made = await worker(board)
    assert after != before
    assert f"--streams 127.0.0.1:{port}" in made
    # Other nodes are told, by another Hello.
    await until(
        lambda: board.controller.hellos[-1].stream_address == f"127.0.0.1:{port}", 20, "a Hello"
    )
    again = board.run(streaming)
    await board.state(again, JobState.RUNNING)
    assert board.controller.conditions[-1].outdated == ""


async def test_b1_a_keeper_of_an_earlier_version_is_replaced_once_nothing_runs(
    stopped: Board,
) -> None:
    board = stopped
    socket = board.agent.state / "keeper.sock"
    await ensure_keeper(socket, board.agent.state / "keeper.log", version="0.0.1")
    board.agent.start()
    await board.connected()
    # One that runs as the agent finds out would be waited for; here nothing does.
    condition = board.controller.conditions

    def replaced() -> bool:
        said = condition[-1]
        return bool(said.keeper_version) and said.keeper_version != "0.0.1" and not said.outdated

    await until(replaced, 30, "the keeper being replaced")
    assert condition[-1].stream_worker_version == condition[-1].keeper_version
    log = board.agent.log()
    assert "its keeper is of version 0.0.1 and its agent of" in log
    assert await board.end(board.run(Job("after", ("true",)))) is JobState.SUCCEEDED


async def test_b1_a_program_that_runs_keeps_its_keeper(stopped: Board, tmp_path: Path) -> None:
    board = stopped
    board.agent.start()
    await board.connected()
    ref = board.run(Job("long", ("sleep", "600")))
    await board.state(ref, JobState.RUNNING)
    assert await board.agent.terminate() == 0
    upgrade = tmp_path / "sitecustomize.py"
    upgrade.write_text('import shoal.version\n\nshoal.version.VERSION = "9.9.9"\n')
    board.agent.start()
    await board.connected(2)
    await until(
        lambda: "and its agent of 9.9.9" in board.controller.conditions[-1].outdated, 20, "it"
    )
    assert board.controller.states(ref)[-1] is JobState.RUNNING
    board.controller.stop_attempt(ref)
    assert await board.end(ref) is JobState.CANCELLED
    await until(
        lambda: board.controller.conditions[-1].keeper_version == "9.9.9", 30, "the new one"
    )
    assert board.controller.conditions[-1].outdated == ""
