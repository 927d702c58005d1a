"""Tasks on a topic of MQTT: acknowledged after the commit, kept by the broker meanwhile, put aside when bad."""

import json
from collections.abc import AsyncIterator

import aiomqtt
import pytest
import pytest_asyncio

from shoal.view import PipelineView
from tests.kit.edge import Edge
from tests.kit.running_intake import RunningIntake
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

_TEMPLATE = """
name: ${{ parameters.name }}
parameters: {name: {}, node: {}}
jobs:
  wait:
    run: ["true"]
    place: {require: {node: "${{ parameters.node }}"}}
"""


def task(user: str, **more: object) -> bytes:
    words = {"userName": user, "taskName": "t", "actionType": "a", "node": "nowhere", **more}
    return json.dumps(words).encode()


def cloud_event(identity: str, user: str) -> bytes:
    data = json.loads(task(user))
    event = {"specversion": "1.0", "id": identity, "source": "/app", "type": "task", "data": data}
    return json.dumps(event).encode()


async def publish(edge: Edge, *bodies: bytes) -> None:
    async with aiomqtt.Client(edge.broker.host, edge.broker.port) as client:
        for body in bodies:
            await client.publish("tasks/a", body, qos=1)


async def of(edge: Edge, user: str) -> list[PipelineView]:
    return [one async for one in edge.client.list() if one.id.startswith(f"{user}-t-")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def intake(
    edge: Edge, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningIntake]:
    folder = tmp_path_factory.mktemp("intake")
    template = folder / "template.yaml"
    template.write_text(_TEMPLATE)
    words = (
        "--task-topic",
        f"tasks/#={template}",
        "--dead-topic",
        "dead/tasks",
        "--held-messages",
        "3",
    )
    async with RunningIntake(edge, folder, *words) as running:
        await until(lambda: "connected to the broker" in running.log(), 30, "a subscription")
        yield running


async def test_what_is_published_twice_runs_once_and_what_is_bad_is_put_aside(
    edge: Edge, intake: RunningIntake
) -> None:
    """Cases E1 and E2, over MQTT; the reason is a user property."""
    async with edge.subscribed("dead/#") as dead:
        await publish(
            edge,
            *(task("same"), task("same")),
            *(cloud_event("e1", "event"), cloud_event("e1", "event")),
            *(task("named", id=1), task("named", id=2)),
            b"{",
        )

        async def all_there() -> bool:
            return bool(await of(edge, "same") and await of(edge, "event")) and (
                len(await of(edge, "named")) == 2
            )

        await until(all_there, 30, "the pipelines")
        await until(lambda: dead, 30, "a dead letter")
    assert len(await of(edge, "same")) == 1
    assert len(await of(edge, "event")) == 1
    [letter] = dead
    assert letter.payload == b"{"
    told = dict(getattr(letter.properties, "UserProperty", []))
    assert "not JSON" in told["shoal-reason"]
    assert told["shoal-tries"] == "5"
    assert told["shoal-source"] == "mqtt:tasks/#"


async def test_nothing_is_lost_while_intake_controller_or_broker_are_away(
    edge: Edge, intake: RunningIntake
) -> None:
    """A message is acknowledged after the commit, and the session outlives connections and processes."""

    async def there(user: str) -> bool:
        return len(await of(edge, user)) == 1

    intake.kill()
    await publish(edge, task("offline"))
    await intake.start()
    await until(lambda: there("offline"), 30, "what was published before the start")

    await edge.cluster.controller.kill()
    await publish(edge, task("waiting"))
    await until(lambda: "messages wait for a server" in intake.log(), 60, "the outage is told")
    intake.kill()  # with a message that it has and has not acknowledged
    await edge.cluster.controller.start()
    await intake.start()
    await until(lambda: there("waiting"), 60, "what was delivered before")

    connected = intake.log().count("connected to the broker")
    edge.broker.stop()
    await until(lambda: "the broker is away" in intake.log(), 30, "the broker is missed")
    edge.broker.start()
    await until(
        lambda: intake.log().count("connected to the broker") > connected, 60, "a connection"
    )
    await publish(edge, task("after"))
    await until(lambda: there("after"), 30, "what was published after")
    assert len(await of(edge, "waiting")) == 1
    assert intake.letters() == []
