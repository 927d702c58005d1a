"""A broker with the limits of AWS IoT Core, behind port 443's way of choosing a protocol."""

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.events.broker_url import parse_url
from tests.integration.events.test_outbox_shell import (
    MemoryRows,
    ids,
    large,
    publisher_at,
    running,
    sequences,
    subscribed,
)
from tests.kit.mosquitto import Mosquitto
from tests.kit.site_authority import SiteAuthority
from tests.kit.until import until

LIMITS = (
    "allow_anonymous true\nmessage_size_limit 131072\nmax_packet_size 149504\nmax_inflight_messages 100\n"
    "max_keepalive 30\nmax_qos 1"
)
ALPN = "x-amzn-mqtt-ca"


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    found = Mosquitto(tmp_path / "mosquitto", LIMITS)
    await asyncio.to_thread(found.start)
    try:
        yield found
    finally:
        found.stop()


@contextlib.asynccontextmanager
async def front(broker: Mosquitto, authority: SiteAuthority) -> AsyncIterator[int]:
    """Serve the broker over TLS to a client with a certificate that names the protocol, and hang up on others."""
    served = authority.issue("front")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(served.certificate, served.key)
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([ALPN])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        if chosen == ALPN:
            there, to_broker = await asyncio.open_connection(broker.host, broker.port)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(copy(reader, to_broker))
                tasks.create_task(copy(there, writer))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def published(broker: Mosquitto) -> Counter[str]:
    """How many messages of ours the broker took in each second."""
    lines = broker.log.read_text().splitlines()
    return Counter(
        line.partition(":")[0] for line in lines if "Received PUBLISH from shoal-test" in line
    )


async def test_events_keep_to_the_limits_and_what_is_too_large_is_cut(
    broker: Mosquitto, tmp_path: Path
) -> None:
    authority = SiteAuthority(tmp_path / "pki")
    mine = authority.issue("shoal")
    rows = MemoryRows()
    rows.add("pipelines/p", large(5_000))
    rows.add("pipelines/p", {"state": "after"})
    for number in range(150):
        rows.add(f"pipelines/other-{number}")
    everything = {entry.id for entry in rows.rows.values()}
    words = f"ca={authority.file}&certificate={mine.certificate}&key={mine.key}&limits=aws-iot"
    async with (
        front(broker, authority) as port,
        subscribed(broker.port, "shoal/ns/+/+/events") as found,
        running(publisher_at(rows, parse_url(f"mqtts://127.0.0.1:{port}?{words}&alpn={ALPN}"))),
    ):
        await until(lambda: ids(found) == everything, 30, "every event")
        await until(lambda: not rows.rows, 30, "an empty outbox")
    assert rows.aside == {}
    assert sequences(found, "pipelines/p") == [1, 2]
    sizes = [len(bytes(message.payload)) for message in found]
    assert 100_000 < max(sizes) <= 128 * 1024
    a_second = published(broker)
    assert sum(a_second.values()) >= 2 * len(everything)
    assert max(a_second.values()) <= 100


async def test_without_the_protocol_the_front_hangs_up_and_it_is_said(
    broker: Mosquitto, tmp_path: Path
) -> None:
    authority = SiteAuthority(tmp_path / "pki")
    mine = authority.issue("shoal")
    rows = MemoryRows()
    rows.add("pipelines/p")
    words = f"ca={authority.file}&certificate={mine.certificate}&key={mine.key}"
    async with (
        front(broker, authority) as port,
        running(publisher_at(rows, parse_url(f"mqtts://127.0.0.1:{port}?{words}"))) as publishing,
    ):
        await until(
            lambda: "hung up before it answered" in publishing.sentence(""), 20, "the sentence"
        )
    assert len(rows.rows) == 1
