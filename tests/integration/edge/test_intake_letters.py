"""What a broker does not take of an intake is no success: a message that is put aside would be lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest

from services.events.broker_url import parse_url
from services.intake.message import IncomingMessage, MessageKind
from services.intake.mqtt import MqttDeadLetters, MqttIntakeLink
from services.intake.source import LetterRefusedError, ServerAwayError
from tests.kit.mosquitto import Mosquitto
from tests.kit.until import until


def message(body: bytes) -> IncomingMessage:
    return IncomingMessage("mqtt:tasks", MessageKind.TASK, "m-1", body, "1 1 1", id_given=False)


async def deliver(_: IncomingMessage) -> None:
    raise AssertionError("nothing is published on the topic of tasks")


@asynccontextmanager
async def linked(broker: Mosquitto) -> AsyncIterator[MqttIntakeLink]:
    address = parse_url(f"mqtt://{broker.host}:{broker.port}")
    topics = {"tasks": MessageKind.TASK}
    link = MqttIntakeLink(address, "intake", topics, 10, chance=lambda: 0.5)
    running = asyncio.create_task(link.run(deliver))
    try:
        await until(lambda: link._client is not None, 30, "the connection")
        yield link
    finally:
        running.cancel()


async def test_a_letter_that_an_access_list_or_a_limit_refuses_was_not_put_aside(
    tmp_path: Path,
) -> None:
    access = tmp_path / "access"
    access.write_text("topic read tasks\ntopic readwrite dead\n")
    limits = f"allow_anonymous true\nacl_file {access}\nmax_packet_size 2000"
    broker = Mosquitto(tmp_path / "mosquitto", limits)
    await asyncio.to_thread(broker.start)
    try:
        async with (
            linked(broker) as link,
            aiomqtt.Client(broker.host, broker.port) as reader,
        ):
            await reader.subscribe("dead", qos=1)
            with pytest.raises(ServerAwayError, match=r"'denied'.*Not authorized"):
                await MqttDeadLetters(link, "denied").bury(message(b"{}"), 5, "no JSON")
            with pytest.raises(ServerAwayError, match=r"'ActiveNodes'.*Not authorized"):
                await link.publish_retained("ActiveNodes", b"{}")
            dead = MqttDeadLetters(link, "dead")
            with pytest.raises(
                LetterRefusedError, match="more than the 2000 that the broker takes"
            ):
                await dead.bury(message(bytes(1_990)), 5, "no JSON")
            with pytest.raises(LetterRefusedError, match="topic ActiveNodes"):
                await link.publish_retained("ActiveNodes", bytes(1_990))
            await dead.bury(message(b"{"), 5, "no JSON")
            found = await asyncio.wait_for(anext(aiter(reader.messages)), 30)
            assert found.payload == b"{"
    finally:
        broker.stop()
