"""An agent that dies, restarts, is cut off or is told to go: jobs go on, or end, as promised."""

import os
import signal
from pathlib import Path

from edge_agent.keeper.client import KeeperClient
from shoal.model import JobState
from shoal.names import AttemptRef
from shoal.spec import Job
from tests.integration.agent.board import Board
from tests.kit.agent_process import ended
from tests.kit.bundle_archive import tar_of
from tests.kit.until import until


def waiting(name: str, gate: Path, more: str = "") -> Job:
    """A job that says its process id, and ends once a file is there."""
    script = f"echo $$ > results/pid; echo begun; until test -e {gate}; do sleep 0.05; done; {more}echo done"
    return Job(name, ("sh", "-c", script), grace_seconds=0.2)


async def pid_of(board: Board, ref: AttemptRef) -> int:
    async with KeeperClient(board.agent.state / "keeper.sock") as keeper:
        records = await keeper.list()
    return next(record.pid for record in records if f".{ref.job}." in record.attempt)


async def test_a_killed_agent_adopts_the_job_that_still_runs(board: Board) -> None:
    gate = board.agent.state / "gate"
    ref = board.run(waiting("steady", gate))
    await board.state(ref, JobState.RUNNING)
    pid = await pid_of(board, ref)
    board.agent.kill()
    board.agent.start()
    await board.connected(2)
    assert await pid_of(board, ref) == pid
    assert [observed.attempt for observed in board.controller.hellos[-1].attempts] == [ref.name]
    gate.touch()
    assert await board.end(ref) is JobState.SUCCEEDED
    assert board.artifact(ref, "results/pid").strip() == str(pid).encode()
    assert board.controller.log(ref) == "begun\ndone\n"
    await board.idle()


async def test_an_end_while_the_agent_is_dead_is_not_missed(board: Board) -> None:
    gate = board.agent.state / "gate"
    ref = board.run(waiting("unseen", gate, "echo bad >&2; exit 7; "))
    await board.state(ref, JobState.RUNNING)
    pid = await pid_of(board, ref)
    board.agent.kill()
    gate.touch()
    await until(lambda: ended(pid), 10, "the end of the program")
    board.agent.start()
    assert await board.end(ref) is JobState.FAILED
    code, number, message = board.controller.reason(ref)
    assert (code, number) == ("EXIT", 7)
    assert "bad" in message


async def test_a_job_goes_on_while_the_controller_is_away(board: Board) -> None:
    gate = board.agent.state / "gate"
    ref = board.run(waiting("remote", gate))
    await board.state(ref, JobState.RUNNING)
    pid = await pid_of(board, ref)
    await board.controller.stop()
    gate.touch()
    await until(lambda: ended(pid), 10, "the end of the program")
    await board.controller.start()
    assert await board.end(ref) is JobState.SUCCEEDED
    assert len(board.controller.hellos) == 2
    assert board.controller.log(ref) == "begun\ndone\n"


async def test_without_a_controller_the_journal_is_enough_to_begin(board: Board) -> None:
    """An agent that starts where no controller answers runs what it was told to run."""
    board.objects.away = True
    marker = board.agent.state / "ran"
    ref = board.run(Job("offline", ("sh", "-c", f"echo ran > {marker}")), tar_of({"a": "1"}))
    await board.state(ref, JobState.PREPARING)
    await until(lambda: board.objects.gets, 10, "a try to fetch the bundle")
    board.agent.kill()
    await board.controller.stop()
    board.objects.away = False
    board.agent.start()
    await until(marker.exists, 30, "the program having run")
    await board.controller.start()
    assert await board.end(ref) is JobState.SUCCEEDED


async def test_what_a_snapshot_does_not_name_is_ended_and_forgotten(board: Board) -> None:
    ref = board.run(waiting("unwanted", board.agent.state / "never"))
    await board.state(ref, JobState.RUNNING)
    pid = await pid_of(board, ref)
    await board.controller.stop()
    board.controller.wanted.clear()
    await board.controller.start()
    await until(lambda: ended(pid), 20, "the end of the program")
    await board.idle()
    assert board.controller.state(ref) is JobState.RUNNING


async def test_a_fenced_attempt_is_ended_and_forgotten(board: Board) -> None:
    ref = board.run(waiting("stale", board.agent.state / "never"))
    board.controller.fence.add(ref)
    await board.idle()
    assert ref not in board.controller.observed or not board.controller.states(ref)[-1].terminal


async def test_a_newer_epoch_waits_for_the_older_program_to_be_gone(board: Board) -> None:
    never = board.agent.state / "never"
    old = board.run(waiting("moved", never))
    await board.state(old, JobState.RUNNING)
    pid = await pid_of(board, old)
    new = board.run(Job("moved", ("sh", "-c", f"test -e /proc/{pid} && exit 9; echo alone")))
    assert await board.end(new) is JobState.SUCCEEDED
    assert not board.controller.states(old)[-1].terminal


async def test_a_keeper_that_dies_takes_its_jobs_and_the_agent_goes_on(board: Board) -> None:
    ref = board.run(waiting("orphan", board.agent.state / "never"))
    await board.state(ref, JobState.RUNNING)
    pid = await pid_of(board, ref)
    keeper = next(
        found for found in board.agent.processes() if b"edge_agent.keeper" in command(found)
    )
    os.kill(keeper, signal.SIGKILL)
    assert await board.end(ref) is JobState.LOST
    await until(lambda: ended(pid), 10, "the end of the program")
    after = board.run(Job("after", ("echo", "well")))
    assert await board.end(after) is JobState.SUCCEEDED


async def test_sigterm_ends_the_agent_alone(board: Board) -> None:
    gate = board.agent.state / "gate"
    ref = board.run(waiting("kept", gate))
    await board.state(ref, JobState.RUNNING)
    pid = await pid_of(board, ref)
    assert await board.agent.terminate() == 0, board.agent.log()
    assert not await ended(pid)
    board.agent.start()
    gate.touch()
    assert await board.end(ref) is JobState.SUCCEEDED


async def test_with_stop_jobs_nothing_is_left(board: Board) -> None:
    """E12."""
    await board.agent.terminate()
    board.agent.start("--stop-jobs")
    await board.connected(2)
    ref = board.run(waiting("brief", board.agent.state / "never"))
    await board.state(ref, JobState.RUNNING)
    assert await board.agent.terminate() == 0, board.agent.log()
    await until(lambda: not board.agent.processes(), 5, "the end of every process of the node")


async def test_down_leaves_no_process(board: Board) -> None:
    """E12."""
    ref = board.run(waiting("doomed", board.agent.state / "never"))
    await board.state(ref, JobState.RUNNING)
    code, said = await board.agent.call("--down")
    assert code == 0, said
    assert "all jobs have ended" in said
    await until(lambda: not board.agent.processes(), 5, "the end of every process of the node")


async def test_a_second_agent_on_the_same_state_is_refused(board: Board) -> None:
    code, said = await board.agent.call()
    assert code == 2
    assert "another agent runs" in said
    assert "--down" in said


async def test_an_agent_that_restarts_while_archiving_finishes(board: Board) -> None:
    board.objects.away = True
    ref = board.run(Job("held", ("sh", "-c", "echo x > results/x")))
    await board.state(ref, JobState.ARCHIVING)
    await until(lambda: board.objects.puts, 20, "a try to store")
    board.agent.kill()
    board.agent.start()
    await board.connected(2)
    board.objects.away = False
    assert await board.end(ref) is JobState.SUCCEEDED
    assert board.artifact(ref, "results/x") == b"x\n"


async def test_an_end_that_nobody_heard_is_told_again(board: Board) -> None:
    board.controller.commit_ends = False
    ref = board.run(Job("heard", ("false",)))
    assert await board.end(ref) is JobState.FAILED
    # Its end is acknowledged, so a new session need not begin with it.
    await until(lambda: board.agent.journal(ref).get("acknowledged"), 10, "the acknowledgement")
    board.agent.kill()
    board.agent.start()
    await board.connected(2)
    assert list(board.controller.hellos[-1].attempts) == []
    board.controller.remove(ref)
    await board.idle()


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it has ended since it was found
