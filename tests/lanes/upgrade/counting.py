"""A pipeline over three boards that counts until it is told to stop, and checks that nothing is lost or comes twice."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from shoal.client import Client
from shoal.model import JobState, PipelineState
from shoal.view import PipelineView
from tests.kit.builds import Build
from tests.kit.cluster import describe, job_of, when
from tests.kit.until import until
from tests.lanes.upgrade.mixed_cluster import MixedCluster

_SPEC = """
name: counting
bundle: .
jobs:
  source:
    run: python source.py {stop}
    resources: {{cpus: 0.25}}
    place: {{require: {{board: {boards[0]}}}}}
    outputs: [numbers]
  double:
    run: python double.py
    resources: {{cpus: 0.25}}
    place: {{require: {{board: {boards[1]}}}}}
    inputs: {{numbers: source.numbers}}
    outputs: [doubles]
  sink:
    run: python sink.py
    resources: {{cpus: 0.25}}
    place: {{require: {{board: {boards[2]}}}}}
    inputs: {{values: double.doubles}}
"""
_SOURCE = """
import pathlib, sys, threading
from shoal import job

@job.source
def source():
    stop, paced, number = pathlib.Path(sys.argv[1]), threading.Event(), 0
    while not stop.exists():
        yield number
        number += 1
        paced.wait(0.005)
    (job.context.results / "count").write_text(str(number))
"""
_DOUBLE = """
from shoal import job

@job.main
def double(numbers):
    return 2 * numbers
"""
_SINK = """
from shoal import job

class Sink:
    def setup(self):
        self.count = 0

    def run(self, values):
        if values != 2 * self.count:
            raise SystemExit(f"{values} came where {2 * self.count} was expected")
        self.count += 1

    def finish(self):
        (job.context.results / "count").write_text(str(self.count))

if __name__ == "__main__":
    job.run(Sink)
"""


@dataclass(frozen=True, slots=True)
class Counting:
    """A pipeline that counts; `stop` ends it once it is there."""

    cluster: MixedCluster
    name: str
    stop: Path

    @classmethod
    async def begun(
        cls, cluster: MixedCluster, build: Build, boards: tuple[str, str, str]
    ) -> "Counting":
        """Submit one over three boards with a client of a build, and wait until it flows."""
        folder = Path(tempfile.mkdtemp(prefix="counting-", dir=cluster.folder))
        stop = folder.with_name(f"{folder.name}.stop")
        (folder / "pipeline.yaml").write_text(_SPEC.format(stop=stop, boards=boards))
        (folder / "source.py").write_text(_SOURCE)
        (folder / "double.py").write_text(_DOUBLE)
        (folder / "sink.py").write_text(_SINK)
        said = cluster.call(build, "run", "--detach", str(folder)).strip()
        counting = cls(cluster, said.rpartition("/")[2], stop)
        async with cluster.client() as client:
            await when(client, counting.name, _running)
        await counting.flows()
        return counting

    async def flows(self) -> None:
        """Wait until more records have come through than now."""
        async with self.cluster.client() as client:
            before = await self._records(client)

            async def more() -> bool:
                return await self._records(client) > before + 20

            await until(more, 30, "records that go on")

    async def ended_well(self, build: Build) -> PipelineView:
        """End it, and compare what was sent with what has come, as a client of a build gets it."""
        self.stop.touch()
        async with self.cluster.client() as client:
            view = await client.wait(self.name)
        assert view.state is PipelineState.SUCCEEDED, describe(view)
        got = self.cluster.folder / f"{self.name}.got"
        self.cluster.call(build, "get", self.name, "-o", str(got))
        sent, came = (
            int((got / job / "results" / "count").read_text()) for job in ("source", "sink")
        )
        assert sent == came > 20
        return view

    async def _records(self, client: Client) -> int:
        view = await client.get(self.name)
        return sum(one.records for one in job_of(view, "sink").streams)


def _running(view: PipelineView) -> bool:
    return all(one.state is JobState.RUNNING for one in view.jobs)


def attempts(view: PipelineView) -> dict[str, int]:
    """How many attempts each job had."""
    return {one.id: len(one.attempts) for one in view.jobs}
