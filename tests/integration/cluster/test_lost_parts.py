"""Parts of a cluster die in the middle: the result is as if nothing had happened (invariants 1, 2 and 9)."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import pytest

from compose.local_cluster import LocalCluster
from shoal.client import Client
from shoal.model import JobState, PipelineState
from shoal.view import PipelineView
from tests.kit.cluster import (
    all_events,
    contents,
    describe,
    job_of,
    running_cluster,
    submit,
    when,
)
from tests.kit.mosquitto import Mosquitto
from tests.kit.until import until

_DEADLINE = 90.0
_RECORDS = 600
_GATE_AT = 300
_SPEC = """
    name: squares
    bundle: .
    jobs:
      numbers:
        run: python numbers_job.py
        variables: {{GATE: "{gate}"}}
        resources: {{cpus: 0.5}}
        outputs: {{numbers: {{}}}}
      square:
        run: python square.py
        replicas: 2
        recovery: resume
        inputs: {{numbers: numbers.numbers}}
        outputs: {{squares: {{}}}}
      table:
        run: python table.py
        resources: {{cpus: 0.5}}
        inputs: {{squares: square.squares}}
"""
_FILES = {
    # Half of the records, then a wait for the test, whoever asks again later finds the gate open.
    "numbers_job.py": (
        "import os\n"
        "from shoal import job\n"
        "@job.source\n"
        "def numbers():\n"
        f"    for k in range({_RECORDS}):\n"
        f"        if k == {_GATE_AT} and not os.path.exists(os.environ['GATE'] + '.open'):\n"
        "            open(os.environ['GATE']).read()\n"
        "        yield k\n"
    ),
    "square.py": (
        "from shoal import job\n"
        "@job.main\n"
        "def square(numbers):\n"
        "    return [numbers, numbers * numbers]\n"
    ),
    "table.py": (
        "from shoal import job\n"
        "class Table:\n"
        "    def setup(self): self.rows = []\n"
        "    def run(self, squares): self.rows.append('%d,%d\\n' % tuple(squares))\n"
        "    def finish(self):\n"
        "        open('results/table.csv', 'w').writelines(self.rows)\n"
        "job.run(Table)\n"
    ),
}
_EXPECTED = "".join(f"{k},{k * k}\n" for k in range(_RECORDS)).encode()


class _Half:
    """A pipeline that stands in the middle of its records until `open` is called."""

    def __init__(self, cluster: LocalCluster, client: Client, folder: Path) -> None:
        self.cluster = cluster
        self.client = client
        self._folder = folder
        self._gate = folder / "gate"
        self.name = ""

    async def start(self) -> PipelineView:
        """Submit it and wait until the first half has arrived."""
        self._folder.mkdir()
        os.mkfifo(self._gate)
        spec = _SPEC.format(gate=self._gate)
        submitted = await submit(self.client, self._folder / "bundle", spec, _FILES)
        self.name = submitted.pipeline.id
        return await when(self.client, self.name, lambda pipeline: _arrived(pipeline) >= _GATE_AT)

    def open(self) -> None:
        """Let the second half come."""
        self._gate.with_suffix(".open").touch()
        descriptor = os.open(self._gate, os.O_RDWR | os.O_NONBLOCK)
        with contextlib.closing(os.fdopen(descriptor, "wb", buffering=0)) as gate:
            gate.write(b"open")

    async def ends_as_ever(self) -> PipelineView:
        """Open the gate, and check the end."""
        # A reader that comes late finds the file `.open`; one that waits is woken by the writer's end.
        self.open()
        ended = await self.client.wait(self.name, deadline_seconds=_DEADLINE)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)
        table = await contents(self.client, ended, "results/table.csv", self._folder / "table.csv")
        assert table == _EXPECTED
        manifests = [job.manifest for job in ended.jobs]
        assert all(manifest is not None for manifest in manifests)
        final = [
            event.id
            for event in await all_events(self.client, ended.name)
            if event.subject == ended.name and event.type.endswith(".succeeded")
        ]
        assert final == [ended.final_event_id]
        return ended


@pytest.fixture
async def half(tmp_path: Path) -> AsyncIterator[_Half]:
    """A fresh cluster with a pipeline that waits in its middle."""
    async with running_cluster(tmp_path / "cluster") as (cluster, client):
        yield _Half(cluster, client, tmp_path / "pipeline")


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncIterator[_Half]:
    """The same with a lease of ten times what an agent needs to start again on a busy machine."""
    folder = tmp_path / "cluster"
    async with running_cluster(folder, lease_seconds=40.0) as (cluster, client):
        yield _Half(cluster, client, tmp_path / "pipeline")


async def test_a_board_with_a_replica_dies_and_its_work_goes_on_elsewhere(half: _Half) -> None:
    """Issue: kill -9 of the agent that runs a detector; cases E1, F16."""
    before = await half.start()
    victim = _board_of(before, "square", sparing=("numbers", "table"))
    moved = [job.id for job in before.jobs if job.node == victim]
    await half.cluster.kill_board(victim)
    await when(half.client, half.name, lambda now: _all_running_elsewhere(now, moved, victim))
    ended = await half.ends_as_ever()
    for job in moved:
        attempts = job_of(ended, job).attempts
        assert [attempt.state for attempt in attempts] == [JobState.LOST, JobState.SUCCEEDED]
        assert attempts[0].epoch < attempts[1].epoch
        # Faster than the lease: a port that refuses says that everything behind it is dead.
        assert "stream worker" in attempts[0].reason.message
    for other in ended.jobs:
        if other.id not in moved:
            assert len(other.attempts) == 1, describe(ended)


@pytest.mark.parametrize("job", ["numbers", "table"])
async def test_a_board_with_a_job_that_keeps_state_dies_and_everything_is_replayed(
    half: _Half, job: str
) -> None:
    """A source begins again, a sink reads from the start; nothing shows it."""
    before = await half.start()
    victim = job_of(before, job).node
    await half.cluster.kill_board(victim)
    moved = [view.id for view in before.jobs if view.node == victim]
    half.open()
    await when(half.client, half.name, lambda now: _placed_elsewhere(now, moved, victim))
    await half.ends_as_ever()


async def test_an_agent_that_is_killed_and_comes_back_finds_its_jobs_still_running(
    patient: _Half,
) -> None:
    """Keeper and stream worker outlive the agent: no attempt is lost."""
    before = await patient.start()
    victim = _board_of(before, "square", sparing=("numbers", "table"))
    agent = patient.cluster.agents[victim]
    await agent.kill()
    await agent.start()
    await patient.cluster.wait_for_agents([victim])
    ended = await patient.ends_as_ever()
    assert [len(job.attempts) for job in ended.jobs] == [1] * len(ended.jobs), describe(ended)


async def test_the_controller_dies_and_comes_back_and_nothing_is_lost_or_doubled(
    half: _Half,
) -> None:
    """Issue: kill -9 of the controller; agents go on, one manifest, one final event id."""
    await half.start()
    await half.cluster.controller.kill()
    half.open()
    await half.cluster.controller.start()
    ended = await half.ends_as_ever()
    assert [len(job.attempts) for job in ended.jobs] == [1] * len(ended.jobs), describe(ended)


async def test_a_broker_that_is_away_gets_every_event_afterwards(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """Cases E8: at least once, in order per subject, each with an id."""
    url = f"mqtt://{mosquitto.host}:{mosquitto.port}"
    async with running_cluster(tmp_path / "cluster", mqtt=url) as (_, client):
        mosquitto.kill()
        submitted = await submit(
            client, tmp_path / "job", "{name: quiet, jobs: {job: {run: 'true'}}}", {}
        )
        ended = await client.wait(submitted.pipeline.id, deadline_seconds=_DEADLINE)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)
        waiting = await client.events(ended.name)
        assert not any(event.published for event in waiting.events)
        assert waiting.publisher_state
        mosquitto.start()

        async def all_published() -> bool:
            events = await all_events(client, ended.name)
            return all(event.published for event in events)

        await until(all_published, _DEADLINE, "every event is published")
        async with aiomqtt.Client(mosquitto.host, mosquitto.port) as consumer:
            await consumer.subscribe(f"shoal/default/{ended.name}/state", qos=1)
            retained = await anext(aiter(consumer.messages))
        assert ended.final_event_id.encode() in bytes(retained.payload)


def _arrived(pipeline: PipelineView) -> int:
    return sum(
        stream.records
        for job in pipeline.jobs
        if job.id == "table"
        for stream in job.streams
        if not stream.output
    )


def _board_of(pipeline: PipelineView, job: str, *, sparing: tuple[str, ...]) -> str:
    others = {view.node for view in pipeline.jobs if view.spec_name in sparing}
    nodes = {view.node for view in pipeline.jobs if view.spec_name == job}
    return min(nodes, key=lambda node: (node in others, node))


def _all_running_elsewhere(pipeline: PipelineView, jobs: list[str], lost: str) -> bool:
    return all(
        job_of(pipeline, job).state is JobState.RUNNING and job_of(pipeline, job).node != lost
        for job in jobs
    )


def _placed_elsewhere(pipeline: PipelineView, jobs: list[str], lost: str) -> bool:
    return all(job_of(pipeline, job).node not in {"", lost} for job in jobs)
