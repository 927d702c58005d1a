"""Case E1: messages of the dashboard run where they say, once, whatever is killed; bad ones are put aside."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from shoal.model import JobState, PipelineState
from shoal.view import PipelineView
from tests.kit.cluster import describe, job_of
from tests.kit.edge import Edge, running_edge
from tests.kit.mosquitto import Mosquitto
from tests.kit.running_intake import RunningIntake
from tests.kit.s3_servers import Ministack
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

_TEMPLATE = """
name: ${{ parameters.name }}
parameters:
  name: {}
  task: {}
  node: {default: ""}
  device: {default: ""}
jobs:
  task:
    run: [sh, -c, 'echo "$1" > results/task; [ "$1" = quick ] || sleep 3', sh, "${{ parameters.task }}"]
    place: {require: {node: "${{ parameters.node }}"}}
    resources: {devices: ["${{ parameters.device }}"]}
"""


def task(name: str, **more: object) -> dict[str, object]:
    """The dashboard's message."""
    words = {"userName": "ada", "actionType": "Classification", "isCamera": "false"}
    return {**words, "taskName": name, **more}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def jetsons(
    tmp_path_factory: pytest.TempPathFactory, ministack: Ministack, edge_broker: Mosquitto
) -> AsyncIterator[Edge]:
    """Three boards, whose names the dashboard writes with a capital letter."""
    folder = tmp_path_factory.mktemp("jetsons")
    async with running_edge(folder, ministack, edge_broker, node_prefix="jetson") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def intake(
    jetsons: Edge, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningIntake]:
    folder = tmp_path_factory.mktemp("intake")
    template = folder / "template.yaml"
    template.write_text(_TEMPLATE)
    for name in ("taskQ1", "taskQ1-dead"):
        await jetsons.queue(name)
    words = ("--template", str(template), "--task-queue", "taskQ1", "--dead-queue", "taskQ1-dead")
    async with RunningIntake(jetsons, folder, *words) as running:
        yield running


async def run_of(edge: Edge, prefix: str) -> PipelineView:
    """The one pipeline whose id begins so, once it is there."""

    async def found() -> list[PipelineView]:
        return [one async for one in edge.client.list() if one.id.startswith(prefix)]

    [pipeline] = await until(found, 30, f"a pipeline {prefix}")
    return pipeline


async def address(edge: Edge, name: str) -> str:
    return (await edge.sqs.get_queue_url(QueueName=name))["QueueUrl"]


async def test_a_message_for_one_board_runs_there_and_once(
    jetsons: Edge, intake: RunningIntake
) -> None:
    """Case E1: in each spelling; "none" and nothing at all mean any board."""
    queue = await address(jetsons, "taskQ1")
    for number, node in enumerate(
        ({"nodeId": "Jetson2"}, {"nodeid": "Jetson2"}, {"node": "jetson2"})
    ):
        await jetsons.send(queue, task("quick", userName=f"bound{number}", **node))
    for number, node in enumerate(({"node": "none"}, {"nodeId": ""}, {})):
        await jetsons.send(queue, task("quick", userName=f"free{number}", **node))
    for number in range(3):
        bound = await run_of(jetsons, f"bound{number}-quick")
        ended = await jetsons.client.wait(bound.id, deadline_seconds=60)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)
        assert [attempt.node for attempt in job_of(ended, "task").attempts] == ["jetson2"]
        free = await run_of(jetsons, f"free{number}-quick")
        ended = await jetsons.client.wait(free.id, deadline_seconds=60)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    assert intake.process is not None


async def test_a_camera_is_asked_for_and_a_board_that_is_not_there_is_waited_for(
    jetsons: Edge, intake: RunningIntake
) -> None:
    queue = await address(jetsons, "taskQ1")
    await jetsons.send(queue, task("quick", userName="camera", isCamera="true"))
    await jetsons.send(queue, task("quick", userName="absent", nodeId="Jetson9"))
    for prefix, words in (
        ("camera-quick", "no free device of class video"),
        ("absent-quick", "label node=jetson9 is required"),
    ):
        pipeline = await run_of(jetsons, prefix)
        verdicts = await jetsons.client.explain(f"{pipeline.name}/jobs/task")
        assert all(words in str(verdict) for verdict in verdicts), verdicts
        await jetsons.client.cancel(pipeline.id)


async def test_an_agent_that_is_killed_a_second_after_the_start_ends_its_job_with_one_manifest(
    jetsons: Edge, intake: RunningIntake
) -> None:
    """Case E1: kill -9 of the agent."""
    queue = await address(jetsons, "taskQ1")
    await jetsons.send(queue, task("long", userName="killed", nodeId="Jetson1"))
    pipeline = await run_of(jetsons, "killed-long")
    await jetsons.client.when(
        pipeline.id, lambda one: job_of(one, "task").state is JobState.RUNNING
    )
    agent = jetsons.cluster.agents["jetson1"]
    await agent.kill()
    await agent.start()
    ended = await jetsons.client.wait(pipeline.id, deadline_seconds=90)
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)
    assert {attempt.node for attempt in job_of(ended, "task").attempts} == {"jetson1"}
    manifests = [
        key
        for key in await jetsons.objects("archive/", jetsons.archive)
        if ended.id in key and key.endswith("manifest.json")
    ]
    assert len(manifests) == 1


async def test_a_malformed_message_is_put_aside_with_its_reason_and_the_intake_stays(
    jetsons: Edge, intake: RunningIntake
) -> None:
    """Case E1: the original's worker ended."""
    queue, dead = await address(jetsons, "taskQ1"), await address(jetsons, "taskQ1-dead")
    bad = ["{", '{"userName":"ada"}', '{"userName":"../..","taskName":"x","actionType":"y"}']
    for body in bad:
        await jetsons.send(queue, body)
    found: dict[str, str] = {}

    async def all_there() -> bool:
        answer = await jetsons.sqs.receive_message(
            QueueUrl=dead, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        for message in answer.get("Messages", []):
            told = message.get("MessageAttributes", {})
            found[message.get("Body", "")] = str(told["shoal-reason"].get("StringValue"))
            assert told["shoal-tries"].get("StringValue") == "5"
        return len(found) == len(bad)

    await until(all_there, 60, "the dead letters")
    assert "is not JSON" in found[bad[0]]
    assert "no actionType" in found[bad[1]] or "no taskName" in found[bad[1]]
    assert "slash" in found[bad[2]]
    await jetsons.send(queue, task("quick", userName="after"))
    ended = await jetsons.client.wait(
        (await run_of(jetsons, "after-quick")).id, deadline_seconds=60
    )
    assert ended.state is PipelineState.SUCCEEDED, describe(ended)

    async def empty() -> bool:
        return await jetsons.waiting(queue) == 0

    await until(empty, 30, "an empty queue")
    assert intake.process is not None
    assert intake.process.poll() is None, intake.log()
    assert await asyncio.to_thread(intake.end, signal.SIGTERM) == 0, "it ends when it is asked to"
