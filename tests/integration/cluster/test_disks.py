"""K12, R3, R9: what a disk does to a running cluster, and what it does not."""

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from compose.local_cluster import LocalCluster
from shoal.client import Client
from shoal.model import JobState, PipelineState, ReasonCode
from shoal.view import NodeView, PipelineView
from tests.kit.cluster import contents, describe, job_of, running_cluster, submit, when
from tests.kit.small_disk import SmallDisk, small_disk
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ARCHIVED = """
name: kept
jobs: {a: {run: "sh -c 'while [ ! -e ../go ]; do sleep 0.05; done; echo kept > results/x'"}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[LocalCluster, Client, SmallDisk]]:
    """A controller, and one agent whose state lies on a disk of 16 MiB."""
    state = tmp_path_factory.mktemp("c")
    with small_disk(state / "node-1", "16m") as disk:
        # On a busy machine an agent is away for long while it is started again.
        async with running_cluster(state, agents=1, lease_seconds=60) as (running, client):
            yield running, client, disk


def work_of(cluster: LocalCluster, job: str) -> Path:
    """The folder above that of the job's only attempt."""
    [folder] = (cluster.state_of("node-1") / "attempts").glob(f"*.{job}.1-1")
    return folder


async def test_r9_a_job_waits_for_an_archive_that_was_moved_away(
    small: tuple[LocalCluster, Client, SmallDisk], tmp_path: Path
) -> None:
    running, client, _ = small
    archive = running.config.state / "archive"
    elsewhere = archive.with_name("elsewhere")
    controller, agent = running.controller.pid, running.agents["node-1"].pid
    name = (await submit(client, tmp_path / "p", ARCHIVED, {})).pipeline.id
    await when(client, name, lambda view: job_of(view, "a").state is JobState.RUNNING)
    archive.rename(elsewhere)
    (work_of(running, "a") / "go").touch()
    view = await when(client, name, lambda view: "waits for" in job_of(view, "a").progress)
    assert job_of(view, "a").state is JobState.ARCHIVING
    assert "the archive" in job_of(view, "a").progress
    assert "is away" in job_of(view, "a").progress
    elsewhere.rename(archive)
    view = await ended(client, name)
    assert view.state is PipelineState.SUCCEEDED, describe(view)
    assert await contents(client, view, "results/x", tmp_path / "x") == b"kept\n"
    assert (running.controller.pid, running.agents["node-1"].pid) == (controller, agent)


# A pinned job is not replaced when gossip takes an agent for dead that is slow to start again.
PINNED = ARCHIVED.replace("{run:", "{placement: pinned, run:")
FILLER = """
name: filler
jobs: {a: {run: "sh -c 'dd if=/dev/zero of=big bs=64k; exit 1'"}}
"""
HOARDER = """
name: hoarder
jobs: {a: {run: "sh -c 'while :; do dd if=/dev/zero of=big bs=64k oflag=append conv=notrunc; sleep 0.1; done'"}}
"""
SMALL = """
name: small
jobs: {a: {run: "sh -c 'echo done > results/x'"}}
"""


async def node_when(client: Client, condition: Callable[[NodeView], bool]) -> NodeView:
    """Watch the node until it looks as `condition` wants."""
    async with asyncio.timeout(30), contextlib.aclosing(client.watch_nodes()) as changes:
        async for change in changes:
            if isinstance(change, NodeView) and condition(change):
                return change
    raise AssertionError("the watch of the nodes ended")


async def ended(client: Client, name: str) -> PipelineView:
    """Wait for the end of a pipeline."""
    return await when(client, name, lambda view: view.state.terminal)


async def test_k12_a_job_that_fills_the_disk_fails_with_disk_and_the_agent_lives(
    small: tuple[LocalCluster, Client, SmallDisk], tmp_path: Path
) -> None:
    running, client, disk = small
    agent = running.agents["node-1"].pid
    for spec in (FILLER, HOARDER):
        name = (await submit(client, tmp_path / "p", spec, {})).pipeline.id
        view = await ended(client, name)
        assert view.state is PipelineState.FAILED, describe(view)
        assert view.reason.code is ReasonCode.DISK, describe(view)
        assert "write less, or place the job where there is more room" in view.reason.message
        # What it wrote is gone with it, so there is room for the next.
        await node_when(client, lambda node: not node.refuses and node.connected)
    name = (await submit(client, tmp_path / "p", SMALL, {})).pipeline.id
    assert (await ended(client, name)).state is PipelineState.SUCCEEDED
    assert running.agents["node-1"].pid == agent
    assert disk.free_bytes > 5 << 20


async def test_r3_a_full_disk_refuses_work_and_says_so_until_there_is_room(
    small: tuple[LocalCluster, Client, SmallDisk], tmp_path: Path
) -> None:
    """Filled by somebody else: an agent is killed and started meanwhile, and its job goes on."""
    running, client, disk = small
    quiet = (await submit(client, tmp_path / "q", PINNED, {})).pipeline.id
    await when(client, quiet, lambda view: job_of(view, "a").state is JobState.RUNNING)
    disk.fill()
    node = await node_when(client, lambda node: bool(node.refuses))
    assert "its disk is short" in node.refuses
    assert "make room there" in node.refuses
    name = (await submit(client, tmp_path / "p", SMALL, {})).pipeline.id
    view = await when(client, name, lambda view: bool(job_of(view, "a").waiting_for))
    assert "its disk is short" in job_of(view, "a").waiting_for
    [verdict] = await client.explain(f"{name}/a")
    assert "its disk is short" in verdict.sentence
    await running.agents["node-1"].kill()
    disk.fill()
    await running.agents["node-1"].start()
    await running.wait_for_agents(["node-1"])
    assert (await node_when(client, lambda node: bool(node.refuses))).refuses
    # An orderly end takes the write-ahead log away, and the next start finds no room for one.
    await running.agents["node-1"].stop()
    disk.fill()
    (running.state_of("node-1") / "agent.reserve").unlink(missing_ok=True)
    disk.fill()
    await running.agents["node-1"].start()
    await running.wait_for_agents(["node-1"])
    view = await client.get(quiet)
    assert len(job_of(view, "a").attempts) == 1, describe(view)
    disk.empty()
    (work_of(running, "a") / "go").touch()
    assert (await ended(client, name)).state is PipelineState.SUCCEEDED
    view = await ended(client, quiet)
    assert (view.state, len(job_of(view, "a").attempts)) == (PipelineState.SUCCEEDED, 1)
    assert not (await node_when(client, lambda node: not node.refuses)).refuses


LEAVER = """
name: leaver
jobs: {a: {run: "sh -c 'head -c 6M /dev/zero > big; exit 1'"}}
"""
HOLDER = ARCHIVED.replace("while", "head -c 2M /dev/zero > big; touch began; while")


async def test_u8_what_a_failed_attempt_left_goes_before_an_attempt_that_runs(
    small: tuple[LocalCluster, Client, SmallDisk], tmp_path: Path
) -> None:
    running, client, disk = small
    left = (await submit(client, tmp_path / "l", LEAVER, {})).pipeline.id
    assert (await ended(client, left)).state is PipelineState.FAILED
    kept = running.state_of("node-1") / "kept"
    await until(lambda: any(kept.rglob("big")), 20, "what it left being kept")
    name = (await submit(client, tmp_path / "p", HOLDER, {})).pipeline.id
    await when(client, name, lambda view: job_of(view, "a").state is JobState.RUNNING)
    await until((work_of(running, "a") / "work/began").exists, 20, "what it holds")
    disk.fill()
    await until(lambda: not any(kept.iterdir()), 20, "what was kept being gone")
    await node_when(client, lambda node: not node.refuses)
    (work_of(running, "a") / "go").touch()
    view = await ended(client, name)
    assert view.state is PipelineState.SUCCEEDED, describe(view)
    disk.empty()


async def test_what_a_cluster_keeps_is_its_users_alone(
    small: tuple[LocalCluster, Client, SmallDisk], tmp_path: Path
) -> None:
    """Variables of jobs lie in both databases, and what jobs print in logs."""
    running, client, _ = small
    spec = "name: umask\njobs: {a: {run: 'sh -c \"umask > results/x; touch results/y\"'}}"
    name = (await submit(client, tmp_path / "p", spec, {})).pipeline.id
    shown_by = await ended(client, name)
    usual = (await asyncio.create_subprocess_exec("sh", "-c", "umask", stdout=-1)).communicate
    shown = await contents(client, shown_by, "results/x", tmp_path / "x")
    assert shown == (await usual())[0], "a job has the umask that it always had"
    state = running.config.state
    for folder in (state, state / "controller", running.state_of("node-1")):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    for found in ("controller/controller.db*", "node-1/agent.db*", "node-1/*.sock"):
        paths = list(state.glob(found))
        assert paths, found
        for path in paths:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
