"""Case E2: each message of a queue becomes one pipeline, and is deleted only after that is recorded."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from shoal.credentials import write_credentials
from shoal.identity import Role
from tests.kit.edge import Edge, running_edge
from tests.kit.joined import issued
from tests.kit.mosquitto import Mosquitto
from tests.kit.running_intake import QueueGate, RunningIntake, queue_gate
from tests.kit.s3_servers import Ministack
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = 100
TASK = {"userName": "ada", "actionType": "a", "node": "nowhere"}
_TEMPLATE = """
name: ${{ parameters.name }}
parameters: {name: {}, node: {}}
jobs:
  wait:
    run: [true]
    place: {require: {node: "${{ parameters.node }}"}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proven(
    tmp_path_factory: pytest.TempPathFactory, ministack: Ministack, edge_broker: Mosquitto
) -> AsyncIterator[Edge]:
    """A cluster with identity, whose controller believes no stranger."""
    folder = tmp_path_factory.mktemp("proven")
    async with running_edge(folder, ministack, edge_broker, agents=1, insecure=False) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(proven: Edge) -> AsyncIterator[QueueGate]:
    async with queue_gate(proven) as opened:
        yield opened


async def pipelines(edge: Edge) -> int:
    return len([one async for one in edge.client.list()])


async def test_a_hundred_messages_delivered_twice_become_a_hundred_pipelines(
    proven: Edge, gate: QueueGate, tmp_path: Path
) -> None:
    """Case E2: the request id is the MessageId; nothing is deleted before the commit."""
    identity = tmp_path / "identity"
    identity.mkdir()
    controller = proven.cluster.config.state / "controller"
    write_credentials(identity, issued(controller, Role.SUBMITTER, "intake"))
    template = tmp_path / "template.yaml"
    template.write_text(_TEMPLATE)
    queue = await proven.queue("taskQ2")
    for first in range(0, MESSAGES, 10):
        await proven.sqs.send_message_batch(
            QueueUrl=queue,
            Entries=[
                {
                    "Id": str(number),
                    "MessageBody": json.dumps(TASK | {"taskName": f"t{number}"}),
                }
                for number in range(first, first + 10)
            ],
        )
    intake = RunningIntake(
        proven,
        tmp_path / "intake",
        *("--identity", str(identity), "--template", str(template), "--task-queue", "taskQ2"),
        *("--sqs-endpoint", gate.address, "--hidden-seconds", "4"),
    )

    await proven.cluster.controller.kill()
    async with intake:
        await until(
            lambda: "messages wait for a server" in intake.log(), 30, "the controller is missed"
        )
        assert "DeleteMessage" not in gate.calls
        gate.shut = lambda action: action == "DeleteMessage"
        await proven.cluster.controller.start()

        async def all_there() -> bool:
            return await pipelines(proven) == MESSAGES

        await until(all_there, 60, "a pipeline for each message")
        await until(lambda: gate.calls.count("DeleteMessage") >= MESSAGES, 30, "tries to delete")
        assert await proven.waiting(queue) == MESSAGES
        intake.kill()

        gate.shut = lambda _action: False
        await intake.start()

        async def empty() -> bool:
            return await proven.waiting(queue) == 0

        await until(empty, 60, "an empty queue")
        assert await pipelines(proven) == MESSAGES
        assert intake.letters() == []


async def test_boards_hold_no_keys(proven: Edge) -> None:
    """Case E2: of agents and all that they start."""
    pids = [proven.cluster.agents["node-1"].pid]
    for pid in pids:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        pids += [int(one) for one in children.read_text().split()]
        assert b"AWS_" not in Path(f"/proc/{pid}/environ").read_bytes()
    held = b"AWS_SECRET_ACCESS_KEY"
    assert held in Path(f"/proc/{proven.cluster.controller.pid}/environ").read_bytes()
