"""Many requests at once: they go in few packets, in order, and one that is refused is refused alone."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from edge_agent.keeper.client import KeeperClient, KeeperError
from edge_agent.keeper.record import ProcessRecord
from edge_agent.keeper.request import MAX_PACKET_BYTES
from shoal.protocol_version import BATCHES, SANDBOXES
from tests.integration.keeper.programs import ended, program
from tests.kit.until import until

PROGRAMS = 40


def _talk(board: Path, highest: int, *packets: bytes) -> list[Any]:
    """What the keeper says to packets that wait for it, after a `watch`; one item a packet."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(20)
        link.connect(str(board / "keeper.sock"))
        link.send(json.dumps({"id": 1, "op": "watch", "protocols": [1, highest]}).encode())
        assert json.loads(link.recv(MAX_PACKET_BYTES))["id"] == 1
        for packet in packets:
            link.send(packet)
        link.shutdown(socket.SHUT_WR)
        found: list[Any] = []
        while said := link.recv(MAX_PACKET_BYTES):
            found.append(json.loads(said))
        return found


async def test_a_list_is_answered_by_a_list_and_what_is_wrong_in_it_alone(board: Path) -> None:
    asked = b'[{"id": 2, "op": "list"}, 7, {"id": 3, "op": "dance"}, {"op": "list"}, {"id": 4, "op": "list"}]'
    [answers] = await asyncio.to_thread(_talk, board, BATCHES, asked)
    assert [answer["id"] for answer in answers] == [2, 0, 3, 0, 4]
    assert [answer.get("error", "")[:12] for answer in answers] == [
        *("", "bad request:", "bad request:", "bad request:", "")
    ]
    [empty] = await asyncio.to_thread(_talk, board, BATCHES, b"[]")
    assert "empty list" in empty["error"]


async def test_who_does_not_speak_of_lists_gets_a_packet_a_message(board: Path) -> None:
    packets = (b'{"id": 2, "op": "list"}', b'{"id": 3, "op": "list"}')
    for highest in (1, SANDBOXES):
        answers = await asyncio.to_thread(_talk, board, highest, *packets)
        assert [answer["id"] for answer in answers] == [2, 3]


async def test_programs_that_are_asked_for_at_once_are_started_ended_and_forgotten(
    board: Path,
) -> None:
    names = [f"p{number}" for number in range(PROGRAMS)]
    long = {"PATH": os.environ["PATH"]} | {f"V{number}": "x" * 30_000 for number in range(6)}
    async with KeeperClient(board / "keeper.sock") as client:
        await client.watch()
        asked = [program(board, "/bin/echo", name, attempt=name) for name in names]
        # A request that is longer than a packet comes as a file, between the others.
        asked[7].env.update(long)  # type: ignore[attr-defined]
        asked[9] = program(board, "/no/such/program", attempt="p9")
        began = await asyncio.gather(*map(client.start, asked), return_exceptions=True)
        assert [type(one) for one in began] == [
            KeeperError if name == "p9" else int for name in names
        ]
        del names[9]
        heard = [record.attempt async for record in _some(client, len(names))]
        assert sorted(heard) == sorted(names)
        assert [record.attempt for record in await client.list()] == names, "in that order"
        for name in names:
            assert (board / f"{name}.out").read_text() == f"{name}\n"
        assert await asyncio.gather(*map(client.forget, names)) == [None] * len(names)
        assert await client.list() == []


async def _some(client: KeeperClient, count: int) -> AsyncIterator[ProcessRecord]:
    exits = client.exits()
    async with asyncio.timeout(60):
        for _ in range(count):
            yield await anext(exits)


async def test_an_agent_that_reads_late_hears_of_everything(board: Path) -> None:
    """What the socket does not take waits in the keeper, and nothing else does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        link.settimeout(20)
        link.connect(str(board / "keeper.sock"))
        async with KeeperClient(board / "keeper.sock") as client:
            for number in range(20):
                await client.start(program(board, "/bin/true", attempt=f"{number:0200d}"))
            for number in range(20):
                await ended(client, f"{number:0200d}")
            asked = 400
            for number in range(asked):
                link.send(b'{"id": %d, "op": "list"}' % number)
            await client.start(program(board, "/bin/true", attempt="meanwhile"))
            await ended(client, "meanwhile")
        heard = [
            json.loads(await asyncio.to_thread(link.recv, MAX_PACKET_BYTES))["id"]
            for _ in range(asked)
        ]
        assert heard == list(range(asked))


async def test_what_is_asked_of_a_keeper_that_dies_fails_at_once(board: Path) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        await client.watch()
        shut = asyncio.ensure_future(client.shutdown())
        await until(shut.done, what="the keeper ended")
        await until(lambda: not (board / "keeper.sock").exists(), what="its socket is gone")
        found = await asyncio.gather(
            *(client.forget(str(number)) for number in range(3)), return_exceptions=True
        )
    assert [isinstance(one, KeeperError) for one in found] == [True] * 3
