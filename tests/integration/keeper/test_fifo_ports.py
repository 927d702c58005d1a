"""Case F6: ports that are FIFO paths, with real programs of a real keeper."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.keeper.client import KeeperClient, KeeperError, StartRequest
from edge_agent.keeper.launch import Port
from edge_agent.keeper.record import ProcessRecord
from edge_agent.keeper.strays import KEEPER_VARIABLE, environment, keeper_word
from services.streams.worker.keeper_ports import fetch_ports
from tests.kit.until import until

_NUMBERS = b"".join(b"%d\n" % number for number in range(100_000))


class _Job:
    """A program with the FIFO `numbers` as input and `found` as output, and our ends of both."""

    def __init__(self, board: Path, client: KeeperClient, ends: dict[str, socket.socket]) -> None:
        self.client = client
        self.numbers = ends["numbers"]
        self.found = ends["found"]
        self.path = board / "ports"

    async def feed(self, data: bytes) -> None:
        """Send all that the input will ever carry."""
        # A program that opens nothing may have ended already, and its relay with it.
        with contextlib.suppress(BrokenPipeError):
            await asyncio.get_running_loop().sock_sendall(self.numbers, data)
            self.numbers.shutdown(socket.SHUT_WR)

    async def output(self) -> bytes:
        """Everything that comes out until the end."""
        parts: list[bytes] = []
        while part := await asyncio.get_running_loop().sock_recv(self.found, 1 << 16):
            parts.append(part)
        return b"".join(parts)

    async def record(self) -> ProcessRecord:
        [record] = await self.client.list()
        return record

    async def end(self) -> ProcessRecord:
        async def ended() -> ProcessRecord | None:
            record = await self.record()
            return None if record.running else record

        found = await until(ended, what="the program ended")
        assert isinstance(found, ProcessRecord)
        return found


@contextlib.asynccontextmanager
async def _running(board: Path, script: str, timeout_seconds: float = 0.0) -> AsyncIterator[_Job]:
    ports = [
        Port("numbers", "in", path=str(board / "ports" / "numbers")),
        Port("found", "out", path=str(board / "ports" / "found")),
    ]
    words = ["/bin/sh", "-c", script, "sh", "{inputs.numbers.path}", "{outputs.found.path}"]
    request = StartRequest(
        attempt="a",
        argv=words,
        env={"PATH": os.environ["PATH"]},
        cwd=board,
        stdout=board / "out",
        stderr=board / "err",
        ports=ports,
        timeout_seconds=timeout_seconds,
    )
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(request)
        found = fetch_ports(str(board / "keeper.sock"), "a")
        ends = {name: end for (name, _), end in found.items()}
        with ends["numbers"], ends["found"]:
            yield _Job(board, client, ends)


_READER = """
import os, sys
size, whole, short = int(sys.argv[2]), 0, 0
fd = os.open(sys.argv[1], os.O_RDONLY)
while True:
    record = os.read(fd, size)
    if not record:
        break
    if len(record) == size and record == bytes([whole % 251]) * size:
        whole += 1
    else:
        short += 1
print(whole, short)
"""


@pytest.mark.parametrize(
    ("size", "count"),
    [
        *((4, 20_000), (1000, 20_000), (1024, 20_000), (4096, 5_000), (4097, 2_000)),
        *((65536, 500), (230_400, 200), (1_000_000, 40)),
    ],
)
async def test_x5_a_program_that_reads_a_record_at_a_time_gets_whole_ones(
    board: Path, size: int, count: int
) -> None:
    """Of several thousand records of the sizes in X5's table not one comes in two pieces."""
    (board / "reader.py").write_text(_READER)
    path = board / "ports" / "in"
    request = StartRequest(
        attempt="a",
        argv=[sys.executable, str(board / "reader.py"), "{inputs.in.path}", str(size)],
        env={"PATH": os.environ["PATH"]},
        cwd=board,
        stdout=board / "out",
        stderr=board / "err",
        ports=[Port("in", "in", path=str(path), record_bytes=size)],
    )
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(request)
        [port] = fetch_ports(str(board / "keeper.sock"), "a").values()
        loop = asyncio.get_running_loop()
        with port:
            records = b"".join(bytes([number % 251]) * size for number in range(count))
            view = memoryview(records)
            # As blocks come: never cut where a record ends.
            for at in range(0, len(view), 100_003):
                await loop.sock_sendall(port, view[at : at + 100_003])
            port.shutdown(socket.SHUT_WR)

            async def ended() -> bool:
                return not (await client.list())[0].running

            await until(ended, 60, what="the program has read everything")
    assert (board / "out").read_text().split() == [str(count), "0"], (board / "err").read_text()


def _relays(board: Path) -> list[int]:
    keeper = keeper_word(str(board / "keeper.sock"))
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal()
        and environment(int(entry.name)).get(KEEPER_VARIABLE) == keeper
        and b"fifo_relay.py" in _words(entry)
    ]


def _words(process: Path) -> bytes:
    with contextlib.suppress(OSError):
        return (process / "cmdline").read_bytes()
    return b""


async def test_a_program_reads_and_writes_paths_to_the_last_byte(board: Path) -> None:
    async with _running(board, 'grep -v 7 <"$1" >"$2"') as job:
        _, output = await asyncio.gather(job.feed(_NUMBERS), job.output())
        record = await job.end()
    assert output == b"".join(line + b"\n" for line in _NUMBERS.split() if b"7" not in line)
    assert (record.exit_code, record.problem) == (0, "")
    await until(lambda: not _relays(board), what="the relays ended")


async def test_an_end_counts_once_everything_has_passed(board: Path) -> None:
    async with _running(board, 'head -c 200000 /dev/zero >"$2"; : >ended') as job:
        await until((board / "ended").exists, what="the program is through")
        await until(lambda: len(_relays(board)) == 1, what="the input's relay ended")
        # Nobody has read, and the port does not hold so much: the relay has the rest.
        assert (await job.record()).running
        assert await job.output() == bytes(200_000)
        assert (await job.end()).exit_code == 0


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ('read -r one <"$1"; echo "$one" >"$2"; cat "$1" >>"$2"', b"1\n2\n3\n"),
        ('cat "$1" >"$2"; cat "$1" >>"$2"; echo end >>"$2"', b"1\n2\n3\nend\n"),
        (": never opens any", b""),
        (': <"$1" >"$2"; cat "$1" >"$2"', b"1\n2\n3\n"),
        ('printf "%s" "$(cat "$1")" >"$2"', b"1\n2\n3"),
        ('cat "$1" >"$2"; rm "$1" "$2"', b"1\n2\n3\n"),
    ],
    ids=["twice", "after the end", "never", "once for nothing", "half a line", "removed"],
)
async def test_a_fifo_may_be_opened_as_often_as_a_program_likes(
    board: Path, script: str, expected: bytes
) -> None:
    async with _running(board, script) as job:
        await job.feed(b"1\n2\n3\n")
        assert await job.output() == expected
        record = await job.end()
        assert (record.exit_code, record.problem) == (0, "")


async def test_a_program_that_fails_waits_for_nobody(board: Path) -> None:
    async with _running(board, 'head -c 200000 /dev/zero >"$2"; printf 12 >"$2"; exit 3') as job:
        record = await job.end()
        assert (record.exit_code, record.problem) == (3, "")


async def test_a_timeout_holds_while_the_last_records_wait(board: Path) -> None:
    async with _running(board, 'head -c 200000 /dev/zero >"$2"', timeout_seconds=0.5) as job:
        record = await job.end()
        assert record.timed_out


async def test_a_program_that_blocks_is_ended_by_its_timeout(board: Path) -> None:
    async with _running(board, 'cat "$1" >"$2"', timeout_seconds=0.3) as job:
        record = await job.end()
        assert record.timed_out
        assert await job.output() == b""
    await until(lambda: not _relays(board), what="the relays ended")


async def test_a_file_in_the_place_of_a_fifo_is_told(board: Path) -> None:
    async with _running(board, 'echo 1 >other; mv other "$2"') as job:
        record = await job.end()
        assert record.exit_code == 0
        assert "file of its own in the place of the FIFO of the port 'found'" in record.problem


async def test_a_relay_that_dies_ends_its_program(board: Path) -> None:
    async with _running(board, 'cat "$1" >"$2"; sleep 600') as job:
        relays = await until(lambda: _relays(board), what="the relays run")
        os.kill(relays[0], signal.SIGKILL)
        record = await job.end()
        assert "records may be missing" in record.problem


async def test_a_keeper_that_is_killed_leaves_no_relay(board: Path) -> None:
    async with _running(board, "sleep 600"):
        await until(lambda: len(_relays(board)) == 2, what="the relays run")
        log = (board / "keeper.log").read_text()
        os.kill(int(log.partition("process ")[2].split()[0]), signal.SIGKILL)
        await until(lambda: not _relays(board), what="the relays ended")


async def test_what_is_forgotten_leaves_no_relay(board: Path) -> None:
    async with _running(board, 'cat "$1"') as job:
        await job.client.forget("a")
        await until(lambda: not _relays(board), what="the relays ended")
        assert await job.client.list() == []


async def test_a_folder_that_cannot_be_made_is_told(board: Path) -> None:
    (board / "ports").write_text("in the way")
    with pytest.raises(KeeperError, match="FIFO of the port 'numbers' cannot be had"):
        async with _running(board, "true"):
            pass
