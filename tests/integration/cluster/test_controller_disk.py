"""R3: the disk of a controller is full, read-only, or damaged."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from compose.local_cluster import LocalCluster
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.model import JobState, PipelineState
from tests.kit.cluster import describe, job_of, running_cluster, submit, when
from tests.kit.controller_process import ControllerProcess
from tests.kit.small_disk import SmallDisk, small_disk
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEASED = """
name: leased
jobs:
  a:
    placement: at_most_one_running
    run: "sh -c 'while [ ! -e ../go ]; do sleep 0.05; done; echo kept > results/x'"
"""
QUICK = """
name: quick
jobs: {a: {run: "true"}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[LocalCluster, Client, SmallDisk]]:
    """A controller whose state lies on a disk of 64 MiB, and an agent that has room."""
    state = tmp_path_factory.mktemp("c")
    with small_disk(state / "controller", "64m") as disk:
        async with running_cluster(state, agents=1, lease_seconds=10) as (running, client):
            yield running, client, disk


async def refused(client: Client, folder: Path) -> ShoalError:
    """Submit until it is refused, and return with what."""
    while True:
        try:
            await submit(client, folder, QUICK, {})
        except ShoalError as error:
            return error


async def test_r3_a_full_controller_refuses_what_is_new_and_everything_else_goes_on(
    small: tuple[LocalCluster, Client, SmallDisk], tmp_path: Path
) -> None:
    """A job that may not run twice keeps its lease for longer than that lasts, and ends well."""
    running, client, disk = small
    controller, agent = running.controller.pid, running.agents["node-1"].pid
    leased = (await submit(client, tmp_path / "l", LEASED, {})).pipeline.id
    await when(client, leased, lambda view: job_of(view, "a").state is JobState.RUNNING)
    disk.fill()
    async with asyncio.timeout(60):
        error = await refused(client, tmp_path / "p")
    assert "make room there, and ask again: what runs goes on" in str(error)
    assert str(disk.path) in str(error)
    assert "Internal error" not in str(error)
    started = asyncio.get_running_loop().time()
    await until(lambda: asyncio.get_running_loop().time() > started + 12, 30, "the lease's length")
    [node] = await client.nodes()
    assert node.connected
    [folder] = (running.state_of("node-1") / "attempts").glob("*.a.1-1")
    (folder / "go").touch()
    view = await when(client, leased, lambda view: view.state.terminal)
    assert (view.state, len(job_of(view, "a").attempts)) == (PipelineState.SUCCEEDED, 1), describe(
        view
    )
    disk.empty()
    await until_taken(client, tmp_path / "p")
    assert (running.controller.pid, running.agents["node-1"].pid) == (controller, agent)


async def until_taken(client: Client, folder: Path) -> None:
    """Submit until it is taken, and wait for its good end."""
    async with asyncio.timeout(60):
        while True:
            try:
                name = (await submit(client, folder, QUICK, {})).pipeline.id
                break
            except ShoalError:
                continue
        view = await when(client, name, lambda view: view.state.terminal)
    assert view.state is PipelineState.SUCCEEDED, describe(view)


async def test_r3_a_store_that_takes_nothing_is_waited_for(
    small: tuple[LocalCluster, Client, SmallDisk], tmp_path: Path
) -> None:
    """Another program keeps the database locked, as a backup may: no session and no job ends."""
    running, client, disk = small
    controller = running.controller.pid
    leased = (await submit(client, tmp_path / "l", LEASED, {})).pipeline.id
    await when(client, leased, lambda view: job_of(view, "a").state is JobState.RUNNING)
    with contextlib.closing(
        sqlite3.connect(disk.path / "controller.db", isolation_level=None)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        [folder] = (running.state_of("node-1") / "attempts").glob("*.a.1-1")
        (folder / "go").touch()
        log = running.controller.log
        await until(lambda: "the store waits for its disk" in log.read_text(), 30, "the word")
        error = await refused(client, tmp_path / "p")
        assert "controller.db could not write" in str(error)
        [node] = await client.nodes()
        assert node.connected
    view = await when(client, leased, lambda view: view.state.terminal)
    assert (view.state, len(job_of(view, "a").attempts)) == (PipelineState.SUCCEEDED, 1), describe(
        view
    )
    await until_taken(client, tmp_path / "p")
    assert running.controller.pid == controller


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "was cut off"), (b"text" * 5000, "not a database")]
)
async def test_r3_a_damaged_store_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes, words: str
) -> None:
    store = tmp_path / "state" / "controller.db"
    store.parent.mkdir()
    store.write_bytes(content)
    controller = ControllerProcess(tmp_path)
    with pytest.raises(AssertionError, match=words) as raised:
        await controller.start()
    assert "put a copy of it back" in str(raised.value)
    assert "Traceback" not in str(raised.value)
    assert store.read_bytes() == content
