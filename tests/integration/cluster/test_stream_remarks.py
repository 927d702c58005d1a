"""What commands and events say of streams that stand still, or whose producer did not repeat itself."""

import asyncio
import json
import sys
from pathlib import Path

from shoal.client import Client
from shoal.model import PipelineState, StreamCounters
from shoal.view import PipelineView
from tests.kit.cluster import all_events, job_of, running_cluster, submit, when

SHOAL = str(Path(sys.executable).parent / "shoal")
_DEADLINE = 60.0

NEVER_READ = """
    name: stuck
    jobs:
      source:
        run: "yes"
        outputs: {said: {format: lines, as: stdout}}
      sink:
        run: sleep 600
        inputs: {said: {from: source.said, format: lines, as: stdin}}
"""
NOT_REPEATED = """
    name: fickle
    jobs:
      source:
        run: sh -c 'for k in 0 1 2; do echo $SHOAL_ATTEMPT.$k; done;
          [ $SHOAL_ATTEMPT = 2 ] && exec echo last; until [ -e GO ]; do sleep 0.05; done; exit 3'
        retry: {attempts: 2, backoff: 100ms}
        outputs: {said: {format: lines, as: stdout}}
      sink:
        run: sh -c 'cat > results/all'
        inputs: {said: {from: source.said, format: lines, as: stdin}}
"""


def port(pipeline: PipelineView, job: str) -> StreamCounters:
    """Counters of a job's only port; empty ones before there are any."""
    streams = job_of(pipeline, job).streams
    return streams[0] if streams else StreamCounters("said", output=False)


async def status(address: str, name: str) -> str:
    """What the command prints of a pipeline."""
    process = await asyncio.create_subprocess_exec(
        SHOAL, "status", name, "--controller", address, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(_DEADLINE):
        said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


async def stuck(client: Client, address: str, folder: Path) -> None:
    """A consumer that never reads blocks its producer, and both are named with their streams."""
    submitted = await submit(client, folder, NEVER_READ, {})
    pipeline = await when(
        client,
        submitted.pipeline.name,
        lambda one: min(port(one, job).blocked_seconds for job in ("source", "sink")) >= 2,
    )
    assert port(pipeline, "sink").records < port(pipeline, "source").records
    said = await status(address, submitted.pipeline.name)
    assert "sink.said: blocked for" in said
    assert "the program of sink does not read it" in said
    assert "source.said: blocked for" in said
    assert "a consumer does not take what source sends" in said
    await client.cancel(submitted.pipeline.name)


async def fickle(client: Client, address: str, folder: Path) -> None:
    """X6: a job that sends other records when it is run again is warned of wherever the end is told."""
    go = folder / "go"
    folder.mkdir()
    (folder / "fickle.yaml").write_text(NOT_REPEATED.replace("GO", str(go)))
    running = await asyncio.create_subprocess_exec(
        SHOAL,
        *("run", "fickle.yaml", "--controller", address),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert running.stderr is not None
    async with asyncio.timeout(_DEADLINE):
        name = (await running.stderr.readline()).decode().partition(" on ")[0]
    await when(client, name, lambda one: port(one, "sink").records == 3)
    go.touch()
    async with asyncio.timeout(_DEADLINE):
        _, stderr = await running.communicate()
    ended = await client.get(name)
    assert ended.state is PipelineState.SUCCEEDED
    assert (port(ended, "sink").records, port(ended, "sink").mismatches) == (4, 1)
    warning = "warning: sink.said: its producer was run again and sent other records"
    assert warning in stderr.decode()
    assert running.returncode == 0
    assert warning in await status(address, name)
    [final] = [one for one in await all_events(client, name) if one.id == ended.final_event_id]
    assert json.loads(final.data_json)["mismatches"] == [
        {"job": "sink", "port": "said", "lanes": 1}
    ]


async def test_streams_that_stand_still_or_differ_are_told(tmp_path: Path) -> None:
    async with running_cluster(tmp_path / "cluster", agents=1) as (cluster, client):
        address = cluster.controller_address
        async with asyncio.timeout(2 * _DEADLINE), asyncio.TaskGroup() as tasks:
            tasks.create_task(stuck(client, address, tmp_path / "stuck"))
            tasks.create_task(fickle(client, address, tmp_path / "fickle"))
