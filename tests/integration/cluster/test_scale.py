"""Another number of replicas in the middle of a stream: nothing lost, repeated or reordered."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from compose.local_cluster import LocalCluster
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.model import JobState, PipelineState, ScaleState
from shoal.view import PipelineView
from tests.kit.cluster import contents, describe, job_of, running_cluster, submit, when

pytestmark = pytest.mark.asyncio(loop_scope="module")

_DEADLINE = 90.0
_SPEC = """
    name: squares
    bundle: .
    jobs:
      numbers:
        run: python numbers_.py
        variables: {{DONE: "{done}"}}
        resources: {{cpus: 0.1}}
        outputs: [numbers]
      square:
        run: python square.py
        recovery: resume
        replicas: 2
        resources: {{cpus: 0.1}}
        inputs: {{numbers: numbers.numbers}}
        outputs: [squares]
      table:
        run: python table.py
        resources: {{cpus: 0.1}}
        inputs: {{squares: square.squares}}
"""
_FILES = {
    # Counts until it may end, so that it is always in the middle of its stream before; like a
    # camera it takes its time.
    "numbers_.py": (
        "import itertools, os, threading\n"
        "from shoal import job\n"
        "pace = threading.Event()\n"
        "@job.source\n"
        "def numbers():\n"
        "    for number in itertools.count():\n"
        "        if number % 60 == 0 and number and os.path.exists(os.environ['DONE']):\n"
        "            return\n"
        "        yield number\n"
        "        pace.wait(0.0005)\n"
    ),
    "square.py": (
        "from shoal import job\n@job.main\ndef square(numbers):\n    return numbers * numbers\n"
    ),
    "table.py": (
        "from shoal import job\n"
        "class Table:\n"
        "    def setup(self): self.out = open('results/table', 'w')\n"
        "    def run(self, squares):\n"
        "        self.out.write('%d\\n' % squares)\n"
        "    def finish(self): self.out.close()\n"
        "job.run(Table)\n"
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[LocalCluster, Client]]:
    """Boards enough to lose one."""
    async with running_cluster(tmp_path_factory.mktemp("cluster"), agents=5) as running:
        yield running


async def _shoal(address: str, *arguments: str) -> str:
    """Run the command, and return what it says."""
    command = await asyncio.create_subprocess_exec(
        Path(sys.executable).parent / "shoal",
        *arguments,
        "--controller",
        address,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await command.communicate()
    assert command.returncode == 0, output
    return output.decode()


def _taken(pipeline: PipelineView, job: str) -> int:
    return sum(stream.records for stream in job_of(pipeline, job).streams if not stream.output)


async def _settled(client: Client, name: str, number: int) -> PipelineView:
    """Wait until a scale is settled, and its new replicas have had records."""
    found = await when(
        client, name, lambda now: now.scales[number - 1].state is not ScaleState.HOLDING
    )
    scale = found.scales[number - 1]
    assert scale.state is ScaleState.SETTLED, scale.message
    return await when(
        client,
        name,
        lambda now: all(_taken(now, job.id) > 30 for job in now.jobs if job.generation == number),
    )


async def _check(client: Client, ended: PipelineView, folder: Path) -> list[str]:
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    lines = (await contents(client, ended, "results/table", folder / "table")).decode().split()
    assert lines == [str(number * number) for number in range(len(lines))]
    return lines


async def test_two_replicas_become_three_and_then_one_while_records_flow(
    cluster: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    """The table is that of an undisturbed run."""
    boards, client = cluster
    done = tmp_path / "done"
    text = _SPEC.format(done=done)
    name = (await submit(client, tmp_path / "bundle", text, _FILES)).pipeline.id
    await when(client, name, lambda now: _taken(now, "table") > 100)
    said = await _shoal(boards.controller_address, "scale", name, "square=3")
    rounds = (await _settled(client, name, 1)).scales[0].rounds
    assert said == (
        f"job square of pipelines/{name} has 3 replicas from now on; "
        f"each of those before ends after round {rounds}\n"
    )
    await client.scale(name, "square", 1)
    await _settled(client, name, 2)
    done.touch()
    ended = await client.wait(name, deadline_seconds=_DEADLINE)
    lines = await _check(client, ended, tmp_path)
    assert [job.id for job in ended.jobs] == [
        "numbers",
        *(f"square-{number}" for number in range(6)),
        "table",
    ]
    assert all(job.state is JobState.SUCCEEDED for job in ended.jobs), describe(ended)
    assert all(len(job.attempts) == 1 for job in ended.jobs), describe(ended)
    first, second = (scale.rounds for scale in ended.scales)
    sent = [
        sum(stream.records for stream in job.streams if stream.output) for job in ended.jobs[1:7]
    ]
    assert sent == [first, first, second, second, second, len(lines) - 2 * first - 3 * second]
    with pytest.raises(ShoalError, match="has ended"):
        await client.scale(name, "square", 2)


async def test_a_board_that_dies_after_a_scale_changes_nothing(
    cluster: tuple[LocalCluster, Client], tmp_path: Path
) -> None:
    """Case F16: the replacement keeps to where its generation begins."""
    boards, client = cluster
    done = tmp_path / "done"
    text = _SPEC.format(done=done)
    name = (await submit(client, tmp_path / "bundle", text, _FILES)).pipeline.id
    await when(client, name, lambda now: _taken(now, "table") > 100)
    await client.scale(name, "square", 3)
    middle = await _settled(client, name, 1)
    # A source that is run again would have to know where the first one ended.
    lost, victim = next(
        (job.id, job.node)
        for job in middle.jobs
        if job.generation == 1 and job.node != job_of(middle, "numbers").node
    )
    await boards.kill_board(victim)
    await when(
        client,
        name,
        lambda now: (
            job_of(now, lost).state is JobState.RUNNING
            and job_of(now, lost).node != victim
            and _taken(now, lost) > 30
        ),
    )
    done.touch()
    ended = await client.wait(name, deadline_seconds=_DEADLINE)
    await _check(client, ended, tmp_path)
    attempts = job_of(ended, lost).attempts
    assert [attempt.state for attempt in attempts] == [JobState.LOST, JobState.SUCCEEDED]
