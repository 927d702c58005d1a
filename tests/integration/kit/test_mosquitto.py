"""The broker of the kit remembers what it saved, also when it is killed."""

import asyncio
from pathlib import Path

import aiomqtt

from tests.kit.mosquitto import Mosquitto
from tests.kit.until import until


def _client(broker: Mosquitto, name: str) -> aiomqtt.Client:
    return aiomqtt.Client(broker.host, broker.port, identifier=name, clean_session=False)


async def test_a_killed_broker_delivers_what_it_saved(mosquitto: Mosquitto) -> None:
    async with _client(mosquitto, "reader") as reader:
        await reader.subscribe("shoal/#", qos=1)
    async with _client(mosquitto, "writer") as writer:
        await writer.publish("shoal/state", b"kept", qos=1)
    await until(
        lambda: mosquitto.saved.exists() and b"kept" in mosquitto.saved.read_bytes(),
        what="the message saved",
    )
    mosquitto.kill()
    mosquitto.start()
    async with _client(mosquitto, "reader") as reader, asyncio.timeout(10):
        message = await anext(reader.messages)
    assert message.payload == b"kept"


def test_each_broker_has_a_port_of_its_own(mosquitto: Mosquitto, tmp_path: Path) -> None:
    other = Mosquitto(tmp_path / "other")
    other.start()
    try:
        assert other.port != mosquitto.port
    finally:
        other.stop()
