"""R4: nothing that a program or the machine refuses ends the keeper, on which every job of the board depends."""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import pytest

from edge_agent.keeper import strays
from edge_agent.keeper.client import KeeperClient, KeeperError
from edge_agent.keeper.launch import Port
from tests.integration.keeper.programs import ended, keeper_of, program
from tests.kit.until import until

NOBODY = 65534


@pytest.fixture
async def plain() -> AsyncIterator[Path]:
    """A folder of an ordinary user with that user's keeper, and a program in it that makes itself root's."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a program that makes itself root's")
    board = Path(tempfile.mkdtemp(prefix="shoal-plain-"))
    become_root = shutil.copy("/usr/bin/setpriv", board / "become-root")
    os.chown(board, NOBODY, NOBODY)
    Path(become_root).chmod(0o4755)
    setpriv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    # The interpreter may lie in a folder of root's: it may be read, and that is all.
    setpriv += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    with (board / "keeper.log").open("wb") as log:
        process = subprocess.Popen(
            [*setpriv, sys.executable, "-m", "edge_agent.keeper", "--socket", str(board / "keeper.sock")],
            stderr=log,
        )  # fmt: skip
    await until((board / "keeper.sock").exists, what="the keeper")
    yield board
    below = strays.descendants(process.pid)
    process.kill()
    process.wait()
    strays.end(below)
    shutil.rmtree(board)


def as_root(*argv: str) -> Sequence[str]:
    return ("./become-root", "--reuid=0", "--regid=0", "--clear-groups", *argv)


async def test_r4_a_program_that_became_roots_is_said_to_be_left_and_others_live_on(
    plain: Path,
) -> None:
    async with KeeperClient(plain / "keeper.sock") as client:
        await client.start(program(plain, "/bin/sleep", "600", attempt="other"))
        _, *words = as_root("sleep", "601")
        pid = await client.start(
            program(plain, str(plain / "become-root"), *words, open_files=64, memory_bytes=1 << 30)
        )
        await until(lambda: strays.name_of(pid) == "sleep", what="root's sleep")
        await client.stop("a", 0.2)
        record = await ended(client)
        assert record.left == (
            f"processes were left that could not be ended: {pid} (sleep): Operation not permitted"
        )
        assert strays.alive(pid)
        [other] = [one for one in await client.list() if one.attempt == "other"]
        assert other.running
        await client.forget("a")
        os.kill(pid, signal.SIGKILL)  # as root may: it is reaped as an orphan is
        await until(lambda: not Path(f"/proc/{pid}").exists(), what="it reaped")
        await client.stop("other", 0.0)
        assert (await ended(client, "other")).left == ""


async def test_r4_what_a_program_leaves_as_root_is_said(plain: Path) -> None:
    async with KeeperClient(plain / "keeper.sock") as client:
        script = f"setsid {' '.join(as_root('sleep', '602'))} & sleep 603"
        await client.start(program(plain, "/bin/sh", "-c", script, timeout_seconds=1.0))
        record = await ended(client)
        assert record.timed_out
        assert "(sleep): Operation not permitted" in record.left
        await client.shutdown()
    await until(lambda: not (plain / "keeper.sock").exists(), what="the end of the keeper")


async def test_r4_what_may_not_run_twice_is_not_said_to_have_ended(plain: Path) -> None:
    async with KeeperClient(plain / "keeper.sock") as client:
        _, *words = as_root("sleep", "604")
        pid = await client.start(program(plain, str(plain / "become-root"), *words, lease=60.0))
        await until(lambda: strays.name_of(pid) == "sleep", what="root's sleep")
        await client.stop("a", 0.0)

        async def left() -> str:
            [record] = await client.list()
            assert record.running
            return record.left

        assert "Operation not permitted" in await until(left, what="word of it")
        os.kill(pid, signal.SIGKILL)
        assert (await ended(client)).left == ""


def _fifo(board: Path) -> None:
    os.mkfifo(board / "a.out")


def _folder(board: Path) -> None:
    (board / "a.out").mkdir()


def _no_format(board: Path) -> None:
    (board / "program").write_bytes(b"\x7fELF nothing")
    (board / "program").chmod(0o755)


def _no_mode(board: Path) -> None:
    (board / "program").write_bytes(b"x")


def _no_place(board: Path) -> None:
    (board / "p").write_bytes(b"a file where the folder of FIFOs would be")


def _nothing(_board: Path) -> None:
    pass


Make = Callable[[Path], None]
UNSTARTABLE: dict[str, tuple[Make, str, str, str]] = {
    "fifo": (_fifo, "/bin/true", "x", "No such device"),
    "folder": (_folder, "/bin/true", "x", "Is a directory"),
    "format": (_no_format, "program", "x", "Exec format error"),
    "mode": (_no_mode, "program", "x", "Permission denied"),
    "surrogate": (_nothing, "/bin/true", "\ud800", "surrogates not allowed"),
    "port": (_no_place, "/bin/true", "x", "File exists"),
}


@pytest.mark.parametrize("case", UNSTARTABLE.values(), ids=UNSTARTABLE.keys())
@pytest.mark.parametrize("lease", [0.0, 60.0], ids=["plain", "leased"])
async def test_r4_what_cannot_be_started_fails_alone(
    board: Path, case: tuple[Make, str, str, str], lease: float
) -> None:
    make, name, word, words = case
    make(board)
    ports = [Port("o", "out", path=str(board / "p" / "o"))] if make is _no_place else []
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sleep", "600", attempt="other"))
        with pytest.raises(KeeperError, match=words):
            await client.start(program(board, str(board / name), word, ports=ports, lease=lease))
        [other] = await client.list()
        assert other.running
        keeper = keeper_of(board)
        await until(lambda: len(strays.descendants(keeper)) == 1, what="nothing left of it")


@pytest.mark.parametrize(
    "more",
    [{"cwd": "/\0"}, {"stdout": "/\0"}, {"cwd": "/\ud800"}, {"limits": {"open_files": 1 << 80}}],
    ids=["cwd", "stdout", "surrogate", "limit"],
)
async def test_r4_a_request_with_values_that_no_kernel_takes_fails_alone(
    board: Path, more: Mapping[str, object]
) -> None:
    good: dict[str, object] = {
        "id": 1,
        "op": "start",
        "attempt": "x",
        "argv": ["/bin/true"],
        "env": {},
        "cwd": "/",
    }
    good |= {"stdout": str(board / "o"), "stderr": str(board / "e")}
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as link:
        link.connect(str(board / "keeper.sock"))
        link.send(json.dumps({**good, **more}).encode())
        assert json.loads(link.recv(1 << 17))["id"] == 1
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/true"))
        await ended(client)


async def test_r4_a_keeper_without_descriptors_to_spare_refuses_and_goes_on(board: Path) -> None:
    keeper = keeper_of(board)
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sleep", "600", attempt="other"))
        taken = {int(entry.name) for entry in Path(f"/proc/{keeper}/fd").iterdir()}
        limit = min(set(range(len(taken) + 1)) - taken)
        before = resource.prlimit(keeper, resource.RLIMIT_NOFILE)
        resource.prlimit(keeper, resource.RLIMIT_NOFILE, (limit, before[1]))
        with pytest.raises(KeeperError, match="Too many open files"):
            await client.start(program(board, "/bin/true"))
        with pytest.raises(KeeperError):
            async with KeeperClient(board / "keeper.sock") as second:
                await second.list()
        resource.prlimit(keeper, resource.RLIMIT_NOFILE, before)
        await client.start(program(board, "/bin/true"))
        assert (await ended(client)).exit_code == 0
