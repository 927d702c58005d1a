"""The example on real video, undisturbed and with a detector's board killed in the middle."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from compose.local_cluster import LocalCluster
from shoal.client import Client
from shoal.model import PipelineState
from shoal.view import PipelineView
from tests.kit.cluster import contents, describe, job_of, running_cluster, submit_file, when
from tests.kit.until import until

_EXAMPLE = Path(__file__).parents[3] / "examples" / "people_counter" / "pipeline.yaml"
_DEADLINE = 400.0
_FRAMES = 100
_WITHOUT_NUMPY = "import sys; sys.modules['numpy'] = None; from shoal.cli.main import main; main()"
_SEEN = {
    "camera.frames": ['{"frame": ', '"picture": "<array |u1 576x768x3>"}'],
    "detector-0.found": ['{"frame": ', '"boxes": [[', '"thumbnail": "<array |u1 192x256x3>"}'],
}


@pytest.mark.timeout(900)
async def test_people_csv_is_the_same_with_a_detector_killed_in_the_middle(tmp_path: Path) -> None:
    """Issue: no frame lost, none twice; cases E1, F16, and U7: its records are seen without numpy."""
    async with running_cluster(tmp_path / "cluster") as (cluster, client):
        async with asyncio.TaskGroup() as group:
            for port, words in _SEEN.items():
                group.create_task(_seen(cluster.controller_address, client, port, words))
            undisturbed = await _people(client, tmp_path / "first.csv")
        disturbed = await _people(client, tmp_path / "second.csv", cluster)
    frames = [line.split(b",")[0] for line in undisturbed.splitlines()[1:]]
    assert frames == [str(number).encode() for number in range(_FRAMES)]
    assert disturbed == undisturbed


async def _seen(address: str, client: Client, port: str, words: list[str]) -> None:
    """Tap a port of the example with an interpreter that has no numpy."""

    async def submitted() -> bool:
        return [one async for one in client.list()] != []

    await until(submitted, 30, "the pipeline")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _WITHOUT_NUMPY, "tap", "latest", port, "--count", "2"),
        env={**os.environ, "SHOAL_CONTROLLER": address},
        stdout=PIPE,
        stderr=PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), _DEADLINE)
    assert process.returncode == 0, err.decode()
    lines = out.decode().splitlines()
    assert len(lines) == 2
    for line in lines:
        assert [word for word in words if word not in line] == [], line


async def _people(client: Client, target: Path, cluster: LocalCluster | None = None) -> bytes:
    submitted = await submit_file(client, _EXAMPLE)
    name = submitted.pipeline.id
    if cluster is not None:
        middle = await when(client, name, lambda now: _counted(now) >= _FRAMES // 3)
        victim = job_of(middle, "detector-1").node
        await cluster.kill_board(victim)
    ended = await client.wait(name, deadline_seconds=_DEADLINE)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    if cluster is not None:
        assert len(job_of(ended, "detector-1").attempts) > 1
    return await contents(client, ended, "results/people.csv", target)


def _counted(pipeline: PipelineView) -> int:
    return sum(stream.records for stream in job_of(pipeline, "counter").streams)
