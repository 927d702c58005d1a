"""U8 on a real cluster: `shoal artifacts` says where the files of each attempt are."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from compose.local_cluster import LocalCluster
from shoal.client import Client
from shoal.model import JobState, PipelineState
from tests.kit.cluster import describe, running_cluster, submit, when
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

BROKEN = """
name: broken
jobs:
  bad:
    run: [sh, -c, "echo half > results/x; while ! test -e ../../../go; do sleep 0.05; done; exit 3"]
    place: {prefer: [node-1]}
  neighbour:
    run: [sh, -c, "echo some > results/y; touch ../../../go; sleep 600"]
    place: {prefer: [node-1]}
"""


WANTED = """
name: wanted
jobs:
  second:
    run: [sh, -c, 'echo try $SHOAL_ATTEMPT | tee results/x; test $SHOAL_ATTEMPT = 2']
    retry: {attempts: 2, backoff: 100ms}
    archive_on: always
"""
ENDS = """
name: ends
jobs:
  good:
    run: [sh, -c, "echo good | tee results/x"]
    archive_on: failure
  bad:
    run: [sh, -c, "echo bad > results/x; while ! test -e ../../../ready; do sleep 0.05; done; exit 3"]
    archive_on: failure
  neighbour:
    run: [sh, -c, "echo some > results/y; touch ../../../ready; sleep 600"]
    archive_on: always
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def board(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[LocalCluster, Client]]:
    """A cluster of one node."""
    async with running_cluster(tmp_path_factory.mktemp("cluster"), agents=1) as running:
        yield running


async def shoal(cluster: LocalCluster, *words: str) -> str:
    """What a command prints."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "shoal.cli", *words, "--controller", cluster.controller_address],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


async def files(cluster: LocalCluster, name: str) -> dict[str, dict[str, Any]]:
    """What `shoal artifacts --json` says of each attempt."""
    lines = (await shoal(cluster, "artifacts", name, "--json")).splitlines()
    said = [json.loads(line) for line in lines if line.startswith("{")]
    return {one["attempt"]: one for one in said if "attempt" in one}


async def all_kept(cluster: LocalCluster, name: str) -> dict[str, dict[str, Any]]:
    """The same, once all of it is said to be kept."""

    async def found() -> dict[str, dict[str, Any]]:
        said = await files(cluster, name)
        return said if {one["files"] for one in said.values()} == {"kept"} else {}

    return await until(found, 20, "what is kept being said")


async def test_u8_what_a_failed_job_and_its_cancelled_neighbour_wrote_is_found_on_its_board(
    board: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    cluster, client = board
    name = (await submit(client, tmp_path, BROKEN, {})).pipeline.id
    ended = await when(client, name, lambda view: view.state.terminal)
    assert ended.state is PipelineState.FAILED, describe(ended)
    assert [job.state for job in ended.jobs] == [JobState.FAILED, JobState.CANCELLED]
    said = await all_kept(cluster, name)
    paths = {attempt: Path(one["path"]) for attempt, one in said.items()}
    assert (paths["bad/1"] / "work/results/x").read_text() == "half\n"
    assert (paths["neighbour/1"] / "work/results/y").read_text() == "some\n"
    text = await shoal(cluster, "artifacts", name)
    assert (
        f"attempt bad/1 (FAILED): kept on node node-1 until 20{said['bad/1']['until_time'][2:10]}"
        in text
    )
    assert f"UTC at the latest: {paths['bad/1']}" in text
    assert "attempt neighbour/1 (CANCELLED): kept on node node-1" in text
    # A controller that was restarted hears of it again, an agent that was restarted finds it.
    await cluster.controller.kill()
    await cluster.agents["node-1"].kill()
    await cluster.controller.start()
    await client.nodes()  # as soon as it answers
    await cluster.agents["node-1"].start()
    await cluster.wait_for_agents(["node-1"])
    assert await all_kept(cluster, name) == said
    # A board that died is said to be away, with what it keeps.
    await cluster.kill_board("node-1")
    await until(lambda: _away(client), 20, "the board being away")
    assert "kept on node node-1 (which is away) until" in await shoal(cluster, "artifacts", name)
    await cluster.agents["node-1"].start()
    await cluster.wait_for_agents(["node-1"])
    assert await all_kept(cluster, name) == said


async def test_u8_what_failed_is_archived_where_the_job_wants_that(
    board: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    cluster, client = board
    name = (await submit(client, tmp_path, ENDS, {})).pipeline.id
    ended = await when(client, name, lambda view: view.state.terminal)
    found = {
        job.id: {one.path for one in job.manifest.artifacts}
        for job in ended.jobs
        if job.manifest is not None
    }
    assert found == {
        "good": {"stdout"},  # the logs of a success are archived in any case
        "bad": {"results/x"},
        "neighbour": {"results/y"},
    }, describe(ended)
    assert {one["files"] for one in (await files(cluster, name)).values()} == {"archived"}
    assert f"attempt bad/1 (FAILED): in the archive: shoal get {name}/bad" in await shoal(
        cluster, "artifacts", name
    )
    await shoal(cluster, "get", name, "-o", str(tmp_path / "got"))
    assert (tmp_path / "got/bad/results/x").read_text() == "bad\n"
    assert (tmp_path / "got/neighbour/results/y").read_text() == "some\n"


async def test_u8_an_earlier_attempt_can_be_fetched_by_its_number(
    board: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    cluster, client = board
    name = (await submit(client, tmp_path, WANTED, {})).pipeline.id
    ended = await when(client, name, lambda view: view.state.terminal)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    said = f"attempt second/1 (FAILED): in the archive: shoal get {name}/second --attempt 1"
    assert said in await shoal(cluster, "artifacts", name)
    got = tmp_path / "got"
    await shoal(cluster, "get", f"{name}/second", "-o", str(got))
    await shoal(cluster, "get", f"{name}/second", "--attempt", "1", "-o", str(got))
    assert (got / "second/results/x").read_text() == "try 2\n"
    assert (got / "second/attempts/1/results/x").read_text() == "try 1\n"
    assert (got / "second/attempts/1/stdout").read_text() == "try 1\n"
    name = (await submit(client, tmp_path, BROKEN, {})).pipeline.id
    await when(client, name, lambda view: view.state.terminal)
    refused = await shoal(cluster, "get", f"{name}/bad", "--attempt", "1")
    assert "has nothing in the archive: " in refused
    assert "`archive_on: always`" in refused


async def _away(client: Client) -> bool:
    return not (await client.node("node-1")).connected
