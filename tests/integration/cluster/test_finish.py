"""X1 and X4: endless pipelines end with their results, and an end travels upstream."""

import asyncio
import json
import sys
from pathlib import Path

from compose.local_cluster import LocalCluster
from shoal.client import Client
from shoal.model import JobState, PipelineState
from shoal.view import PipelineView
from tests.kit.cluster import (
    all_events,
    contents,
    describe,
    job_of,
    printed,
    running_cluster,
    submit,
    when,
)

SHOAL = str(Path(sys.executable).parent / "shoal")
_DEADLINE = 90.0

COUNTER = """
    name: counter
    jobs:
      src:
        run: sh -c 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done'
        resources: {cpus: 0.1}
        outputs: {n: {format: lines, as: stdout}}
      sink:
        run: sh -c 'cat > results/numbers.txt'
        resources: {cpus: 0.1}
        inputs: {n: {from: src.n, format: lines, as: stdin}}
"""
GENERATOR = """
    name: generator
    bundle: .
    jobs:
      src: {run: python src.py, resources: {cpus: 0.1}, outputs: [n]}
      sink: {run: python sink.py, resources: {cpus: 0.1}, inputs: {n: src.n}}
"""
GENERATOR_FILES = {
    "src.py": (
        "import select\n"
        "from shoal import job\n"
        "@job.source\n"
        "def src():\n"
        "    k = 0\n"
        "    with open('results/kept', 'w') as kept:\n"
        "        try:\n"
        "            while True:\n"
        "                kept.write('%d\\n' % k)\n"
        "                yield k\n"
        "                k += 1\n"
        "                select.select([], [], [], 0.01)\n"
        "        finally:\n"
        "            kept.write('cleaned\\n')\n"
    ),
    "sink.py": (
        "from shoal import job\n@job.stream\ndef sink():\n    print(*job.inputs['n'], sep='\\n')\n"
    ),
}
ALONE = """
    name: alone
    jobs:
      main:
        run: sh -c 'echo begun > results/x; echo begun; exec sleep 600'
        resources: {cpus: 0.1}
"""
HEAD = """
    name: head
    bundle: .
    jobs:
      src: {run: python src.py, resources: {cpus: 0.1}, outputs: [n]}
      shell:
        run: sh -c 'while :; do echo x; done'
        resources: {cpus: 0.1}
        outputs: {n: {format: lines, as: stdout}}
      three:
        run: sh -c 'head -3 > results/x'
        resources: {cpus: 0.1}
        inputs: {n: {from: shell.n, format: lines, as: stdin}}
      plain:
        run: python plain.py
        resources: {cpus: 0.1}
        inputs: {n: {from: src.n, format: lines, as: stdin}}
        outputs: {n: {format: lines, as: stdout}}
      few:
        run: sh -c 'head -4 > results/y'
        resources: {cpus: 0.1}
        inputs: {n: {from: plain.n, format: lines, as: stdin}}
"""
HEAD_FILES = {
    "src.py": (
        "import itertools\n"
        "from shoal import job\n"
        "@job.source\n"
        "def src():\n"
        "    try:\n"
        "        for k in itertools.count():\n"
        "            yield b'%d' % k\n"
        "    finally:\n"
        "        open('results/cleaned', 'w').close()\n"
    ),
    # Without the library: it finds out by an exception, and ends with status 1.
    "plain.py": "import sys\nfor line in sys.stdin:\n    print(line, end='', flush=True)\n",
}
BY_HAND = """
    name: byhand
    jobs:
      me: {local: true, outputs: {line: {format: lines}}}
      two:
        run: sh -c 'head -2 > results/x'
        resources: {cpus: 0.1}
        inputs: {line: {from: me.line, format: lines, as: stdin}}
"""
SLOW = """
    name: slow
    jobs:
      src:
        run: sh -c 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done'
        resources: {cpus: 0.1}
        outputs: {n: {format: lines, as: stdout}}
      twice:
        run: sh -c 'while read k; do echo $((2*k)); done'
        resources: {cpus: 0.1}
        inputs: {n: {from: src.n, format: lines, as: stdin}}
        outputs: {n: {format: lines, as: stdout}}
      sink:
        run: sh -c 'while read k; do echo $k >> results/numbers.txt; sleep 0.1; done'
        resources: {cpus: 0.1}
        inputs: {n: {from: twice.n, format: lines, as: stdin}}
"""


def flowing(pipeline: PipelineView, job: str, records: int = 5) -> bool:
    """Whether a job has got so many records."""
    return any(one.records >= records for one in job_of(pipeline, job).streams)


async def succeeded(client: Client, name: str) -> PipelineView:
    """How a pipeline ended, which has to be well."""
    ended = await client.wait(name, deadline_seconds=_DEADLINE)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    return ended


async def finish_a_counter(client: Client, address: str, folder: Path) -> None:
    """The input of X1: everything that was counted is in the archive, and nothing is missing."""
    name = (await submit(client, folder, COUNTER, {})).pipeline.name
    await when(client, name, lambda one: flowing(one, "sink"))
    process = await asyncio.create_subprocess_exec(
        SHOAL, "finish", "--wait", name, "--controller", address, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(_DEADLINE):
        said, _ = await process.communicate()
    assert (process.returncode, said.decode()) == (0, f"{name} succeeded\n")
    ended = await client.finish(name)
    assert ended.state is PipelineState.SUCCEEDED, "asked again, it stands as it is"
    assert ended.finish_time is not None
    numbers = await contents(client, ended, "results/numbers.txt", folder / "numbers")
    found = [int(line) for line in numbers.split()]
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= 5
    [final] = [one for one in await all_events(client, name) if one.id == ended.final_event_id]
    assert json.loads(final.data_json)["finished"] is True


async def finish_a_generator(client: Client, folder: Path) -> None:
    """A source of the library is closed at its yield: what it has open is written and archived."""
    name = (await submit(client, folder, GENERATOR, GENERATOR_FILES)).pipeline.name
    await when(client, name, lambda one: flowing(one, "sink"))
    await client.finish(name)
    ended = await succeeded(client, name)
    kept = (await contents(client, ended, "results/kept", folder / "kept")).decode().split()
    assert kept[-1] == "cleaned"
    got = [int(line) for line in (await printed(client, f"{name}/jobs/sink")).split()]
    assert got == list(range(len(got)))
    assert [str(one) for one in got] == kept[: len(got)]


async def finish_one_command(client: Client, folder: Path) -> None:
    """A job without streams gets SIGTERM, and its results are kept."""
    name = (await submit(client, folder, ALONE, {})).pipeline.name
    await when(client, name, lambda one: job_of(one, "main").state is JobState.RUNNING)
    async for chunk in client.logs(name, follow=True):
        if b"begun" in chunk.data:
            break
    await client.finish(name)
    ended = await succeeded(client, name)
    assert await contents(client, ended, "results/x", folder / "x") == b"begun\n"


async def ends_travel_upstream(client: Client, folder: Path) -> None:
    """The inputs of X4: shell, generator and a filter without the library end after their readers."""
    name = (await submit(client, folder, HEAD, HEAD_FILES)).pipeline.name
    ended = await succeeded(client, name)
    assert await contents(client, ended, "results/x", folder / "x") == b"x\nx\nx\n"
    assert await contents(client, ended, "results/y", folder / "y") == b"0\n1\n2\n3\n"
    assert await contents(client, ended, "results/cleaned", folder / "cleaned") == b""
    assert all(len(job.attempts) == 1 for job in ended.jobs)


async def ends_reach_a_terminal(client: Client, address: str, folder: Path) -> None:
    """X4: a job that is fed by hand ends with its readers, although nobody sends an end."""
    name = (await submit(client, folder, BY_HAND, {})).pipeline.name
    sending = await asyncio.create_subprocess_exec(
        *(SHOAL, "send", "--keep-open", name, "me.line", "a", "b", "--controller", address),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(_DEADLINE):
        await sending.communicate()
    ended = await succeeded(client, name)
    assert await contents(client, ended, "results/x", folder / "x") == b"a\nb\n"


async def lose_the_board_of_a_finishing_source(
    cluster: LocalCluster, client: Client, folder: Path
) -> None:
    """X1: where it ends is settled before anybody sees the end, so its replacement ends there, too."""
    name = (await submit(client, folder, SLOW, {})).pipeline.name
    await when(client, name, lambda one: flowing(one, "sink", 20))
    await client.finish(name)
    draining = await when(client, name, lambda one: job_of(one, "src").state is JobState.DRAINING)
    [sent] = [one.records for one in job_of(await client.get(name), "src").streams]
    await cluster.kill_board(job_of(draining, "src").node)
    ended = await succeeded(client, name)
    assert len(job_of(ended, "src").attempts) == 2, describe(ended)
    numbers = await contents(client, ended, "results/numbers.txt", folder / "numbers")
    assert [int(line) for line in numbers.split()] == [2 * k for k in range(1, sent + 1)]


async def test_x1_x4_endless_pipelines_end_with_their_results(tmp_path: Path) -> None:
    async with running_cluster(tmp_path / "cluster", agents=3) as (cluster, client):
        address = cluster.controller_address
        async with asyncio.timeout(3 * _DEADLINE):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(finish_a_counter(client, address, tmp_path / "counter"))
                tasks.create_task(finish_a_generator(client, tmp_path / "generator"))
                tasks.create_task(finish_one_command(client, tmp_path / "alone"))
                tasks.create_task(ends_travel_upstream(client, tmp_path / "head"))
                tasks.create_task(ends_reach_a_terminal(client, address, tmp_path / "hand"))
            await lose_the_board_of_a_finishing_source(cluster, client, tmp_path / "slow")
