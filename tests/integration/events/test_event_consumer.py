"""A consumer of events at a real broker: nothing is lost and nothing is handed over twice, whatever dies."""

import asyncio
import json
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import aiomqtt
import pytest

from shoal.events.consumer import EventConsumer
from shoal.events.memory import FileEventMemory, WindowEventMemory
from shoal.events.refusal import SubscriptionRefusedError
from shoal.events.topics import UPDATES, events_of
from tests.kit.child_process import ChildProcess
from tests.kit.mosquitto import Mosquitto
from tests.kit.until import until

TOPIC = "shoal/default/pipelines/p/events"
_SEVERAL = 300

# What a program does with events: it writes them down, with their ids, in one transaction.
_PROGRAM = """
import asyncio, sqlite3, sys
from shoal.events.consumer import EventConsumer
from shoal.events.memory import FileEventMemory
from shoal.events.topics import events_of

port, path, own = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "own"
db = sqlite3.connect(path, isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("CREATE TABLE IF NOT EXISTS effect (number INTEGER PRIMARY KEY, id TEXT)")

class InTheSameTransaction:
    async def handled(self, event):
        return db.execute("SELECT 1 FROM effect WHERE id = ?", (event,)).fetchone() is not None
    async def record(self, event):
        pass

async def main():
    memory = InTheSameTransaction() if own else FileEventMemory(path + ".handled")
    async with EventConsumer("127.0.0.1", events_of(), "program", port, memory=memory) as consumer:
        async for event in consumer:
            db.execute("INSERT INTO effect (id) VALUES (?)", (event.id,))

asyncio.run(main())
"""


def envelope(number: int, subject: str = "pipelines/p") -> bytes:
    return json.dumps(
        {
            "specversion": "1.0",
            "id": f"e{number}",
            "type": "shoal.pipeline.running",
            "subject": subject,
            "sequence": str(number),
            "data": {"number": number},
        }
    ).encode()


async def publish(broker: Mosquitto, *numbers: int, topic: str = TOPIC) -> None:
    async with aiomqtt.Client(broker.host, broker.port) as client:
        for number in numbers:
            await client.publish(topic, envelope(number), qos=1)


async def known(broker: Mosquitto, name: str) -> None:
    """Let the broker have a session for a consumer, which then leaves."""
    async with EventConsumer(broker.host, events_of(), name, broker.port) as consumer:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await anext(consumer)


@asynccontextmanager
async def consuming(
    broker: Mosquitto, name: str, **more: object
) -> AsyncIterator[tuple[EventConsumer, list[str]]]:
    """Consume until the end of the block; the list grows."""
    found: list[str] = []
    consumer = EventConsumer(broker.host, events_of(), name, broker.port, **more)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    async def consume() -> None:
        async with consumer:
            async for event in consumer:
                found.append(event.id)  # noqa: PERF401 - one by one, as they come

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(consume())
        yield consumer, found
        task.cancel()


def effects(path: Path) -> list[str]:
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as db:
        tables = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'effect'").fetchone()
        if tables is None:
            return []
        return [row[0] for row in db.execute("SELECT id FROM effect ORDER BY number")]


def has_reached(path: Path, count: int) -> bool:
    return len(effects(path)) >= count


@pytest.fixture
def program(tmp_path: Path) -> Iterator[ChildProcess]:
    child = ChildProcess(tmp_path / "program.log")
    try:
        yield child
    finally:
        child.end(signal.SIGKILL, 10)


@pytest.mark.parametrize("own", [True, False])
async def test_a_program_that_is_killed_again_and_again_misses_nothing(
    mosquitto: Mosquitto, tmp_path: Path, program: ChildProcess, *, own: bool
) -> None:
    """With its memory in the transaction of its effects, each event has its effect exactly once."""
    await known(mosquitto, "program")
    path = tmp_path / "effects.db"
    argv = [
        sys.executable,
        "-c",
        _PROGRAM,
        str(mosquitto.port),
        str(path),
        "own" if own else "file",
    ]
    await publish(mosquitto, *range(_SEVERAL))
    kills = 0
    for at in (1, 2, 20, 21, 77, 150, 299):
        program.run(argv)
        await until(partial(has_reached, path, at), 60, f"{at} effects")
        program.end(signal.SIGKILL, 10)
        kills += 1
    program.run(argv)
    last = f"e{_SEVERAL - 1}"
    await until(lambda: last in effects(path), 60, "the last effect")
    found = effects(path)
    wanted = [f"e{number}" for number in range(_SEVERAL)]
    assert list(dict.fromkeys(found)) == wanted, "in order, and none is missing"
    assert len(found) == _SEVERAL if own else len(found) <= _SEVERAL + kills


async def test_what_is_published_twice_is_handed_over_once(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    memory = FileEventMemory(tmp_path / "handled.db")
    async with consuming(mosquitto, "twice", memory=memory) as (consumer, found):
        await until(lambda: consumer._connection is not None, what="a connection")  # pyright: ignore[reportPrivateUsage]
        await publish(mosquitto, 1, 2, 1, 2, 3, 1)
        await until(lambda: "e3" in found, what="the third event")
    async with consuming(mosquitto, "twice", memory=FileEventMemory(tmp_path / "handled.db")) as (
        _,
        later,
    ):
        await publish(mosquitto, 3, 1, 4)
        await until(lambda: "e4" in later, what="the fourth event")
    assert (found, later) == (["e1", "e2", "e3"], ["e4"])


async def test_a_broker_that_goes_away_is_waited_for_and_nothing_is_lost(
    mosquitto: Mosquitto,
) -> None:
    await known(mosquitto, "patient")
    mosquitto.stop()
    async with consuming(mosquitto, "patient") as (consumer, found):
        await until(lambda: consumer.waits, what="a sentence about the broker")
        assert f"broker 127.0.0.1:{mosquitto.port} is away" in consumer.waits
        mosquitto.start()
        await publish(mosquitto, 1, 2)
        await until(lambda: len(found) == 2, what="two events")
        assert consumer.waits == ""
        mosquitto.stop()
        await until(lambda: consumer.waits, what="the loss")
        mosquitto.start()
        await publish(mosquitto, 3)
        await until(lambda: len(found) == 3, what="the third event")
    assert found == ["e1", "e2", "e3"]


async def test_what_was_not_done_with_comes_again(mosquitto: Mosquitto) -> None:
    await known(mosquitto, "fails")
    await publish(mosquitto, 1, 2)
    memory = WindowEventMemory()
    consumer = EventConsumer(mosquitto.host, events_of(), "fails", mosquitto.port, memory=memory)

    async def fail() -> None:
        async with consumer:
            async for _ in consumer:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    again = EventConsumer(mosquitto.host, events_of(), "fails", mosquitto.port, memory=memory)
    async with again:
        assert [(await anext(again)).id, (await anext(again)).id] == ["e1", "e2"]
        await again.done()
        await again.done()


async def test_a_call_that_is_cancelled_takes_nothing(mosquitto: Mosquitto) -> None:
    async with EventConsumer(mosquitto.host, events_of(), "hasty", mosquitto.port) as consumer:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await anext(consumer)
        await publish(mosquitto, 1, 2)
        found: list[str] = []

        async def take() -> bool:
            try:
                async with asyncio.timeout(0.01):
                    found.append((await anext(consumer)).id)
            except TimeoutError:
                pass
            return len(found) == 2

        await until(take, what="two events")
    assert found == ["e1", "e2"]


async def test_what_is_no_event_is_handed_over_as_it_came(mosquitto: Mosquitto) -> None:
    topics = (UPDATES, "other/#")
    async with EventConsumer(mosquitto.host, topics, "any", mosquitto.port) as consumer:
        first = asyncio.ensure_future(anext(consumer))
        await until(lambda: consumer._connection is not None, what="a connection")  # pyright: ignore[reportPrivateUsage]
        async with aiomqtt.Client(mosquitto.host, mosquitto.port) as client:
            message = json.dumps({"event_id": "u1", "status": "Done"})
            for payload in ("{", "[]", message, message, json.dumps({"status": "Done"})):
                await client.publish(UPDATES, payload, qos=1)
            await client.publish("other/x", b"\xff\x00", qos=0)
        found = [await first, *[await anext(consumer) for _ in range(4)]]
    assert [one.payload for one in found[:2]] == [b"{", b"[]"]
    assert [one.id for one in found] == ["", "", "u1", "", ""]
    assert found[2].data["status"] == "Done"
    assert found[4].topic == "other/x"


async def test_a_topic_that_is_refused_is_an_error() -> None:
    """Mosquitto refuses no subscription, it only delivers nothing; others do, as MQTT 5 lets them."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await _packet(reader)
            writer.write(b"\x20\x03\x00\x00\x00")  # CONNACK
            subscribe = await _packet(reader)
            writer.write(b"\x90\x04" + subscribe[:2] + b"\x00\x87")  # SUBACK: not authorized
            await reader.read()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, EventConsumer("127.0.0.1", (TOPIC,), "curious", port) as consumer:
        async with asyncio.timeout(40):
            with pytest.raises(SubscriptionRefusedError, match=TOPIC):
                await anext(consumer)


async def _packet(reader: asyncio.StreamReader) -> bytes:
    _, length = await reader.readexactly(2)
    assert length < 128
    return await reader.readexactly(length)


async def test_the_last_ids_are_remembered_and_no_more(tmp_path: Path) -> None:
    for memory in (WindowEventMemory(3), FileEventMemory(tmp_path / "db", 3)):
        for number in (1, 2, 3, 3, 4, 5):
            await memory.record(str(number))
        assert [await memory.handled(str(number)) for number in range(1, 6)] == [
            *(False, False),
            *(True, True, True),
        ]
