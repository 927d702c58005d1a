"""The publisher on a broker that speaks TLS."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from services.events.broker_url import parse_url
from services.events.outbox.shell import OutboxShell
from tests.integration.events.test_outbox_shell import MemoryRows, publisher_at, running
from tests.kit.certificate import write_certificate
from tests.kit.mosquitto import Mosquitto
from tests.kit.until import until


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[tuple[Mosquitto, Path]]:
    certificate, key = write_certificate(tmp_path)
    mosquitto = Mosquitto(
        tmp_path / "mosquitto",
        f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}",
    )
    await asyncio.to_thread(mosquitto.start)
    try:
        yield mosquitto, certificate
    finally:
        mosquitto.stop()


def says(publishing: OutboxShell, words: str) -> bool:
    return words in publishing.sentence("")


async def test_events_leave_over_tls(broker: tuple[Mosquitto, Path]) -> None:
    mosquitto, certificate = broker
    rows = MemoryRows()
    rows.add("pipelines/p")
    url = f"mqtts://127.0.0.1:{mosquitto.port}?ca={certificate}"
    async with running(publisher_at(rows, parse_url(url))):
        await until(lambda: not rows.rows, 20, "an empty outbox")


async def test_a_broker_that_cannot_be_trusted_gets_nothing(
    broker: tuple[Mosquitto, Path],
) -> None:
    mosquitto, _ = broker
    rows = MemoryRows()
    rows.add("pipelines/p")
    for url, words in (
        (f"mqtts://127.0.0.1:{mosquitto.port}", "issued by no authority that this system trusts"),
        (f"mqtts://127.0.0.1:{mosquitto.port}?ca=/nowhere.pem", "No such file"),
        (f"mqtt://127.0.0.1:{mosquitto.port}", "unreachable"),
    ):
        async with running(publisher_at(rows, parse_url(url))) as publishing:
            await until(partial(says, publishing, words), 20, words)
    assert len(rows.rows) == 1
