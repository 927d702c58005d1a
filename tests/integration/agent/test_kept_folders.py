"""U8: a real agent keeps what failed and cancelled attempts wrote, within its bounds."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shoal.model import JobState
from shoal.names import AttemptRef
from shoal.spec import Job
from tests.integration.agent.board import Board
from tests.kit.agent_process import AgentProcess
from tests.kit.object_server import ObjectServer
from tests.kit.scripted_controller import ScriptedController
from tests.kit.until import until


@pytest.fixture
async def keeping() -> AsyncIterator[Board]:
    """A board that keeps 1 MiB."""
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
        AgentProcess(controller.address, "--keep-failed", "1MiB") as agent,
    ):
        found = Board(objects, controller, agent)
        await found.connected()
        yield found


def writes(name: str, end: str) -> Job:
    script = f"head -c 700000 /dev/zero > results/x; echo {name} > results/y; echo said; {end}"
    return Job(name, ("sh", "-c", script))


def kept(board: Board) -> dict[str, Any]:
    """What the agent said last that it keeps, by job."""
    return {one.attempt.split("/")[3]: one for one in board.controller.conditions[-1].kept}


async def only(board: Board, job: str) -> Path:
    """Wait until what this job wrote is all that is kept; where it is."""
    await until(lambda: set(kept(board)) == {job}, 20, f"{job} being kept alone")
    return Path(kept(board)[job].path)


async def test_u8_what_failed_or_was_cancelled_stays_for_a_while_and_the_oldest_goes_first(
    keeping: Board,
) -> None:
    board = keeping
    failed = board.run(writes("failed", "exit 3"))
    assert await board.end(failed) is JobState.FAILED
    path = await only(board, "failed")
    assert (path / "work/results/y").read_text() == "failed\n"
    assert (path / "stdout").read_text() == "said\n"
    # Another agent finds it, and says it as it introduces itself.
    sessions = board.controller.sessions
    board.agent.kill()
    board.agent.start()
    await board.connected(sessions + 1)
    assert [one.path for one in board.controller.hellos[-1].condition.kept] == [str(path)]
    # A job that succeeds leaves nothing, and one that never began neither.
    assert await board.end(board.run(writes("good", "true"))) is JobState.SUCCEEDED
    assert await board.end(board.run(Job("none", ("no-such-program",)))) is JobState.FAILED
    # There is no room for two of these.
    cancelled = board.run(writes("cancelled", "sleep 600"))
    await board.state(cancelled, JobState.RUNNING)
    await until(lambda: "said" in board.controller.log(cancelled), 20, "what it wrote")
    board.controller.stop_attempt(cancelled)
    assert await board.end(cancelled) is JobState.CANCELLED
    assert ((await only(board, "cancelled")) / "work/results/y").read_text() == "cancelled\n"
    await until(lambda: not path.exists(), 20, "the older folder being gone")
    await board.idle()


async def test_u8_an_agent_that_dies_as_it_keeps_a_folder_keeps_it_once(keeping: Board) -> None:
    board = keeping
    refs: list[AttemptRef] = []
    for number in range(3):
        refs.append(board.run(Job(f"j{number}", ("sh", "-c", "echo x > results/x; exit 1"))))
        await until(lambda: board.controller.state(refs[-1]) is JobState.FAILED, 20, "its end")
        sessions = board.controller.sessions
        board.agent.kill()
        board.agent.start()
        await board.connected(sessions + 1)
    await until(lambda: set(kept(board)) == {"j0", "j1", "j2"}, 20, "each being kept once")
    assert len(list((board.agent.state / "kept").iterdir())) == 3


async def test_u8_nothing_is_kept_where_that_is_set_so() -> None:
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
        AgentProcess(controller.address, "--keep-failed", "0") as agent,
    ):
        board = Board(objects, controller, agent)
        await board.connected()
        assert await board.end(board.run(writes("failed", "exit 3"))) is JobState.FAILED
        await board.idle()
        assert not (agent.state / "kept").exists()
