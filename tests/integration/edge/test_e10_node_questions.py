"""Cases E10 and E11: what a dashboard asks about nodes is answered on its topics, in its JSON, and retained."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiomqtt
import pytest
import pytest_asyncio

from tests.kit.edge import Edge
from tests.kit.running_intake import RunningIntake
from tests.kit.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

# As its programs read them: two are misspelt.
_KEYS = {
    *("Name", "IP", "Port", "location", "Aarchitecture", "OS", "OS_Version"),
    *("cpu_percent", "cpu_count", "total_memory", "memory_used", "memory_available", "temperatue"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def intake(
    edge: Edge, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningIntake]:
    await edge.queue("NodeCommunication")
    words = ("--node-queue", "NodeCommunication", "--node-topic", "questions")
    async with RunningIntake(edge, tmp_path_factory.mktemp("intake"), *words) as running:
        yield running


async def ask(edge: Edge, question: object, *, topic: bool = False) -> None:
    if topic:
        async with aiomqtt.Client(edge.broker.host, edge.broker.port) as client:
            await client.publish("questions", json.dumps(question), qos=1)
    else:
        queue = await edge.sqs.get_queue_url(QueueName="NodeCommunication")
        await edge.send(queue["QueueUrl"], question)


async def retained(edge: Edge, topic: str) -> Any:
    """What somebody is told who comes later."""
    async with edge.subscribed(topic) as heard:
        await until(lambda: heard, 40, f"an answer on {topic}")
    async with edge.subscribed(topic) as later:
        message = (await until(lambda: later, 40, "what is retained"))[0]
    assert message.retain
    return json.loads(bytes(message.payload))


@pytest.mark.parametrize("topic", [False, True])
async def test_e10_active_nodes_are_listed_as_the_original_does(
    edge: Edge, intake: RunningIntake, *, topic: bool
) -> None:
    await ask(edge, {"action": "Active"}, topic=topic)
    answer = await retained(edge, "ActiveNodes")
    assert list(answer) == ["Active"]
    assert [one["Name"] for one in answer["Active"]] == ["node-1", "node-2", "node-3"]
    assert all(set(one) == {"Name", "IP", "Port"} for one in answer["Active"])
    assert all(one["IP"] == "127.0.0.1" and one["Port"] > 0 for one in answer["Active"])
    assert intake.letters() == []


async def test_e11_one_node_is_told_with_the_keys_of_the_original(
    edge: Edge, intake: RunningIntake
) -> None:
    await ask(edge, {"action": "Info", "node": "Node-2"})
    answer = await retained(edge, "NodeInfo")
    assert answer.keys() >= _KEYS
    assert (answer["Name"], answer["OS"]) == ("node-2", "Linux")
    assert answer["Architecture"] == answer["Aarchitecture"] != ""
    assert answer["cpu_count"] > 0
    assert 0 < answer["memory_used"] < answer["total_memory"]
    assert answer["total_memory"] == round(answer["total_memory"], 2)
    assert answer["temperature"] == answer["temperatue"]
    assert answer["problem"] == ""
    assert intake.letters() == []


async def test_a_question_about_no_node_is_put_aside_with_the_reason(
    edge: Edge, intake: RunningIntake
) -> None:
    await ask(edge, {"action": "Info", "node": "nowhere"})
    await ask(edge, {"action": "Reboot"})
    await until(lambda: len(intake.letters()) == 2, 40, "both put aside")
    reasons = " ".join(letter["reason"] for letter in intake.letters())
    assert "nowhere" in reasons
    assert "'Reboot'" in reasons
