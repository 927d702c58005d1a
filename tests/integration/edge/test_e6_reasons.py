"""Case E6: each reason for which an attempt fails, made to happen on a real agent."""

import os
import signal
from pathlib import Path

import pytest

from shoal.model import JobState
from shoal.names import AttemptRef
from shoal.spec import Environment, FileInput, Job, PipStep
from tests.integration.agent.board import Board, board
from tests.kit.agent_process import AgentProcess
from tests.kit.memory_group import memory_group
from tests.kit.object_server import ObjectServer
from tests.kit.scripted_controller import ScriptedController
from tests.kit.small_disk import small_disk

__all__ = ["board"]

FILLS = "with open('big', 'wb') as f:\n    while True: f.write(b'x' * 65536)"
TAKES_MEMORY = "print('begun', flush=True); held = [b'x' * (8 << 20) for _ in range(64)]"


def python(name: str, code: str) -> Job:
    """A job that runs a line of Python."""
    return Job(name, ("python3", "-c", code))


async def reason(board: Board, ref: AttemptRef) -> tuple[str, int, str]:
    """Why an attempt failed, once it has."""
    assert await board.end(ref, 60) is JobState.FAILED
    return board.controller.reason(ref)


async def test_exit_says_the_status_and_the_last_words(board: Board) -> None:
    ref = board.run(python("exits", "raise SystemExit('the model is missing')"))
    code, number, message = await reason(board, ref)
    assert (code, number) == ("EXIT", 1)
    assert "the model is missing" in message


async def test_a_memory_error_of_python_is_an_exit(board: Board) -> None:
    """Nothing was killed: the program was refused memory, and ended by itself."""
    code, number, message = await reason(board, board.run(python("greedy", "b'x' * (1 << 60)")))
    assert (code, number) == ("EXIT", 1)
    assert "MemoryError" in message


async def test_signal_says_which_and_a_kill_by_a_person_is_no_lack_of_memory(board: Board) -> None:
    ref = board.run(Job("stands", ("sleep", "600")))
    await board.state(ref, JobState.RUNNING)
    [pid] = [pid for pid in board.agent.processes() if command(pid)[1:] == ["600"]]
    os.kill(pid, signal.SIGKILL)
    assert (await reason(board, ref))[:2] == ("SIGNAL", 9)
    ref = board.run(Job("crashes", ("sh", "-c", "kill -SEGV $$")))
    assert (await reason(board, ref))[:2] == ("SIGNAL", 11)


async def test_timeout_says_after_how_long(board: Board) -> None:
    ref = board.run(Job("slow", ("sleep", "600"), timeout_seconds=0.5, grace_seconds=0.1))
    code, _, message = await reason(board, ref)
    assert code == "TIMEOUT"
    assert "0.5 s" in message


async def test_install_has_the_words_of_the_installer(board: Board) -> None:
    job = Job(
        "needs",
        ("true",),
        environment=Environment(steps=(PipStep(("--no-index", "no-such-package")),)),
    )
    code, _, message = await reason(board, board.run(job))
    assert code == "INSTALL"
    assert "no-such-package" in message


async def test_fetch_names_the_input_and_what_its_store_said(board: Board) -> None:
    job = Job("fetches", ("true",), files=(FileInput("model", "k", "model.bin"),))
    ref = board.run(job, file_urls={"model": board.objects.url("nothing-there")})
    code, _, message = await reason(board, ref)
    assert code == "FETCH"
    assert "404" in message


async def test_artifact_checksum_names_both_before_any_code_runs(board: Board) -> None:
    _, url = board.objects.add(b"a byte was flipped", "model")
    job = Job("checks", ("touch", "results/ran"), files=(FileInput("m", "k", "m", "0" * 64),))
    ref = board.run(job, file_urls={"m": url})
    code, _, message = await reason(board, ref)
    assert code == "ARTIFACT_CHECKSUM"
    assert "0" * 64 in message
    assert JobState.RUNNING not in board.controller.states(ref)


async def test_disk_is_said_of_a_program_that_found_no_room() -> None:
    async with ObjectServer() as objects, ScriptedController(objects) as controller:
        agent = AgentProcess(controller.address)
        with small_disk(agent.state, "64m"):
            async with agent:
                found = Board(objects, controller, agent)
                await found.connected()
                code, _, message = await reason(found, found.run(python("fills", FILLS)))
                assert code == "DISK", (code, message)
                assert "write less" in message


@pytest.mark.parametrize(
    "run",
    [
        ("python3", "-c", TAKES_MEMORY),
        ("sh", "-c", 'python3 -c "$0"; exit $?', TAKES_MEMORY),
    ],
    ids=["itself", "under a shell"],
)
async def test_oom_is_said_of_a_program_that_the_kernel_killed_for_want_of_memory(
    run: tuple[str, ...],
) -> None:
    """Then a kill by a person on the same board is a signal again."""
    with memory_group(f"shoal-test-{os.getpid()}") as group:
        async with ObjectServer() as objects, ScriptedController(objects) as controller:
            agent = AgentProcess(controller.address)
            with group.inside():
                agent.start()
            try:
                found = Board(objects, controller, agent)
                await found.connected()
                group.limit(256 << 20)
                ref = found.run(Job("hungry", run))
                code, number, message = await reason(found, ref)
                assert (code, number) == ("OOM", 0), message
                assert "killed by the kernel" in message
                assert "resources: {memory" in message
                assert controller.log(ref) == "begun\n"
                ref = found.run(Job("stands", ("sleep", "601")))
                await found.state(ref, JobState.RUNNING)
                [pid] = [pid for pid in agent.processes() if command(pid)[1:] == ["601"]]
                os.kill(pid, signal.SIGKILL)
                assert (await reason(found, ref))[:2] == ("SIGNAL", 9)
            finally:
                await agent.__aexit__()


def command(pid: int) -> list[str]:
    """The words by which a process was started; none once it is gone."""
    try:
        return [word for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0") if word]
    except OSError:
        return []
