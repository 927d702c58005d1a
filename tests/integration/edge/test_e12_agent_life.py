"""E12: an agent is set up without questions, its node is taken out of use, and going down leaves no process of ours."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from shoal.client import Client
from shoal.model import JobState, PipelineState
from shoal.spec import Job, Pipeline, Place, Placement, Retry
from shoal.view import JobView
from tests.kit.agent_process import AgentProcess
from tests.kit.running_controller import running_controller
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHOAL = str(Path(sys.executable).parent / "shoal")


async def shoal(*words: str, controller: str = "") -> tuple[int, str]:
    """Run a command to its end; returns its status and what it said."""
    process = await asyncio.create_subprocess_exec(
        SHOAL,
        *words,
        env={**os.environ, "SHOAL_CONTROLLER": controller},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(120):
        said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


class ConfiguredAgent(AgentProcess):
    """An agent that knows nothing but its settings file."""

    @property
    def file(self) -> Path:
        return self.state.with_suffix(".toml")

    def argv(self) -> list[str]:
        return [SHOAL, "agent", "--config", str(self.file)]


@dataclass(frozen=True, slots=True)
class Site:
    """A controller, and the boards `home`, which `init` has set up, and `away`."""

    address: str
    client: Client
    home: ConfiguredAgent
    away: AgentProcess


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("e12")
    async with (
        running_controller(folder / "controller", lease_seconds=30) as controller,
        Client(controller.grpc) as client,
    ):
        home = ConfiguredAgent(controller.grpc, name="home")
        status, said = await shoal(
            *("agent", "init", "--yes", "--config", str(home.file), "--insecure", "--name", "home"),
            *("--state", str(home.state), "--controller", controller.grpc, "--cpus", "4"),
            *("--gossip", "off", "--streams", "127.0.0.1:0", "--label", "place=home"),
            *("--sandbox", "none"),
        )
        assert status == 0, said
        try:
            async with home, AgentProcess(controller.grpc, name="away") as away:
                await until(lambda: _ready(client), 60, "both boards")
                yield Site(controller.grpc, client, home, away)
        finally:
            home.file.unlink()


async def _ready(client: Client) -> bool:
    return {node.name for node in await client.nodes() if node.connected} == {"home", "away"}


def _until_there(name: str, gate: Path, trace: Path) -> Pipeline:
    """A job that may not run twice, and says when it begins and ends; it ends once a file is there."""
    script = (
        f"echo begin >> {trace}; trap 'echo end >> {trace}; exit 143' TERM; "
        f"until test -e {gate}; do sleep 0.05; done; echo end >> {trace}; echo done > results/x"
    )
    job = Job(
        "main",
        ("sh", "-c", script),
        placement=Placement.AT_MOST_ONE_RUNNING,
        place=Place(prefer=("home", "away")),
        retry=Retry(attempts=1),
    )
    return Pipeline(name, (job,))


async def _job(client: Client, pipeline: str) -> JobView:
    (job,) = (await client.get(pipeline)).jobs
    return job


async def _runs(client: Client, pipeline: str, node: str) -> bool:
    job = await _job(client, pipeline)
    return (job.state, job.node) == (JobState.RUNNING, node)


async def test_drain_moves_what_runs_and_shows_what_it_waits_for(
    site: Site, tmp_path: Path
) -> None:
    """No retry is used up, and the job never runs twice."""
    gate, trace = tmp_path / "gate", tmp_path / "trace"
    submitted = (await site.client.submit(_until_there("steady", gate, trace))).pipeline.id
    await until(lambda: _runs(site.client, submitted, "home"), 60, "the job at home")
    status, said = await shoal("drain", "home", "--move", "--wait", controller=site.address)
    assert status == 0, said
    assert "home is drained; 1 attempt there still to end, and what still runs is moved now" in said
    assert f"pipelines/{submitted}/jobs/main/attempts/1" in said
    assert said.splitlines()[-1] == "nothing is left on home"
    await until(lambda: _runs(site.client, submitted, "away"), 60, "the job away")
    status, said = await shoal("drain", "--undo", "home", controller=site.address)
    assert said == "home is in use again\n"
    status, said = await shoal(
        "drain", "away", "--deadline", "1s", "--wait", controller=site.address
    )
    assert status == 0, said
    assert "and what still runs at " in said
    await until(lambda: _runs(site.client, submitted, "home"), 60, "the job back at home")
    await shoal("drain", "--undo", "away", controller=site.address)
    gate.touch()
    ended = await site.client.wait(submitted, deadline_seconds=60)
    assert ended.state is PipelineState.SUCCEEDED
    (job,) = ended.jobs
    states = [attempt.state for attempt in job.attempts]
    assert states == [JobState.CANCELLED, JobState.CANCELLED, JobState.SUCCEEDED]
    assert trace.read_text().split() == ["begin", "end"] * 3, "one after the other"


async def test_down_with_a_deadline_finishes_or_moves_what_runs_and_leaves_no_process(
    site: Site, tmp_path: Path
) -> None:
    """What ends in time ends here, with its results; what does not goes to the other board."""
    gates = {name: tmp_path / name for name in ("brief", "long")}
    found: dict[str, str] = {}
    for name, gate in gates.items():
        pipeline = _until_there(name, gate, tmp_path / f"{name}.trace")
        found[name] = (await site.client.submit(pipeline)).pipeline.id
    for waited in found.values():
        await until(partial(_runs, site.client, waited, "home"), 60, "the jobs at home")
    down = asyncio.create_task(
        shoal("agent", "down", "--drain", "--deadline", "4s", "--config", str(site.home.file))
    )
    await until(lambda: _drained(site.client, "home"), 60, "the drain")
    gates["brief"].touch()
    status, said = await down
    assert status == 0, said
    assert "waiting for " in said
    assert "the keeper, the stream worker and all jobs have ended" in said
    await until(lambda: not site.home.processes(), 30, "the end of every process of the node")
    brief = await site.client.wait(found["brief"], deadline_seconds=60)
    assert brief.state is PipelineState.SUCCEEDED
    assert [(one.node, one.state) for one in brief.jobs[0].attempts] == [
        ("home", JobState.SUCCEEDED)
    ]
    await until(lambda: _runs(site.client, found["long"], "away"), 60, "the long job away")
    gates["long"].touch()
    long = await site.client.wait(found["long"], deadline_seconds=60)
    assert long.state is PipelineState.SUCCEEDED
    assert [(one.node, one.state) for one in long.jobs[0].attempts] == [
        ("home", JobState.CANCELLED),
        ("away", JobState.SUCCEEDED),
    ]
    assert (tmp_path / "long.trace").read_text().split() == ["begin", "end"] * 2


async def _drained(client: Client, name: str) -> bool:
    return (await client.node(name)).drained
