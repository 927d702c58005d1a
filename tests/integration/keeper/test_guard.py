"""R5: what may not run twice ends when its lease does, also when nobody who renews it is left. Real processes."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from edge_agent.keeper import strays
from edge_agent.keeper.boottime import boottime
from edge_agent.keeper.client import KeeperClient, KeeperError
from edge_agent.keeper.guard import LOOK_SECONDS
from edge_agent.keeper.launch import Port
from services.streams.worker.keeper_ports import fetch_ports
from tests.integration.keeper.programs import ended, keeper_of, program
from tests.kit.until import until

SCRIPT = "env -i setsid sleep 701 & (env -i setsid sh -c 'trap \"\" TERM; sleep 702; :' &); exec sleep 703"


def guard_of(keeper: int) -> int:
    [guard] = strays.children(keeper)
    return guard


async def running(board: Path, client: KeeperClient, lease: float) -> list[int]:
    """Start a program that does what it can to get away; returns all its processes."""
    await client.start(program(board, "/bin/sh", "-c", SCRIPT, lease=lease))
    guard = guard_of(keeper_of(board))

    def all_there() -> list[int]:
        found = [pid for pid in strays.descendants(guard) if strays.alive(pid)]
        return found if [strays.name_of(pid) for pid in found].count("sleep") == 3 else []

    return await until(all_there, what="three processes and a shell")


def any_of(pids: list[int]) -> bool:
    return any(strays.alive(pid) for pid in pids)


async def test_r5_a_guarded_program_ends_as_any_other(board: Path) -> None:
    ports = [Port("o", "out", fd=3)]
    async with KeeperClient(board / "keeper.sock") as client:
        script = 'pwd; echo "$MARK"; ulimit -n; echo x >&3; exit 3'
        request = program(board, "/bin/sh", "-c", script, lease=60.0, ports=ports, open_files=64)
        pid = await client.start(request)
        assert await client.start(request) == pid
        record = await ended(client)
        assert (record.pid, record.exit_code, record.lease_ended) == (pid, 3, False)
        assert (board / "a.out").read_text() == f"{board}\nhere\n64\n"
        [port] = fetch_ports(str(board / "keeper.sock"), "a").values()
        port.setblocking(True)
        with port, port.makefile("rb") as reading:
            assert reading.read() == b"x\n", "its end is heard: nobody else holds the port"
        await client.start(program(board, "/bin/sleep", "600", attempt="b", lease=60.0))
        await client.stop("b", 1.0)
        record = await ended(client, "b")
        assert (record.signal, record.lease_ended) == (signal.SIGTERM, False)
        assert strays.descendants(keeper_of(board)) == []


async def test_r5_it_runs_as_long_as_it_is_renewed_and_no_longer(board: Path) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        pids = await running(board, client, lease=600.0)
        began = boottime()
        for second in (1.0, 2.0):
            await client.renew_lease("a", began + second)
        await until(lambda: not any_of(pids), what="the end of all its processes")
        assert boottime() - began >= 2.0
        assert (await ended(client)).lease_ended


async def test_r5_a_start_that_waited_longer_than_its_lease_is_refused(board: Path) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        with pytest.raises(KeeperError, match="lease ran out"):
            await client.start(program(board, "/bin/true", lease=-1.0))


async def test_r5_it_ends_at_once_when_its_keeper_is_killed(board: Path) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        pids = await running(board, client, lease=600.0)
        os.kill(keeper_of(board), signal.SIGKILL)
        await until(lambda: not any_of(pids), what="the end of all its processes")


async def test_r5_it_ends_in_time_when_its_keeper_stands_still(board: Path) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        pids = await running(board, client, lease=600.0)
        keeper = keeper_of(board)
        began = boottime()
        await client.renew_lease("a", began + 1.0)
        os.kill(keeper, signal.SIGSTOP)
        # Written while the lease holds, read when it has run out: it revives nothing.
        renewal = asyncio.create_task(client.renew_lease("a", began + 1.2))
        await until(lambda: not any_of(pids), what="the end of all its processes")
        assert boottime() - began >= 1.0
        os.kill(keeper, signal.SIGCONT)
        await renewal
        assert (await ended(client)).lease_ended


async def test_r5_it_ends_when_its_guard_is_killed(board: Path) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        pids = await running(board, client, lease=600.0)
        os.kill(guard_of(keeper_of(board)), signal.SIGKILL)
        await until(lambda: not any_of(pids), what="the end of all its processes")
        record = await ended(client)
        assert record.lease_ended, "it is as good as lost, and no fault of the program"


async def test_r5_its_leader_ends_when_guard_and_keeper_are_killed(board: Path) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        pid = await client.start(program(board, "/bin/sleep", "704", lease=600.0))
        keeper = keeper_of(board)
        guard = guard_of(keeper)
        os.kill(keeper, signal.SIGSTOP)
        os.kill(guard, signal.SIGKILL)
        os.kill(keeper, signal.SIGKILL)
        await until(lambda: not strays.alive(pid), what="its end")


async def test_r5_a_board_that_stood_still_as_a_whole_ends_it_when_it_goes_on(board: Path) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        pids = await running(board, client, lease=600.0)
        keeper = keeper_of(board)
        everything = [keeper, guard_of(keeper), *pids]
        over = boottime() + 1.5
        await client.renew_lease("a", over - 0.5)
        for pid in everything:
            os.kill(pid, signal.SIGSTOP)
        await until(lambda: boottime() > over + 0.5, what="the end of the lease")
        assert any_of(pids)
        thawed = boottime()
        for pid in reversed(everything):
            os.kill(pid, signal.SIGCONT)
        await until(lambda: not any_of(pids), what="the end of all its processes")
        assert boottime() - thawed < 10 * LOOK_SECONDS
        assert (await ended(client)).lease_ended


async def test_r5_a_guard_is_small_and_is_not_taken_for_a_keeper(board: Path) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sleep", "600", lease=600.0))
        guard = guard_of(keeper_of(board))
        command = Path(f"/proc/{guard}/cmdline").read_bytes().rstrip(b"\0").decode()
        assert command == "shoal-guard a"
        rollup = Path(f"/proc/{guard}/smaps_rollup").read_text().splitlines()
        [pss] = [int(line.split()[1]) for line in rollup if line.startswith("Pss:")]
        assert pss < 10 * 1024, "KiB"
        descriptors = {entry.name for entry in Path(f"/proc/{guard}/fd").iterdir()}
        assert len(descriptors) <= 6, "standard streams, its keeper, its alarm"
