"""A job that asks for a sandbox: it goes where that can be had, waits for such a node, and never gets less."""

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from shoal.client import Client
from shoal.model import JobState, PipelineState
from shoal.sandbox import Claim, Sandbox, SandboxLevel, SandboxNetwork
from shoal.spec import Environment, Job, Pipeline, Resources
from tests.kit.agent_process import AgentProcess
from tests.kit.cluster import describe, job_of, printed
from tests.kit.programs import program, unavailable
from tests.kit.running_controller import running_controller
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

NONE, USER, CONFINED = SandboxLevel
WITHOUT_BUBBLEWRAP = {**os.environ, "PATH": "/nowhere"}


@dataclass(frozen=True, slots=True)
class Site:
    """A controller, and the node `bare`, which has no bubblewrap."""

    address: str
    client: Client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    if os.geteuid():
        unavailable("an agent that gives its jobs users is root's")
    program("bwrap")
    folder = tmp_path_factory.mktemp("placement") / "controller"
    async with (
        running_controller(folder, lease_seconds=30) as controller,
        Client(controller.grpc) as client,
        AgentProcess(controller.grpc, name="bare", environ=WITHOUT_BUBBLEWRAP),
    ):
        await _connected(client, "bare")
        yield Site(controller.grpc, client)


async def _connected(client: Client, name: str) -> None:
    async def there() -> bool:
        return any(node.name == name and node.connected for node in await client.nodes())

    await until(there, 60, f"the session of {name}")


def seen(sandbox: Sandbox) -> Job:
    """A job that says as which user it runs, and which network interfaces it has."""
    seen = "id -u; cut -d: -f1 -s /proc/net/dev | tr -d ' ' | sort | tr '\\n' ' '"
    words = ("/bin/sh", "-c", f"PATH=/usr/bin:/bin; {seen}")
    return Job(
        "seen",
        words,
        environment=Environment(python="system"),
        resources=Resources(0.1, processes=32),
        sandbox=sandbox,
    )


async def test_nodes_tell_what_they_can_do_and_cannot(site: Site) -> None:
    (node,) = await site.client.nodes()
    assert node.sandbox is not None
    assert node.sandbox.default is NONE
    assert node.sandbox.levels == {NONE, USER}
    assert "install the package bubblewrap" in node.sandbox.refused[CONFINED]
    assert {Claim.MEMORY, Claim.PROCESSES, Claim.DISK} <= node.sandbox.enforces.keys()


@pytest.mark.parametrize("asked", [NONE, USER])
async def test_a_job_gets_the_level_that_it_asks_for_although_the_node_does_none_by_itself(
    site: Site, asked: SandboxLevel
) -> None:
    submitted = await site.client.submit(Pipeline("asks", (seen(Sandbox(asked)),)))
    ended = await site.client.wait(submitted.pipeline.name, deadline_seconds=60)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    uid, _ = (await printed(site.client, submitted.pipeline.name)).splitlines()
    assert (int(uid) == os.geteuid()) == (asked is NONE)


async def test_a_job_waits_for_a_node_that_can_do_more_and_is_told_why(site: Site) -> None:
    client = site.client
    asked = Sandbox(CONFINED, SandboxNetwork.NONE, frozenset({Claim.PROCESSES}))
    submitted = await client.submit(Pipeline("waits", (seen(asked),)))
    name = submitted.pipeline.name

    async def waiting_for() -> str:
        return job_of(await client.get(name), "seen").waiting_for

    said = await until(waiting_for, 60, "why it waits")
    assert "the job asks for the sandbox `confined`, and it can do `none` and `user`" in said
    (verdict,) = await client.explain(f"{name}/jobs/seen")
    assert not verdict.feasible
    assert "install the package bubblewrap" in verdict.sentence
    assert job_of(await client.get(name), "seen").state is JobState.QUEUED
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(AgentProcess(site.address, name="able"))
        ended = await client.wait(name, deadline_seconds=120)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)
        assert job_of(ended, "seen").node == "able"
        uid, interfaces = (await printed(client, name)).splitlines()
        assert int(uid) != os.geteuid()
        assert interfaces.split() == ["lo"]
