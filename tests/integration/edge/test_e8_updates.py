"""E8, invariant 11: the eight texts in order, each with an id, though the broker is killed in the middle."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest

from shoal.events.consumer import EventConsumer
from shoal.events.memory import FileEventMemory
from shoal.events.received import ReceivedEvent
from shoal.events.topics import UPDATES
from shoal.model import PipelineState
from tests.kit.cluster import describe, submit
from tests.kit.edge import Edge
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXTS = [
    "Downloading files...",
    "Download complete",
    "Installing dependencies....",
    "Dependencies successfully installed",
    "Task started",
    "Task Completed.",
    "Results uploaded",
    "Done",
]
_SPEC = """
name: e8
bundle: .
compat: {{user: ada, action: Classification, task: {task}, updates_topic: true}}
jobs:
  task:
    run: [sh, task.sh, "{gate}"]
    retry: {{attempts: {attempts}, backoff: 100ms}}
"""
_WAITS = 'until [ -e "$1" ]; do sleep 0.05; done; echo done > results/out.txt\n'


@asynccontextmanager
async def dashboard(edge: Edge, name: str, memory: Path) -> AsyncIterator[list[ReceivedEvent]]:
    """Consume the topic until the end of the block, as programs with the SDK do; the list grows."""
    found: list[ReceivedEvent] = []

    async def consume() -> None:
        with FileEventMemory(memory) as handled:
            async with EventConsumer(
                edge.broker.host, (UPDATES,), name, edge.broker.port, memory=handled
            ) as consumer:
                async for event in consumer:
                    found.append(event)  # noqa: PERF401 - one by one, as they come

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(consume())
        await until(
            lambda: edge.broker.saved.exists() and name.encode() in edge.broker.saved.read_bytes(),
            what="a session that the broker has saved",
        )
        yield found
        task.cancel()


def texts(found: list[ReceivedEvent], task: str) -> list[str]:
    return [one.data["status"] for one in found if one.data.get("taskName") == task]


async def test_a_consumer_sees_exactly_eight_though_the_broker_is_killed(
    edge: Edge, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    spec = _SPEC.format(task="task7", gate=gate, attempts=1)
    async with dashboard(edge, "dash-e8", tmp_path / "handled.db") as found:
        submitted = await submit(edge.client, tmp_path / "bundle", spec, {"task.sh": _WAITS})
        await until(lambda: texts(found, "task7") == TEXTS[:5], 30, "the start of the task")
        edge.broker.kill()
        gate.touch()
        ended = await edge.client.wait(submitted.pipeline.id, deadline_seconds=60)
        assert ended.state is PipelineState.SUCCEEDED, describe(ended)
        assert texts(found, "task7") == TEXTS[:5], "the broker is away"
        edge.broker.start()
        await until(lambda: "Done" in texts(found, "task7"), 60, "the end of the task")
        assert texts(found, "task7") == TEXTS
        ids = [one.id for one in found]
        assert len(set(ids)) == 8
        job = ended.jobs[0]
        attempt = job.attempts[-1]
        for number, one in enumerate(found, 1):
            assert one.data["event_id"] == one.id
            assert one.id.startswith(f"default/{job.name}/updates/")
            assert one.data["nodeID"] == attempt.node
            assert one.data["userName"] == "ada"
            assert one.data["stage"] == number
            assert time.strptime(one.data["time"], "%a %b %d %H:%M:%S %Y")
        # The manifest was in the archive before the last two left.
        keys = await edge.objects("archive/default/", edge.archive)
        assert f"archive/default/{job.name}/manifest.json" in keys
    # Who comes later is told the end: it is retained.
    async with aiomqtt.Client(edge.broker.host, edge.broker.port) as client, asyncio.timeout(40):
        await client.subscribe(UPDATES, qos=1)
        message = await anext(aiter(client.messages))
        assert message.retain
        assert json.loads(message.payload)["status"] == "Done"


async def test_a_task_that_fails_is_told_so_and_is_never_done(edge: Edge, tmp_path: Path) -> None:
    spec = _SPEC.format(task="task8", gate="-", attempts=2)
    async with dashboard(edge, "dash-fails", tmp_path / "handled.db") as found:
        submitted = await submit(edge.client, tmp_path / "bundle", spec, {"task.sh": "exit 3\n"})
        ended = await edge.client.wait(submitted.pipeline.id, deadline_seconds=60)
        assert ended.state is PipelineState.FAILED, describe(ended)
        await until(lambda: "Task failed: EXIT 3" in texts(found, "task8"), 30, "the failure")
        assert texts(found, "task8") == [
            *TEXTS[:5],
            "Trying again: EXIT 3",
            *TEXTS[:5],
            "Task failed: EXIT 3",
        ]
        assert len({one.id for one in found}) == len(found), "each attempt has ids of its own"


async def test_a_pipeline_that_does_not_ask_is_told_nothing_of(edge: Edge, tmp_path: Path) -> None:
    spec = "name: e8\nbundle: .\njobs: {task: {run: [sh, task.sh]}}\n"
    async with edge.subscribed(UPDATES) as heard, edge.subscribed("shoal/#") as events:
        submitted = await submit(edge.client, tmp_path / "bundle", spec, {"task.sh": "true\n"})
        ended = await edge.client.wait(submitted.pipeline.id, deadline_seconds=60)
        final = ended.final_event_id.encode()
        await until(
            lambda: any(final in bytes(one.payload) for one in events), what="the last event"
        )
        name = submitted.pipeline.id.encode()
        assert not [one for one in heard if name in bytes(one.payload)]
