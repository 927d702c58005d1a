"""What a job leaves in its folder never ends the agent, and what it made is archived or named."""

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shoal.model import JobState
from shoal.spec import Job
from tests.integration.agent.board import Board
from tests.kit.agent_process import AgentProcess
from tests.kit.nasty_tree import nasty_tree
from tests.kit.object_server import ObjectServer
from tests.kit.scripted_controller import ScriptedController
from tests.kit.until import until

ROOT = Path(__file__).parents[3]
NOBODY = 12345
AS_NOBODY = (
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
    # Or it could not read this very interpreter, wherever a developer keeps it.
    "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--",
)  # fmt: skip


def shell(name: str, script: str, *archive: str) -> Job:
    return Job(name, ("sh", "-c", script), archive=archive or ("results/**",))


def trash(board: Board) -> list[Path]:
    folder = board.agent.state / "trash"
    return list(folder.iterdir()) if folder.exists() else []


async def lives(board: Board, name: str) -> None:
    """The agent still runs jobs, and does so after a restart."""
    for more in ("", "-again"):
        ref = board.run(shell(f"{name}{more}", "echo x > results/x"))
        assert await board.end(ref) is JobState.SUCCEEDED
        assert board.agent.process is not None
        assert board.agent.process.poll() is None
        sessions = board.controller.sessions
        if not more:
            assert await board.agent.terminate() == 0
            board.agent.start()
            await board.connected(sessions + 1)


async def test_r2_a_nasty_folder_does_not_end_the_agent(board: Board) -> None:
    """Links, FIFOs, a sparse file of a TiB, depth, odd names, closed folders, a mount, and its log gone."""
    mount = "mkdir m; mount -t tmpfs none m && echo x > m/x" if os.geteuid() == 0 else "true"
    make = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; "
        "from tests.kit.nasty_tree import nasty_tree; nasty_tree(Path('nasty'), beyond=Path('/etc'))"
    )
    ref = board.run(
        shell(
            "nasty",
            f'python -c "{make}"; {mount}; echo kept > results/x; cp -a nasty/deep results/; '
            "rm ../stdout ../stderr; mkfifo ../stdout; mkdir ../stderr; exit 0",
        )
    )
    await board.state(ref, JobState.ARCHIVING)
    assert await board.end(ref, 100) is JobState.FAILED
    code, _, words = board.controller.reason(ref)
    assert code == "ARCHIVE"
    assert "'stdout' (the job's log) cannot be read: it is a FIFO" in words
    assert board.artifact(ref, "results/x") == b"kept\n"
    await board.idle()
    await until(lambda: not trash(board), 100, "an empty trash")
    await lives(board, "after")


async def test_r2_folders_that_nobody_knows_do_not_hold_up_a_start(board: Board) -> None:
    assert await board.agent.terminate() == 0
    unknown = board.agent.state / "attempts" / "default.old.job.1-1"
    nasty_tree(unknown, beyond=board.agent.state)
    sessions = board.controller.sessions
    board.agent.start()
    await board.connected(sessions + 1)
    assert board.agent.attempts() == []
    await until(lambda: not trash(board), 100, "an empty trash")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_r2_what_belongs_to_root_stays_in_the_trash_of_an_agent_that_is_not_root(
    plain_board: Board,
) -> None:
    board = plain_board
    ref = board.run(shell("given", "echo x > results/x; until [ -e theirs/x ]; do sleep 0.1; done"))
    await board.state(ref, JobState.RUNNING)
    (folder,) = (board.agent.state / "attempts").iterdir()
    theirs = folder / "work/theirs"
    theirs.mkdir()
    (theirs / "x").touch()
    assert await board.end(ref) is JobState.SUCCEEDED
    await board.idle()

    def told() -> bool:
        return "what a job left cannot be removed" in board.agent.log()

    await until(told, 30, "a word in the log")
    assert "work/theirs/x': Permission denied" in board.agent.log()
    assert [path.name for path in trash(board)[0].rglob("*")] == ["work", "theirs", "x"]
    await lives(board, "after-given")
    # The agent that was started meanwhile has tried again, and would do so once more.
    assert board.agent.log().count("what a job left cannot be removed") == 2
    # What the second attempt left may still be there, and is removed without anybody's help.
    await until(lambda: len(trash(board)) == 1, 30, "what is root's alone in the trash")
    subprocess.run(["chown", "-R", f"{NOBODY}", str(trash(board)[0])], check=True)
    assert await board.agent.terminate() == 0
    board.agent.start()
    await until(lambda: not trash(board), 30, "an empty trash")


@pytest.fixture
async def plain_board() -> AsyncIterator[Board]:
    """A board whose agent is not root, though the test is."""

    class PlainAgent(AgentProcess):
        def argv(self) -> list[str]:
            return [*AS_NOBODY, "env", f"HOME={self.state}", *super().argv()]

    async with ObjectServer() as objects, ScriptedController(objects) as controller:
        agent = PlainAgent(controller.address)
        os.chown(agent.state, NOBODY, NOBODY)
        async with agent:
            found = Board(objects, controller, agent)
            await found.connected()
            yield found


async def test_t7_a_pattern_freezes_nobody(board: Board) -> None:
    ref = board.run(
        shell(
            "stars",
            f"touch results/{'a' * 250}; echo x > results/x",
            "results/*a*a*a*a*a*a*a*a*b",
            "results/x",
        )
    )
    assert await board.end(ref, 60) is JobState.SUCCEEDED
    assert board.controller.sessions == 1
    assert [one.path for one in board.controller.observed[ref][-1].artifacts] == ["results/x"]


async def test_t7_a_sparse_giant_delays_nobody_and_can_be_cancelled(board: Board) -> None:
    giants = [
        board.run(shell(f"giant-{number}", "truncate -s 4T results/giant")) for number in range(6)
    ]
    for giant in giants:
        await board.state(giant, JobState.ARCHIVING)
    ref = board.run(shell("small", "echo x > results/x"))
    assert await board.end(ref, 60) is JobState.SUCCEEDED
    for giant in giants:
        board.controller.stop_attempt(giant)
        assert await board.end(giant, 60) is JobState.CANCELLED
    await board.idle()


async def test_k5_results_of_any_name_are_stored(board: Board) -> None:
    names = ["a\nb.txt", "tab\there", "back\\slash", "run[2024-01-15].csv", "ü ☃", "x" * 255]
    make = f"[open('results/' + name, 'w').write(name) for name in {names!r}]"
    ref = board.run(Job("names", ("python", "-c", make)))
    assert await board.end(ref) is JobState.SUCCEEDED, board.controller.reason(ref)
    for name in names:
        assert board.artifact(ref, f"results/{name}") == name.encode()
    literal = board.run(
        shell("literal", "touch 'run[2024-01-15].csv' run2.csv", "run[2024-01-15].csv")
    )
    assert await board.end(literal) is JobState.SUCCEEDED
    stored = board.controller.observed[literal][-1].artifacts
    # Its stderr names the other file, which is left where nothing archives it.
    assert [one.path for one in stored] == ["run[2024-01-15].csv", "stderr"]


async def test_k6_one_result_that_is_refused_takes_no_other_with_it(board: Board) -> None:
    board.controller.refuse_path = "results/b"
    make = 'touch results/a results/b results/c; python -c \'open(b"results/\\377", "w")\''
    ref = board.run(shell("partly", make))
    assert await board.end(ref) is JobState.FAILED
    _, _, words = board.controller.reason(ref)
    assert "'results/\\xff' cannot be archived" in words
    assert "'results/b' was granted no place by the controller: for a test" in words
    stored = board.controller.observed[ref][-1].artifacts
    assert [one.path for one in stored] == ["results/a", "results/c"]
