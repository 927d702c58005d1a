"""K12, R3, R9: what a disk does to a running cluster, and what it does not."""

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from compose.local_cluster import LocalCluster
from shoal.client import Client
from shoal.model import JobState, PipelineState
from tests.kit.cluster import contents, describe, job_of, running_cluster, submit, when

ARCHIVED = """
name: kept
jobs: {a: {run: "sh -c 'while [ ! -e ../go ]; do sleep 0.05; done; echo kept > results/x'"}}
"""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[tuple[LocalCluster, Client]]:
    """A controller and one agent."""
    async with running_cluster(tmp_path / "c", agents=1) as running:
        yield running


def work_of(cluster: LocalCluster, job: str) -> Path:
    """The folder above that of the job's only attempt."""
    [folder] = (cluster.state_of("node-1") / "attempts").glob(f"*.{job}.1-1")
    return folder


async def test_r9_a_job_waits_for_an_archive_that_was_moved_away(
    cluster: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    running, client = cluster
    archive, elsewhere = tmp_path / "c" / "archive", tmp_path / "c" / "elsewhere"
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
    ended = await when(client, name, lambda view: view.state.terminal)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    assert await contents(client, ended, "results/x", tmp_path / "x") == b"kept\n"
    assert (running.controller.pid, running.agents["node-1"].pid) == (controller, agent)


async def test_what_a_cluster_keeps_is_its_users_alone(
    cluster: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    """Variables of jobs lie in both databases, and what jobs print in logs."""
    running, client = cluster
    spec = "name: umask\njobs: {a: {run: 'sh -c \"umask > results/x; touch results/y\"'}}"
    name = (await submit(client, tmp_path / "p", spec, {})).pipeline.id
    ended = await when(client, name, lambda view: view.state.terminal)
    usual = (await asyncio.create_subprocess_exec("sh", "-c", "umask", stdout=-1)).communicate
    shown = await contents(client, ended, "results/x", tmp_path / "x")
    assert shown == (await usual())[0], "a job has the umask that it always had"
    state = tmp_path / "c"
    for folder in (state, state / "controller", running.state_of("node-1")):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    for found in ("controller/controller.db*", "node-1/agent.db*", "node-1/*.sock"):
        paths = list(state.glob(found))
        assert paths, found
        for path in paths:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
