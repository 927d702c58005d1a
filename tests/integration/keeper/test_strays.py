"""K18: an attempt leaves nothing behind, whatever its processes do to get away. Real keeper, real programs."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.keeper import strays
from edge_agent.keeper.client import KeeperClient, ensure_keeper
from tests.integration.keeper.programs import ended, keeper_of, program
from tests.kit.until import until

DAEMON = """
import os, sys
def away():
    if os.fork(): os._exit(0)
    os.setsid()
    if os.fork(): os._exit(0)
    os.chdir("/")
    os.closerange(0, 100)
"""
PROGRAMS = {
    "an empty environment and a session of its own": "env -i setsid sleep 677 & exit 0",
    "one in another": "(env -i setsid sh -c 'env -i setsid sleep 678 & sleep 679' &) & exit 0",
    "a group of its own that is stopped": (
        "env -i setsid sh -c 'kill -STOP $$' & env -i setsid sh -c 'trap \"\" TERM HUP; sleep 680' &"
    ),
    "a double fork that closes everything": (
        f"exec {sys.executable} -c '{DAEMON}\nif os.fork() == 0:\n    away()\n"
        '    os.execve("/bin/sleep", ["sleep", "681"], {})\''
    ),
    "processes that are never the same twice": (
        f"exec {sys.executable} -c '{DAEMON}\nfor _ in range(8):\n    if os.fork() == 0:\n"
        "        while True:\n            away()'"
    ),
    "a storm": (
        f"exec {sys.executable} -c '{DAEMON}\nif os.fork() == 0:\n    away()\n"
        "    for _ in range(7): os.fork() or os.setsid()\n"
        '    os.execve("/bin/sleep", ["sleep", "682"], {})\''
    ),
}


def below(keeper: int) -> list[str]:
    """What runs below a keeper."""
    return [strays.name_of(pid) for pid in strays.descendants(keeper) if strays.alive(pid)]


@pytest.mark.parametrize("script", PROGRAMS.values(), ids=PROGRAMS.keys())
async def test_k18_nothing_is_left_of_a_program_that_ended(board: Path, script: str) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sleep", "600", attempt="other"))
        await client.start(program(board, "/bin/sh", "-c", script))
        record = await ended(client)
        assert (record.exit_code, record.left) == (0, "")
        # Once it is said to have ended, there is nothing to wait for.
        assert below(keeper_of(board)) == ["sleep"], "the other program, and nothing else"


async def test_k18_nothing_is_left_of_a_program_that_is_timed_out(board: Path) -> None:
    script = "env -i setsid sleep 683 & env -i setsid sh -c 'sleep 684; :' & wait"
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sh", "-c", script, timeout_seconds=0.3))
        assert (await ended(client)).timed_out
        assert below(keeper_of(board)) == []


async def test_k18_a_daemon_of_a_job_that_runs_is_left_alone(board: Path) -> None:
    keeper = keeper_of(board)
    script = "env -i setsid sleep 685 & (env -i setsid sleep 686 &) ; exec sleep 687"
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sh", "-c", script, attempt="runs"))
        await until(lambda: below(keeper) == ["sleep"] * 3, what="the job and its two daemons")
        for attempt in ("one", "two"):
            await client.start(
                program(board, "/bin/sh", "-c", "setsid sleep 688 &", attempt=attempt)
            )
            await ended(client, attempt)
        assert below(keeper) == ["sleep"] * 3
        await client.stop("runs", 0.0)
        await ended(client, "runs")
        assert below(keeper) == []


async def test_k18_one_that_took_its_mark_off_is_ended_when_no_job_can_own_it(board: Path) -> None:
    keeper = keeper_of(board)
    script = (
        f"exec {sys.executable} -c '{DAEMON}\nimport resource\nresource.setrlimit(10, (5, -1))\n"
        'if os.fork() == 0:\n    away()\n    os.execve("/bin/sleep", ["sleep", "689"], {})\''
    )
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/cat", "/dev/zero", attempt="runs"))
        await client.start(program(board, "/bin/sh", "-c", script))
        await ended(client)
        await until(lambda: sorted(below(keeper)) == ["cat", "sleep"], what="the stray")
        await client.stop("runs", 0.0)
        await ended(client, "runs")
        await until(lambda: not below(keeper), what="nothing of either")


async def test_k18_a_keeper_ends_what_an_earlier_one_left_though_it_cannot_be_told_by_its_environment(
    board: Path,
) -> None:
    marks = strays.Marks(str(board / "keeper.sock"))

    def marked() -> Iterator[int]:
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
        return (pid for pid in pids if marks.ours(strays.mark_of(pid)) and strays.alive(pid))

    async with KeeperClient(board / "keeper.sock") as client:
        script = "env -i setsid sleep 690 & exec env -i sleep 691"
        await client.start(program(board, "/bin/sh", "-c", script))
        await until(lambda: len(list(marked())) == 2, what="two processes")
        os.kill(keeper_of(board), 9)
    await until(lambda: len(list(marked())) == 2, what="orphans")
    await ensure_keeper(board / "keeper.sock", board / "keeper.log")
    assert not list(marked()), "nothing of the earlier keeper's, once the next one answers"


async def test_k18_a_keeper_ends_guards_that_an_earlier_one_left(board: Path) -> None:
    """One that stands still does not end its program by itself, and may not even have started it yet."""
    async with KeeperClient(board / "keeper.sock") as client:
        keeper = keeper_of(board)
        await client.start(program(board, "/bin/sleep", "692", lease=600.0))
        [guard] = strays.children(keeper)
        [sleeper] = strays.children(guard)
        os.kill(guard, signal.SIGSTOP)
        os.kill(keeper, signal.SIGKILL)
    await ensure_keeper(board / "keeper.sock", board / "keeper.log")
    assert not [pid for pid in (guard, sleeper) if strays.alive(pid)]
