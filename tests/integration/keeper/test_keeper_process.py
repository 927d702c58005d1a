"""A real keeper with real programs: what it starts, ends, hands over and outlives."""

import asyncio
import json
import os
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from edge_agent.keeper.client import (
    KeeperClient,
    KeeperError,
    KeeperGoneError,
    ensure_keeper,
)
from edge_agent.keeper.launch import Port
from services.streams.worker.keeper_ports import fetch_ports
from tests.integration.keeper.programs import ended, keeper_of, pids, program
from tests.kit.until import until


async def test_a_program_gets_its_folder_environment_and_files(board: Path) -> None:
    (board / "input").write_text("from a file\n")
    async with KeeperClient(board / "keeper.sock") as client:
        script = 'pwd; echo "$MARK"; cat; echo oops >&2; exit 3'
        request = program(board, "/bin/sh", "-c", script, stdin=board / "input")
        pid = await client.start(request)
        assert await client.start(request) == pid
        record = await ended(client)
    assert (record.exit_code, record.signal, record.timed_out) == (3, None, False)
    assert (board / "a.out").read_text() == f"{board}\nhere\nfrom a file\n"
    assert (board / "a.err").read_text() == "oops\n"


async def test_ports_are_handed_over_again_to_the_next_agent(board: Path) -> None:
    ports = [Port("numbers", "in", 7), Port("doubled", "out", 1)]
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(
            program(board, "/bin/sh", "-c", "cat <&{inputs.numbers.fd}", ports=ports)
        )
    for end in fetch_ports(str(board / "keeper.sock"), "a").values():
        end.close()
    async with KeeperClient(board / "keeper.sock") as client:
        ends = fetch_ports(str(board / "keeper.sock"), "a")
        with ends["numbers", False] as numbers, ends["doubled", True] as doubled:
            numbers.setblocking(True)
            numbers.sendall(b"1 2 3")
            numbers.shutdown(socket.SHUT_WR)
            doubled.setblocking(True)
            received = await asyncio.to_thread(doubled.recv, 100)
        assert received == b"1 2 3"
        assert (await ended(client)).exit_code == 0


@pytest.mark.parametrize("days", [30, 3_650])
async def test_t4_a_timeout_of_many_days_does_not_end_the_keeper(board: Path, days: int) -> None:
    """`timeout: 30d` is more than epoll waits for: the keeper died of it, with every job."""
    async with KeeperClient(board / "keeper.sock") as client:
        request = program(board, "/bin/sleep", "60", timeout_seconds=days * 86_400.0)
        await client.start(request)
        (kept,) = await client.list()
        assert kept.running


async def test_a_timeout_ends_the_whole_process_group(board: Path) -> None:
    """Issue: `timeout: 2s` → the whole process group is gone; also case E6."""
    script = "trap '' TERM; sleep 600 & setsid sleep 601 & echo $$; wait; sleep 602"
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sh", "-c", script, timeout_seconds=0.3))
        record = await ended(client)
        assert record.timed_out
        assert record.signal == 9
        await until(lambda: not running_with(board, "a"), what="nothing of the attempt runs")


async def test_nothing_is_left_of_a_daemon_and_its_children(board: Path) -> None:
    script = (
        'setsid sh -c \'sh -c "sleep 601; :" & sh -c "setsid sleep 602 & wait" & echo up; wait\' &'
        " while ! grep -q up a.out; do :; done"
    )
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sh", "-c", script))
        await client.start(program(board, "/bin/sleep", "603", attempt="b"))
        assert (await ended(client)).exit_code == 0
        await until(lambda: not running_with(board, "a"), what="nothing of the attempt runs")
        assert running_with(board, "b")


async def test_a_killed_agent_leaves_its_jobs_running_and_the_next_one_learns_their_end(
    board: Path,
) -> None:
    gate = board / "gate"
    os.mkfifo(gate)
    code = (
        "import asyncio, os, sys; from pathlib import Path\n"
        "from edge_agent.keeper.client import KeeperClient, StartRequest\n"
        "async def main():\n"
        f"    board = Path({str(board)!r})\n"
        "    async with KeeperClient(board / 'keeper.sock') as client:\n"
        "        await client.start(StartRequest('a', ['/bin/cat', str(board / 'gate')], {}, board,"
        " board / 'out', board / 'err'))\n"
        "        os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    agent = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await agent.wait() == -9
    async with KeeperClient(board / "keeper.sock") as client:
        await client.watch()
        [record] = await client.list()
        assert record.running
        await asyncio.to_thread(gate.write_text, "done\n")
        exits = client.exits()
        async with asyncio.timeout(10):
            assert (await anext(exits)).exit_code == 0
    assert (board / "out").read_text() == "done\n"


async def test_what_cannot_be_started_is_refused_with_words(board: Path) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        with pytest.raises(KeeperError, match="/no/such/program"):
            await client.start(program(board, "/no/such/program"))
        with pytest.raises(KeeperError, match="absolute path"):
            await client.start(program(board, "relative"))
        with pytest.raises(KeeperError, match="no attempt 'never'"):
            await client.stop("never")
        assert await client.list() == []


@pytest.mark.parametrize(
    "packet",
    [
        b"\xff\x00garbage",
        b"[]",
        b'{"op": "list"}',
        b'{"id": 1, "op": "dance"}',
        b'{"id": 1, "op": "start"}',
        b"[" * 60_000,
        json.dumps(
            {
                "id": 1,
                "op": "start",
                "attempt": "a",
                "argv": ["/bin/true"],
                "env": {"A=B": "c"},
                "cwd": "/",
                "stdout": "/dev/null",
                "stderr": "/dev/null",
            }
        ).encode(),
    ],
)
async def test_a_malformed_packet_is_answered_and_ends_nothing(board: Path, packet: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
        raw.connect(str(board / "keeper.sock"))
        raw.send(packet)
        answer = json.loads(await asyncio.to_thread(raw.recv, 4096))
    assert "bad request" in answer["error"]
    async with KeeperClient(board / "keeper.sock") as client:
        assert await client.list() == []


async def test_many_programs_at_once_are_all_listed_and_reaped(board: Path) -> None:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(KeeperClient(board / "keeper.sock"))
        requests = [program(board, "/bin/true", attempt=f"a{n}") for n in range(300)]
        await asyncio.gather(*(client.start(request) for request in requests))

        async def all_ended() -> bool:
            records = await client.list()
            return len(records) == 300 and not any(record.running for record in records)

        await until(all_ended, what="300 programs ended")
        assert {record.exit_code for record in await client.list()} == {0}
        for request in requests:
            await client.forget(request.attempt)
        assert await client.list() == []


async def test_a_keeper_that_dies_is_followed_by_one_that_cleans_up(board: Path) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sleep", "600"))
        instance = await client.watch()
        assert instance
        assert await client.watch() == instance
        os.kill(keeper_of(board), 9)
        async with asyncio.timeout(10):
            assert [record async for record in client.exits()] == []
        with pytest.raises(KeeperGoneError):
            await client.list()
    await ensure_keeper(board / "keeper.sock", board / "keeper.log")
    assert not running_with(board, "a")
    async with KeeperClient(board / "keeper.sock") as client:
        assert await client.watch() != instance, "and says that it is another one"


def running_with(board: Path, attempt: str) -> list[int]:
    """Processes whose standard output is an attempt's."""
    found: list[int] = []
    for pid in pids():
        try:
            if Path(f"/proc/{pid}/fd/1").readlink() == board / f"{attempt}.out":
                found.append(pid)
        except OSError:
            continue
    return found
