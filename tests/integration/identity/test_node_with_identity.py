"""A board with an identity: it fetches and stores over HTTPS, and gossips sealed, as a real process."""

from pathlib import Path

from shoal.client import Client
from shoal.identity import Role
from shoal.model import PipelineState
from tests.kit.agent_process import AgentProcess
from tests.kit.cluster import contents, describe, submit, when
from tests.kit.joined import issued, join_node
from tests.kit.running_controller import running_controller
from tests.kit.until import until

SPEC = """
name: writer
bundle: .
jobs:
  write:
    run: sh job.sh
"""


async def test_bundle_and_artifact_travel_over_https(tmp_path: Path) -> None:
    state = tmp_path / "controller"
    state.mkdir()
    async with running_controller(state, insecure=False) as addresses:
        agent = AgentProcess(addresses.grpc, "--no-insecure", "--gossip", "127.0.0.1:0",
                             "--join", addresses.gossip)  # fmt: skip
        join_node(state, agent.state, agent.name)
        person = issued(state, Role.OPERATOR, "ann")
        async with agent, Client(addresses.grpc, credentials=person) as client:
            name = (
                await submit(
                    client,
                    tmp_path / "spec",
                    SPEC,
                    {"job.sh": "printf 'over https' > results/out.txt\n"},
                )
            ).pipeline.id
            ended = await when(client, name, lambda view: view.state.terminal)
            assert ended.state is PipelineState.SUCCEEDED, describe(ended) + agent.log()
            got = await contents(client, ended, "results/out.txt", tmp_path / "out.txt")
            assert got == b"over https"
            (manifest,) = [job.manifest for job in ended.jobs if job.manifest is not None]
            for artifact in manifest.artifacts:
                assert (await client.artifact_url(artifact)).startswith("https://127.0.0.1:")

            async def alive() -> bool:
                return {(one.name, one.state.name) for one in await client.members()} == {
                    ("controller", "ALIVE"),
                    (agent.name, "ALIVE"),
                }

            await until(alive, 20, "the node in gossip")
