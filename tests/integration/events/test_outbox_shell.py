"""The publisher on a real broker, and on things that only look like one."""

import asyncio
import contextlib
import json
import random
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from services.events.broker_url import BrokerAddress
from services.events.entry import ENDED_SECONDS, OutboxEntry
from services.events.outbox.events import RowsRead
from services.events.outbox.machine import OutboxConfig
from services.events.outbox.shell import OutboxShell, RowsUnavailableError
from shoal.backoff import Backoff
from tests.kit.mosquitto import Mosquitto
from tests.kit.ports import free_port
from tests.kit.programs import program
from tests.kit.until import until

CONFIG = OutboxConfig(backoff=Backoff(initial_seconds=0.05, maximum_seconds=0.2))


class MemoryRows:
    """An outbox in memory that can be made to fail."""

    def __init__(self) -> None:
        self.rows: dict[int, OutboxEntry] = {}
        self.aside: dict[int, str] = {}
        self.failures = 0
        self._last = 0

    def add(
        self, subject: str, data: object = None, kind: str = "shoal.job.running"
    ) -> OutboxEntry:
        self._last += 1
        number = self._last
        entry = OutboxEntry(
            number, f"id-{number}", kind, "ns", subject, datetime.now(UTC), json.dumps(data)
        )
        self.rows[number] = entry
        return entry

    async def read(self, after: int, limit: int) -> RowsRead:
        self._fail()
        found = [row for number, row in self.rows.items() if number > after][:limit]
        through = found[-1].sequence if found else after
        return RowsRead(tuple(found), through, more=len(found) == limit)

    async def mark(self, sequences: Sequence[int], aside: Mapping[int, str]) -> None:
        self._fail()
        self.aside |= aside
        for sequence in sequences:
            del self.rows[sequence]

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise RowsUnavailableError("the disk is full")


def publisher(rows: MemoryRows, port: int, user: str = "", password: str = "") -> OutboxShell:
    return publisher_at(rows, BrokerAddress("127.0.0.1", port, user, password))


def publisher_at(rows: MemoryRows, address: BrokerAddress) -> OutboxShell:
    return OutboxShell(
        rows,
        address,
        "shoal-test",
        clock=time.monotonic,
        wall=lambda: datetime.now(UTC),
        chance=random.Random(1).random,
        config=CONFIG,
        timeout_seconds=1.0,
    )


@contextlib.asynccontextmanager
async def running(publishing: OutboxShell) -> AsyncIterator[OutboxShell]:
    task = asyncio.create_task(publishing.run())
    try:
        yield publishing
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def subscribed(
    port: int, topic: str, name: str = "listener"
) -> AsyncIterator[list[aiomqtt.Message]]:
    """Collect what arrives under `topic`, over the end of the broker, with a session of its own."""
    found: list[aiomqtt.Message] = []
    ready = asyncio.Event()

    async def listen() -> None:
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                async with aiomqtt.Client(
                    "127.0.0.1", port, identifier=name, clean_session=False
                ) as client:
                    await client.subscribe(topic, qos=1)
                    ready.set()
                    async for message in client.messages:
                        found.append(message)  # noqa: PERF401 - each as it arrives
            await until(lambda: reachable(port), 30, "the broker is back")

    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(listen())
        await ready.wait()
        yield found
        listening.cancel()


async def reachable(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def bodies(messages: Sequence[aiomqtt.Message]) -> list[dict[str, object]]:
    return [json.loads(bytes(message.payload)) for message in messages]


async def test_events_arrive_with_their_envelope_and_leave_the_outbox(
    mosquitto: Mosquitto,
) -> None:
    rows = MemoryRows()
    rows.add("pipelines/p")
    async with (
        subscribed(mosquitto.port, "shoal/ns/pipelines/p/events") as found,
        running(publisher(rows, mosquitto.port)) as publishing,
    ):
        await until(lambda: len(found) == 1, what="the first event")
        rows.add("pipelines/p")
        publishing.grown()
        await until(lambda: not rows.rows, what="an empty outbox")
        await until(lambda: len(found) == 2, what="the second event")
        assert (
            publishing.sentence("0 events wait")
            == f"connected to mqtt://127.0.0.1:{mosquitto.port}"
        )
    assert [body["id"] for body in bodies(found)] == ["id-1", "id-2"]
    # The state is retained: whoever comes later sees the last.
    async with subscribed(mosquitto.port, "shoal/ns/pipelines/p/state") as state:
        await until(lambda: len(state) == 1, what="the retained state")
        assert state[0].retain
        assert bodies(state)[0]["id"] == "id-2"


async def test_b13_a_broker_forgets_the_state_of_what_has_ended(mosquitto: Mosquitto) -> None:
    """Else it keeps one message for each job that ever ran."""
    rows = MemoryRows()
    rows.add("pipelines/runs")
    for what in ("succeeded", "failed", "cancelled"):
        rows.add(f"pipelines/{what}", kind="shoal.pipeline.running")
        rows.add(f"pipelines/{what}", kind=f"shoal.pipeline.{what}")
    async with running(publisher(rows, mosquitto.port)):
        await until(lambda: not rows.rows, what="an empty outbox")
    kept: dict[str, int] = {}
    async with aiomqtt.Client(
        "127.0.0.1", mosquitto.port, protocol=aiomqtt.ProtocolVersion.V5
    ) as client:
        await client.subscribe("shoal/ns/pipelines/+/state", qos=1)
        async with asyncio.timeout(30):
            async for message in client.messages:
                seconds = getattr(message.properties, "MessageExpiryInterval", 0)
                kept[str(message.topic).split("/")[3]] = seconds
                if len(kept) == 4:
                    break
    assert kept.pop("runs") == 0
    assert set(kept) == {"succeeded", "failed", "cancelled"}
    assert all(ENDED_SECONDS - 60 < seconds <= ENDED_SECONDS for seconds in kept.values())


async def test_a_killed_broker_loses_nothing_and_order_stays(mosquitto: Mosquitto) -> None:
    rows = MemoryRows()
    subjects = [f"pipelines/p{number}" for number in range(5)]
    async with (
        subscribed(mosquitto.port, "shoal/ns/pipelines/+/events") as found,
        running(publisher(rows, mosquitto.port)) as publishing,
    ):
        for _ in range(10):
            for subject in subjects:
                rows.add(subject)
        publishing.grown()
        await until(lambda: len(found) > 10, what="some events")
        mosquitto.kill()
        await until(lambda: not publishing.connected, what="the loss is noticed")
        for _ in range(10):
            for subject in subjects:
                rows.add(subject)
            publishing.grown()
        assert "unreachable since" in publishing.sentence("n events wait")
        await asyncio.to_thread(mosquitto.start)
        await until(lambda: not rows.rows, 30, "an empty outbox")
        await until(lambda: len(ids(found)) == 100, 30, "every event")
    for subject in subjects:
        seen = list(dict.fromkeys(sequences(found, subject)))
        assert seen == sorted(seen)
        assert len(seen) == 20


def ids(found: Sequence[aiomqtt.Message]) -> set[object]:
    return {body["id"] for body in bodies(found)}


def sequences(found: Sequence[aiomqtt.Message], subject: str) -> list[int]:
    return [int(str(body["sequence"])) for body in bodies(found) if body["subject"] == subject]


async def test_a_store_that_fails_for_a_while_loses_nothing(mosquitto: Mosquitto) -> None:
    rows = MemoryRows()
    rows.add("pipelines/p")
    rows.failures = 2
    async with (
        subscribed(mosquitto.port, "shoal/ns/#") as found,
        running(publisher(rows, mosquitto.port)),
    ):
        await until(lambda: not rows.rows, 20, "an empty outbox")
        await until(lambda: ids(found) == {"id-1"}, what="the event")


async def test_presence_says_online_and_the_will_says_offline(mosquitto: Mosquitto) -> None:
    topic = "shoal/controllers/shoal-test/state"
    async with subscribed(mosquitto.port, topic) as found:
        async with running(publisher(MemoryRows(), mosquitto.port)):
            await until(lambda: states(found)[-1:] == ["online"], what="online")
        await until(lambda: states(found)[-1:] == ["offline"], what="offline, said in good order")


def states(found: Sequence[aiomqtt.Message]) -> list[object]:
    return [body["state"] for body in bodies(found)]


async def test_user_and_password_and_a_refused_topic(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(
        [program("mosquitto_passwd"), "-b", "-c", str(passwords), "me", "secret"], check=True
    )
    access = tmp_path / "access"
    access.write_text("user me\ntopic write shoal/ns/pipelines/allowed/events\n")
    broker = Mosquitto(
        tmp_path / "mosquitto",
        f"allow_anonymous false\npassword_file {passwords}\nacl_file {access}",
    )
    await asyncio.to_thread(broker.start)
    try:
        rows = MemoryRows()
        rows.add("pipelines/p")
        async with running(publisher(rows, broker.port, "me", "wrong")) as refused:
            await until(lambda: "Not authorized" in refused.sentence(""), what="the refusal")
        async with running(publisher(rows, broker.port, "me", "secret")) as denied:
            # A refusal is no acknowledgement: the event stays, and the state says why. K9: it holds
            # up no other, though there are more of them than are ever on their way.
            await until(lambda: denied.resting("ns", "pipelines/p"), what="the refusal")
            assert "Not authorized" in denied.resting("ns", "pipelines/p")
            assert "events of one subject wait and are tried again" in denied.sentence("")
            for _ in range(2 * CONFIG.window):
                rows.add("pipelines/p")
            allowed = rows.add("pipelines/allowed")
            denied.grown()
            await until(lambda: allowed.sequence not in rows.rows, 20, "the other event")
            assert denied.connected
        assert len(rows.rows) == 1 + 2 * CONFIG.window
        assert rows.aside == {}
        assert "secret" not in denied.sentence("")
    finally:
        broker.stop()


def large(paths: int) -> dict[str, object]:
    """The data of an event with that many artifacts, some 130 bytes each."""
    return {
        "pipeline": "p",
        "state": "succeeded",
        "artifacts": [
            {"path": f"results/{number}", "sha256": "0" * 64, "size_bytes": number}
            for number in range(paths)
        ],
        "manifests": "ns/pipelines/p/jobs/*/manifest.json",
    }


@contextlib.contextmanager
def broker_with(folder: Path, *lines: str) -> Iterator[Mosquitto]:
    broker = Mosquitto(folder / "mosquitto", "\n".join(("allow_anonymous true", *lines)))
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def dials(broker: Mosquitto) -> int:
    """How often our publisher has connected."""
    return sum("as shoal-test (p5" in line for line in broker.log.read_text().splitlines())


@pytest.mark.parametrize(
    "limit", ["max_packet_size 20000", "message_size_limit 19000"], ids=["told", "untold"]
)
async def test_k9_a_large_event_is_cut_to_what_the_broker_takes(tmp_path: Path, limit: str) -> None:
    """K9: 300 artifacts and `max_packet_size 20000`; what comes behind it arrives, in one dial."""
    rows = MemoryRows()
    rows.add("pipelines/p", large(300))
    rows.add("pipelines/p", {"state": "after"})
    rows.add("pipelines/other")
    with broker_with(tmp_path, limit) as broker:
        async with (
            subscribed(broker.port, "shoal/ns/#") as found,
            running(publisher(rows, broker.port)),
        ):
            await until(lambda: not rows.rows, 20, "an empty outbox")
            await until(lambda: ids(found) == {"id-1", "id-2", "id-3"}, 20, "all events")
        assert sequences(found, "pipelines/p") == [1, 1, 2, 2]  # on both topics
        data: list[Any] = [body["data"] for body in bodies(found) if body["id"] == "id-1"]
        cut = data[0]
        assert cut["cut"] is True
        assert cut["artifacts_total"] == 300
        assert 0 < len(cut["artifacts"]) < 200
        assert cut["manifests"] == "ns/pipelines/p/jobs/*/manifest.json"
        assert rows.aside == {}
        # This one names no limit, and says a refusal in a way that ends the link: each try is shorter.
        assert dials(broker) <= (1 if limit.startswith("max_packet_size") else 5)


async def test_k9_what_does_not_fit_at_all_is_set_aside(tmp_path: Path) -> None:
    rows = MemoryRows()
    rows.add("pipelines/p", {"state": "x" * 100, "name": "y" * 199})
    rows.add("pipelines/other")
    with broker_with(tmp_path, "max_packet_size 400") as broker:
        async with running(publisher(rows, broker.port)):
            await until(lambda: not rows.rows, 20, "an empty outbox")
        assert set(rows.aside) == {1}
        assert "not even cut does it fit" in rows.aside[1]


@pytest.mark.parametrize(
    ("line", "remark"),
    [("retain_available false", "retains no messages"), ("max_qos 0", "acknowledges nothing")],
)
async def test_k9_a_broker_that_does_less_gets_events_and_it_is_said(
    tmp_path: Path, line: str, remark: str
) -> None:
    rows = MemoryRows()
    rows.add("pipelines/p")
    with broker_with(tmp_path, line) as broker:
        async with (
            subscribed(broker.port, "shoal/ns/+/+/events") as found,
            running(publisher(rows, broker.port)) as publishing,
        ):
            await until(lambda: ids(found) == {"id-1"}, 20, "the event")
            await until(lambda: not rows.rows, 20, "an empty outbox")
            assert remark in publishing.sentence("")


async def test_k9_a_broker_that_only_hangs_up_is_not_dialled_all_the_time(
    mosquitto: Mosquitto,
) -> None:
    """As one before MQTT 5 does it: through a proxy that cuts each link with a long packet."""
    rows = MemoryRows()
    rows.add("pipelines/p", large(300))
    for number in range(20):
        rows.add(f"pipelines/other-{number}")
    proxy = Intolerant(mosquitto.port)
    async with proxy, running(publisher(rows, proxy.port)):
        await until(lambda: not rows.rows, 60, "the large one, shorter")
    # One link with all of them, one for each try, and they come further and further apart.
    assert proxy.dials <= proxy.cuts + 2
    assert rows.aside == {}


class Intolerant:
    """A proxy before a broker that hangs up on whoever sends more than 10 kB at once."""

    def __init__(self, port: int) -> None:
        self.dials = 0
        self.cuts = 0
        self.port = 0
        self._broker = port
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dials += 1
        there, to_broker = await asyncio.open_connection("127.0.0.1", self._broker)
        down = asyncio.create_task(self._copy(there, writer))
        with contextlib.suppress(OSError):
            while data := await reader.read(100_000):
                if len(data) > 10_000:
                    self.cuts += 1
                    break
                to_broker.write(data)
        down.cancel()
        writer.close()
        to_broker.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(10_000):
                writer.write(data)


async def test_without_a_broker_events_stay() -> None:
    rows = MemoryRows()
    rows.add("pipelines/p")
    async with running(publisher(rows, free_port())) as publishing:
        await until(lambda: "unreachable since" in publishing.sentence("1 event waits"))
        assert "1 event waits (" in publishing.sentence("1 event waits")
    assert len(rows.rows) == 1


MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "random": random.Random(7).randbytes(300),
    "a refusal": bytes([0x20, 3, 0, 0x87, 0]),
    "an endless length": bytes([0x20, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "accepted, then random": bytes([0x20, 3, 0, 0, 0]) + random.Random(8).randbytes(300),
    "accepted, then an unknown acknowledgement": bytes([0x20, 3, 0, 0, 0, 0x40, 2, 0x12, 0x34]),
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_a_malformed_answer_stops_nothing(what: str) -> None:
    calls: list[asyncio.StreamWriter] = []
    ended: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(writer)
        with contextlib.suppress(OSError):
            await reader.read(10)
            writer.write(MALFORMED[what])
            while await reader.read(1000):
                pass
        ended.append(writer)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    rows = MemoryRows()
    rows.add("pipelines/p")
    try:
        async with running(publisher(rows, port)) as publishing:
            await until(lambda: len(calls) >= 3, 30, "it dials again and again")
            # None of the earlier connections is left behind.
            await until(lambda: {*calls[:2]} <= {*ended}, 30, "no leak")
            assert "unreachable" in publishing.sentence("")
        assert len(rows.rows) == 1
    finally:
        server.close()
