"""A job that may not run twice ends on this node before the controller may start it elsewhere."""

import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.keeper.client import KeeperClient
from shoal.client import Client
from shoal.model import JobState
from shoal.names import AttemptRef
from shoal.spec import FileInput, Job, Pipeline, Placement
from tests.integration.agent.board import Board
from tests.kit.agent_process import AgentProcess, ended
from tests.kit.object_server import ObjectServer
from tests.kit.running_controller import running_controller
from tests.kit.scripted_controller import ScriptedController
from tests.kit.until import until

ONCE = Job(
    "once",
    ("sh", "-c", "echo x >> $SHOAL_RESULTS/x; exec sleep 600"),
    placement=Placement.AT_MOST_ONE_RUNNING,
)


@pytest.fixture
async def leased() -> AsyncIterator[Board]:
    """A board whose lease is short."""
    async with (
        ObjectServer() as objects,
        ScriptedController(objects, heartbeat_seconds=0.2, lease_seconds=3.0) as controller,
        AgentProcess(controller.address) as agent,
    ):
        board = Board(objects, controller, agent)
        await board.connected()
        yield board


async def running(board: Board, ref: AttemptRef) -> int:
    await board.state(ref, JobState.RUNNING)
    async with KeeperClient(board.agent.state / "keeper.sock") as keeper:
        records = await keeper.list()
    return next(record.pid for record in records if f".{ref.job}." in record.attempt)


async def test_r1_a_quiet_job_runs_on_under_a_real_controller(tmp_path: Path) -> None:
    """R1: more than sixteen heartbeats, and more than two leases, in which nobody says anything."""
    lease, heartbeat = 3.0, 0.3
    async with (
        running_controller(
            tmp_path / "controller", lease_seconds=lease, heartbeat_seconds=heartbeat
        ) as controller,
        Client(controller.grpc) as client,
        AgentProcess(controller.grpc),
    ):
        name = (await client.submit(Pipeline("quiet", (ONCE,)))).pipeline.name

        async def runs() -> bool:
            return (await client.get(name)).jobs[0].state is JobState.RUNNING

        await until(runs, 30, "the job running")
        quiet_until = time.monotonic() + 2.2 * lease
        await until(lambda: time.monotonic() >= quiet_until, what="two leases of quiet")
        view = await client.get(name)
        assert [attempt.state for attempt in view.jobs[0].attempts] == [JobState.RUNNING]
        await client.cancel(name)
        await client.wait(name, deadline_seconds=30)


async def test_it_runs_on_while_the_lease_is_renewed(leased: Board) -> None:
    ref = leased.run(ONCE)
    pid = await running(leased, ref)
    before = leased.controller.heartbeats
    # Longer than the lease: twenty heartbeats of a fifth of a second each.
    await until(lambda: leased.controller.heartbeats > before + 20, 60, "twenty heartbeats")
    assert not await ended(pid)
    assert leased.controller.states(ref)[-1] is JobState.RUNNING


async def test_it_ends_when_the_controller_is_away_and_says_why(leased: Board) -> None:
    ref = leased.run(ONCE)
    other = leased.run(Job("many", ("sleep", "600")))
    pid, other_pid = await running(leased, ref), await running(leased, other)
    await leased.controller.stop()
    await until(lambda: ended(pid), 20, "the end of what may not run twice")
    assert not await ended(other_pid)
    await leased.controller.start()
    assert await leased.end(ref) is JobState.LOST
    assert "lease" in leased.controller.reason(ref)[2]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_it_ends_when_the_agent_is_dead_or_stands_still(
    leased: Board, how: signal.Signals
) -> None:
    ref = leased.run(ONCE)
    pid = await running(leased, ref)
    process = leased.agent.process
    assert process is not None
    os.kill(process.pid, how)
    await until(lambda: ended(pid), 20, "the end of what may not run twice")


async def test_it_does_not_start_without_a_lease(leased: Board) -> None:
    leased.objects.away = True
    _, url = leased.objects.add(b"model", "model")
    job = Job(ONCE.name, ONCE.run, files=(FileInput("m", "k", "m"),), placement=ONCE.placement)
    ref = leased.run(job, file_urls={"m": url})
    await until(lambda: leased.objects.gets, 20, "a try to fetch the file")
    await leased.controller.stop()
    gets = leased.objects.gets
    await until(lambda: leased.objects.gets > gets + 1, 60, "more tries")
    leased.agent.kill()
    leased.objects.away = False
    leased.agent.start()
    await until(lambda: leased.agent.journal(ref).get("phase") == "starting", 30, "its turn")
    async with KeeperClient(leased.agent.state / "keeper.sock") as keeper:
        assert [record.helper for record in await keeper.list()] == [True]
    await leased.controller.start()
    await leased.state(ref, JobState.RUNNING)
