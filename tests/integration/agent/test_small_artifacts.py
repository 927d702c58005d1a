"""Small artifacts travel with the question where to store them, to a controller that takes them (ADR 37)."""

import hashlib
from collections.abc import AsyncIterator

import pytest

from shoal.limits import ARTIFACT_CONTENT_BYTES_MAX, ARTIFACT_CONTENTS_BYTES_MAX
from shoal.model import JobState
from shoal.names import AttemptRef
from shoal.spec import Job
from tests.integration.agent.board import Board
from tests.kit.agent_process import AgentProcess
from tests.kit.object_server import ObjectServer
from tests.kit.scripted_controller import ScriptedController
from tests.kit.until import until

LARGE = ARTIFACT_CONTENT_BYTES_MAX + 1


@pytest.fixture
async def board() -> AsyncIterator[Board]:
    """A board at a controller that takes contents."""
    async with ObjectServer() as objects, ScriptedController(objects) as controller:
        controller.takes_contents = True
        async with AgentProcess(controller.address) as agent:
            found = Board(objects, controller, agent)
            await found.connected()
            yield found


def job(script: str, **more: object) -> Job:
    """One that runs a script of sh."""
    return Job("a", ("sh", "-ec", script), **more)  # type: ignore[arg-type]


def contents(board: Board) -> int:
    """How many artifacts came with questions."""
    return sum(len(wanted.contents) for wanted in board.controller.uploads_wanted)


async def succeeds(board: Board, ref: AttemptRef) -> None:
    """Wait for a good end, of which every artifact is stored as it was told."""
    assert await board.end(ref, 60) is JobState.SUCCEEDED, board.controller.reason(ref)
    for one in board.controller.observed[ref][-1].artifacts:
        stored = board.objects.objects[one.key]
        assert (len(stored), hashlib.sha256(stored).hexdigest()) == (one.size_bytes, one.sha256)
    await board.idle()


async def test_what_is_small_needs_no_upload(board: Board) -> None:
    ref = board.run(job("echo hello; : > results/empty; echo made > results/x"))
    await succeeds(board, ref)
    assert board.objects.puts == 0
    assert board.artifact(ref, "results/x") == b"made\n"
    assert board.artifact(ref, "results/empty") == b""
    assert board.artifact(ref, "stdout") == b"hello\n"


async def test_what_is_large_is_uploaded_beside_what_is_small(board: Board) -> None:
    largest = ARTIFACT_CONTENT_BYTES_MAX
    script = f"head -c {LARGE} /dev/zero > results/b; head -c {largest} /dev/zero > results/a"
    ref = board.run(job(script))
    await succeeds(board, ref)
    assert board.objects.puts == 1
    assert contents(board) == 1


async def test_of_many_files_as_many_travel_as_fit(board: Board) -> None:
    """One question has 256 KiB of them; the others are uploaded."""
    fit = ARTIFACT_CONTENTS_BYTES_MAX // 1024
    script = f"for n in $(seq {fit + 20}); do head -c 1024 /dev/zero > results/$n; done"
    ref = board.run(job(script))
    await succeeds(board, ref)
    assert (contents(board), board.objects.puts) == (fit, 20)


async def test_what_a_failed_attempt_printed_travels_so_too(board: Board) -> None:
    ref = board.run(job("echo hello; echo gone > results/x; echo no >&2; exit 3"))
    assert await board.end(ref) is JobState.FAILED

    def kept() -> set[str]:
        return {one.path for one in board.controller.observed[ref][-1].artifacts}

    await until(lambda: kept() == {"stdout", "stderr"}, 30, "what it printed is kept")
    assert board.objects.puts == 0
    assert board.artifact(ref, "stderr") == b"no\n"


async def test_a_controller_that_could_not_store_them_grants_addresses(board: Board) -> None:
    board.controller.stores_contents = False
    ref = board.run(job("echo made > results/x"))
    await succeeds(board, ref)
    assert (contents(board), board.objects.puts) == (1, 1)


async def test_a_controller_of_before_gets_none(board: Board) -> None:
    board.controller.takes_contents = False
    await board.controller.stop()
    await board.controller.start()
    await board.connected(2)
    ref = board.run(job("echo made > results/x"))
    await succeeds(board, ref)
    assert (contents(board), board.objects.puts) == (0, 1)


async def test_an_agent_that_is_killed_before_the_answer_uploads_them(board: Board) -> None:
    """The journal has hashes and no contents."""
    board.controller.holds_grants = True
    ref = board.run(job("echo made > results/x"))
    await until(lambda: contents(board) == 1, 30, "the question")
    board.agent.kill()
    board.controller.holds_grants = False
    board.agent.start()
    await succeeds(board, ref)
    assert (contents(board), board.objects.puts) == (1, 1)


async def test_a_session_that_breaks_before_the_answer_is_asked_again(board: Board) -> None:
    board.controller.holds_grants = True
    ref = board.run(job("echo made > results/x"))
    await until(lambda: contents(board) == 1, 30, "the question")
    await board.controller.stop()
    board.controller.holds_grants = False
    await board.controller.start()
    await succeeds(board, ref)
    assert (contents(board), board.objects.puts) == (2, 0)


async def test_a_file_that_is_changed_after_it_was_hashed_is_stored_as_it_was(board: Board) -> None:
    """A program that was left behind writes on: what travels is what was read to be hashed."""
    board.controller.holds_grants = True
    ref = board.run(job("echo made > results/x"))
    await until(lambda: contents(board) == 1, 30, "the question")
    [result] = (board.agent.state / "attempts").rglob("results/x")
    result.write_text("other")
    board.controller.holds_grants = False
    await board.controller.stop()
    await board.controller.start()
    await succeeds(board, ref)
    assert board.artifact(ref, "results/x") == b"made\n"
