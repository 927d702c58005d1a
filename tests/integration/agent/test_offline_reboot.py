"""A board that comes up without any network runs its jobs again, with what they were given."""

import hashlib
import os
import signal
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from shoal.model import JobState
from shoal.names import AttemptRef
from shoal.spec import Environment, FileInput, Job, PipStep
from tests.integration.agent.board import Board
from tests.kit.agent_process import ended
from tests.kit.bundle_archive import source_of, tar_of
from tests.kit.until import until

SCRIPT = """
import mine, pathlib
said = mine.VALUE + pathlib.Path("in/a").read_text() + pathlib.Path("b").read_text()
pathlib.Path("in/a").write_text("changed")
pathlib.Path("results/x").write_text(said)
"""


async def reboot(board: Board, *, controller: bool) -> None:
    """End everything as a loss of power does, and start it without the store."""
    pids = board.agent.processes()
    board.agent.kill()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        await until(lambda pid=pid: ended(pid), 10, "the end of a process")  # type: ignore[misc]
    with closing(sqlite3.connect(board.agent.state / "agent.db")) as journal, journal:
        journal.execute("UPDATE fact SET value = 'another' WHERE name = 'boot_id'")
    board.objects.away = True
    if not controller:
        await board.controller.stop()
    board.agent.start()


def results(board: Board, ref: AttemptRef) -> Path:
    """Where the result is; nothing is there while the attempt has no folder, as in a reboot."""
    folders = board.agent.state.glob(f"attempts/*.{ref.job}.*")
    return next(folders, board.agent.state / "none") / "work/results/x"


async def test_a_job_with_file_inputs_runs_again_after_a_reboot_without_network(
    board: Board,
) -> None:
    """Bundle, environment, an input with a hash and one without; a job may change what it got."""
    gate = board.agent.state / "gate"
    digest, hashed = board.objects.add(b"hash")
    _, other = board.objects.add(b"other", "b")
    job = Job(
        "a",
        ("sh", "-c", f"python main.py; until test -e {gate}; do sleep 0.05; done"),
        environment=Environment(steps=(PipStep(("-e", "libs")),)),
        files=(FileInput("a", "k", "in/a", digest), FileInput("b", "k", "b")),
    )
    bundle = tar_of({**source_of("libs", "VALUE = 'mine '\n"), "main.py": SCRIPT})
    ref = board.run(job, bundle, file_urls={"a": hashed, "b": other})
    await board.state(ref, JobState.RUNNING)
    await until(lambda: results(board, ref).exists(), 20, "its result")
    results(board, ref).unlink()
    gets = board.objects.gets
    await reboot(board, controller=False)
    await until(lambda: results(board, ref).exists(), 30, f"it again\n{board.agent.log()[-2000:]}")
    assert board.objects.gets == gets
    await board.controller.start()
    board.objects.away = False
    gate.touch()
    assert await board.end(ref) is JobState.SUCCEEDED
    assert board.artifact(ref, "results/x") == b"mine hashother"

    # Another attempt has the input with a hash without asking; one without may be another by now.
    again = board.run(
        replace(job, name="b"), bundle, file_urls={"a": "http://127.0.0.1:9/", "b": other}
    )
    board.objects.objects["b"] = b"newer"
    assert await board.end(again) is JobState.SUCCEEDED
    assert board.artifact(again, "results/x") == b"mine hashnewer"


async def test_an_input_that_was_damaged_on_the_disk_is_fetched_again(board: Board) -> None:
    digest, url = board.objects.add(b"model")
    job = Job("a", ("cat", "m"), files=(FileInput("m", "k", "m", digest),))
    refs = [board.run(job, file_urls={"m": url})]
    assert await board.end(refs[0]) is JobState.SUCCEEDED
    kept = board.agent.state / "inputs/sha256" / digest
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == digest
    kept.write_bytes(b"modem")
    refs.append(board.run(job, file_urls={"m": url}))
    assert await board.end(refs[1]) is JobState.SUCCEEDED
    assert board.artifact(refs[1], "stdout") == b"model"
