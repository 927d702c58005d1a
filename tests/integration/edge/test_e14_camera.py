"""E14: a job that asks for a camera runs only where there is one, and `explain` says why not elsewhere.

That a job which did not ask for the camera cannot open it is in `device_of_a_group.py` and `device_of_all.py` of
`tests/integration/sandbox/attacks`.
"""

from pathlib import Path

from shoal.client import Client
from shoal.model import PipelineState
from shoal.names import JobRef
from shoal.spec import Job, Pipeline, Resources
from tests.kit.agent_process import AgentProcess
from tests.kit.running_controller import running_controller
from tests.kit.tx2_tree import Tx2Tree
from tests.kit.until import until


async def test_a_job_that_asks_for_a_camera_runs_only_where_a_board_has_one(tmp_path: Path) -> None:
    """The boards find their devices below the root that they are told, as `/dev/video*`."""
    seeing = Tx2Tree(tmp_path / "seeing", camera=True)
    blind = Tx2Tree(tmp_path / "blind")
    async with (
        running_controller(tmp_path / "controller", lease_seconds=60) as controller,
        Client(controller.grpc) as client,
        AgentProcess(controller.grpc, "--facts-root", str(blind.root), name="blind"),
    ):
        await until(lambda: _there(client, "blind"), 60, "the board without a camera")
        live = Job("live", ("true",), resources=Resources(0.5, 0, ("video",)))
        submitted = (await client.submit(Pipeline("live", (live,)))).pipeline
        await until(lambda: _waits(client, submitted.id), 60, "the word that no board has one")
        (verdict,) = await client.explain(JobRef("default", submitted.id, "live").name)
        assert not verdict.feasible
        assert "no free device of class video" in verdict.sentence
        async with AgentProcess(controller.grpc, "--facts-root", str(seeing.root), name="seeing"):
            ended = await client.wait(submitted.id, deadline_seconds=60)
            assert ended.state is PipelineState.SUCCEEDED
            assert [job.node for job in ended.jobs] == ["seeing"]
            nodes = {node.name: node for node in await client.nodes()}
            assert "video" in nodes["seeing"].capacity.devices
            assert "video" not in nodes["blind"].capacity.devices


async def _there(client: Client, name: str) -> bool:
    return any(node.name == name and node.connected for node in await client.nodes())


async def _waits(client: Client, pipeline: str) -> bool:
    (job,) = (await client.get(pipeline)).jobs
    return "video" in job.waiting_for
