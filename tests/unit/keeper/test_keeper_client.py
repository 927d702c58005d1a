"""The agent's end of the keeper's socket: what it makes of packets that hold several things."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.keeper.client import KeeperClient
from edge_agent.keeper.record import ProcessRecord
from tests.kit.until import until


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[tuple[KeeperClient, socket.socket]]:
    """A client, and the keeper's end of its connection."""
    path = tmp_path / "keeper.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(path))
        listening.listen(1)
        async with KeeperClient(path) as client:
            connection, _ = listening.accept()
            with connection:
                connection.setblocking(False)
                yield client, connection


def end_of(attempt: str) -> dict[str, object]:
    return {"exited": ProcessRecord(attempt, 7, running=False, exit_code=0).to_json()}


async def asked(connection: socket.socket) -> int:
    """The number of the request that has arrived."""
    packet = await asyncio.wait_for(
        asyncio.get_running_loop().sock_recv(connection, 1 << 17), timeout=10
    )
    return int(json.loads(packet)["id"])


async def test_an_answer_is_acted_on_before_an_end_that_comes_with_it(
    far: tuple[KeeperClient, socket.socket],
) -> None:
    client, connection = far
    seen: list[str] = []

    def taker(record: ProcessRecord) -> bool:
        seen.append(f"end of {record.attempt}")
        return True

    async def stop() -> None:
        await client.stop("a")
        seen.append("answer")

    client.listen(taker)
    stopping = asyncio.create_task(stop())
    number = await asked(connection)
    connection.send(json.dumps([end_of("before"), {"id": number}, end_of("a")]).encode())
    await until(lambda: len(seen) == 3, what="the answer and both ends")
    assert seen == ["end of before", "answer", "end of a"]
    await stopping


async def test_an_end_that_no_taker_takes_is_there_for_the_watcher(
    far: tuple[KeeperClient, socket.socket],
) -> None:
    client, connection = far
    client.listen(lambda record: record.attempt == "a")
    connection.send(json.dumps([end_of("a"), end_of("b")]).encode())
    record = await asyncio.wait_for(anext(client.exits()), timeout=10)
    assert record.attempt == "b"


async def test_what_is_dropped_is_asked_for_and_a_refusal_of_it_told_to_no_one(
    far: tuple[KeeperClient, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    client, connection = far
    client.drop("a")
    number = await asked(connection)
    connection.send(json.dumps([{"id": number, "error": "there is no attempt 'a'"}]).encode())
    connection.send(json.dumps(end_of("b")).encode())
    record = await asyncio.wait_for(anext(client.exits()), timeout=10)
    assert record.attempt == "b"
    assert not caplog.records
