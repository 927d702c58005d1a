"""How programs with a plan are stopped, told of and ended, inside of bubblewrap and out. Real keepers and programs."""

import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.keeper import strays
from edge_agent.keeper.client import KeeperClient, KeeperError, ensure_keeper
from edge_agent.keeper.launch import Port
from edge_agent.keeper.remains import end_user
from edge_agent.sandbox.control_groups import ControlGroups, GroupLimits
from edge_agent.sandbox.plan import NO_PLAN, SandboxPlan
from edge_agent.sandbox.user_processes import processes_of
from services.streams.worker.keeper_ports import fetch_ports
from shoal.sandbox import Claim
from tests.integration.keeper.programs import ended, keeper_of, program
from tests.integration.sandbox.root_keeper import PLAN, USER, board, folder
from tests.kit.group_name import group_name
from tests.kit.until import until

__all__ = ("board", "folder")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives programs other users")

_CAP_SYS_RESOURCE = 24  # linux/capability.h
LEASES = pytest.mark.parametrize("lease", [0.0, 60.0], ids=["plain", "leased"])
WRAP = (
    "/usr/bin/bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--new-session", "--die-with-parent",
    "--bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--json-status-fd", "{status}", "--",
)  # fmt: skip
WRAPPED = replace(PLAN, wrap=WRAP)
needs_bubblewrap = pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is missing")


@needs_bubblewrap
@LEASES
async def test_a_wrapped_program_handles_sigterm_and_says_how_it_ended(
    board: Path, lease: float
) -> None:
    script = "trap 'echo asked; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sh", "-c", script, lease=lease, sandbox=WRAPPED))
        await until(lambda: "up" in (board / "a.out").read_text(), what="the program")
        await client.stop("a", 30.0)
        record = await ended(client)
    assert (record.exit_code, record.signal, record.left) == (3, None, "")
    assert (board / "a.out").read_text() == "up\nasked\n"
    assert not processes_of(USER)


@needs_bubblewrap
@LEASES
@pytest.mark.parametrize(
    ("script", "exit_code", "number"),
    [
        ("exit 7", 7, None),
        ("exit 1", 1, None),
        ("kill -9 $$", None, signal.SIGKILL),
        ("kill -SEGV $$", None, signal.SIGSEGV),
    ],
)
async def test_a_wrapped_program_ends_as_it_would_alone(
    board: Path, script: str, exit_code: int | None, number: int | None, lease: float
) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sh", "-c", script, lease=lease, sandbox=WRAPPED))
        record = await ended(client)
    assert (record.exit_code, record.signal, record.not_begun) == (exit_code, number, "")


@needs_bubblewrap
@LEASES
async def test_a_wrapped_program_that_does_not_listen_is_killed_with_all_it_has(
    board: Path, lease: float
) -> None:
    script = "trap '' TERM; (setsid sleep 741 &); echo up; sleep 742; :"
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sh", "-c", script, lease=lease, sandbox=WRAPPED))
        await until(lambda: "up" in (board / "a.out").read_text(), what="the program")
        await client.stop("a", 0.2)
        record = await ended(client)
    assert (record.signal, record.left) == (signal.SIGKILL, "")
    assert not processes_of(USER)


@needs_bubblewrap
@LEASES
@pytest.mark.parametrize(
    ("words", "program_path", "said"),
    [
        (("--bind", "/nowhere", "/nowhere"), "/bin/sh", "Can't find source path /nowhere"),
        ((), "/nowhere/sh", "execvp /nowhere/sh: No such file or directory"),
    ],
    ids=["sandbox", "program"],
)
async def test_a_sandbox_that_cannot_be_set_up_is_told_from_a_program_that_failed(
    board: Path, words: Sequence[str], program_path: str, said: str, lease: float
) -> None:
    plan = replace(WRAPPED, wrap=(*WRAP[:-1], *words, "--"))
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, program_path, lease=lease, sandbox=plan))
        record = await ended(client)
    assert record.exit_code == 1
    assert record.not_begun.startswith("bubblewrap could not start the program: ")
    assert said in record.not_begun


@needs_bubblewrap
@LEASES
async def test_variables_of_a_wrapped_program_are_none_of_bubblewraps(
    board: Path, lease: float
) -> None:
    request = program(board, "/bin/sh", "-c", "env; echo up; sleep 746", lease=lease)
    env = {
        "LD_PRELOAD": "/nowhere/evil.so",
        "TOKEN": "first\nsecond",
        "EMPTY": "",
        "LATIN": "\udce9",
    }
    async with KeeperClient(board / "keeper.sock") as client:
        pid = await client.start(replace(request, env=env, sandbox=WRAPPED))
        # Of the program alone: the linker would have complained of bubblewrap first.
        complaints = len(("sh", "env", "sleep"))
        await until(lambda: _complaints(board) >= complaints, what="the last program")
        assert Path(f"/proc/{pid}/environ").read_bytes() == b""
        assert b"first" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        await client.stop("a", 0.0)
        await ended(client)
    said = (board / "a.out").read_bytes()
    for wanted in (
        b"LD_PRELOAD=/nowhere/evil.so",
        b"TOKEN=first\nsecond",
        b"EMPTY=",
        b"LATIN=\xe9",
    ):
        assert b"\n" + wanted + b"\n" in b"\n" + said
    assert _complaints(board) == complaints


def _complaints(board: Path) -> int:
    return (board / "a.err").read_text().count("'/nowhere/evil.so'")


@needs_bubblewrap
async def test_a_wrapped_program_has_its_ports(board: Path) -> None:
    ports = [Port("o", "out", fd=3), Port("f", "in", path=str(board / "ports" / "f"))]
    (board / "ports").mkdir(mode=0o711)
    request = program(
        board, "/bin/sh", "-c", f"cat {board}/ports/f >&3", ports=ports, sandbox=WRAPPED
    )
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(request)
        found = fetch_ports(str(board / "keeper.sock"), "a")
        with contextlib.ExitStack() as opened:
            ends = {name: opened.enter_context(end) for (name, _), end in found.items()}
            ends["f"].setblocking(True)
            ends["f"].sendall(b"through")
            ends["f"].shutdown(socket.SHUT_WR)
            ends["o"].setblocking(True)
            with ends["o"].makefile("rb") as reading:
                assert reading.read() == b"through"
        assert (await ended(client)).exit_code == 0


DAEMON = """
import os, resource
resource.setrlimit(10, (5, -1))
def away():
    if os.fork(): os._exit(0)
    os.setsid()
    if os.fork(): os._exit(0)
"""
HIDING: dict[str, str] = {
    "a daemon that took its mark off": f"{DAEMON}\naway()\nos.execve('/bin/sleep', ['sleep', '743'], {{}})",
    "processes that are never the same twice": (
        f"{DAEMON}\nfor _ in range(8):\n    if os.fork() == 0:\n        while True: away()"
    ),
    "one that cannot be looked at": (
        f"import ctypes\n{DAEMON}\naway()\nctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\nwhile True: pass"
    ),
}  # fmt: skip


@LEASES
@pytest.mark.parametrize("script", HIDING.values(), ids=HIDING.keys())
async def test_nothing_of_a_users_attempt_is_left_though_another_job_runs(
    board: Path, script: str, lease: float
) -> None:
    keeper = keeper_of(board)
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sleep", "744", attempt="other"))
        python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable  # noqa: PTH110
        await client.start(program(board, python, "-c", script, lease=lease, sandbox=PLAN))
        record = await ended(client)
        assert (record.exit_code, record.left) == (0, "")
        assert not processes_of(USER)
        [other] = [pid for pid in strays.descendants(keeper) if strays.alive(pid)]
        assert strays.name_of(other) == "sleep"


@LEASES
async def test_nothing_is_left_in_a_control_group_though_it_shares_its_user_with_its_keeper(
    board: Path, lease: float
) -> None:
    groups = ControlGroups.open(group_name())
    try:
        if Claim.PROCESSES not in groups.enforces:
            pytest.skip(f"no control groups can be made here: {groups.refused}")
        places = groups.make("a", GroupLimits(processes=64))
        plan = SandboxPlan(join=places.join, kill=places.kill)
        async with KeeperClient(board / "keeper.sock") as client:
            await client.start(program(board, "/bin/sleep", "747", attempt="other"))
            script = HIDING["a daemon that took its mark off"]
            await client.start(
                program(board, sys.executable, "-c", script, lease=lease, sandbox=plan)
            )
            record = await ended(client)
            assert (record.exit_code, record.left) == (0, "")
            keeper = keeper_of(board)
            [other] = [pid for pid in strays.descendants(keeper) if strays.alive(pid)]
            assert strays.name_of(other) == "sleep"
    finally:
        groups.sweep(())
        groups.close()


async def test_a_guard_ends_all_of_its_programs_user_when_the_keeper_is_killed(board: Path) -> None:
    waiting = (
        f"{DAEMON}\nif os.fork() == 0:\n    away()\nos.execve('/bin/sleep', ['sleep', '748'], {{}})"
    )
    async with KeeperClient(board / "keeper.sock") as client:
        words = ("/usr/bin/python3", "-c", waiting)
        await client.start(program(board, *words, lease=600.0, sandbox=PLAN))
        await until(lambda: len(processes_of(USER)) > 1, what="a daemon")
        os.kill(keeper_of(board), signal.SIGKILL)
        await until(lambda: not processes_of(USER), what="the end of both")
    await ensure_keeper(board / "keeper.sock", board / "keeper.log")


async def test_the_user_of_a_running_program_is_given_to_no_other(board: Path) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sleep", "745", sandbox=PLAN))
        with pytest.raises(KeeperError, match=rf"b cannot run as user {USER}: a does"):
            await client.start(program(board, "/bin/true", attempt="b", sandbox=PLAN))
        await client.stop("a", 0.0)
        await ended(client)
        await client.start(program(board, "/bin/true", attempt="b", sandbox=PLAN))
        assert (await ended(client, "b")).exit_code == 0


@pytest.mark.parametrize("uid", [0, -1, os.geteuid()])
def test_a_user_that_is_not_a_jobs_alone_is_never_ended(uid: int) -> None:
    with pytest.raises(ValueError, match="are not those of a job alone"):
        end_user(uid)


def _as_user(uid: int, what: Callable[[], bool]) -> bool:
    """Do something in a child that is another user; returns whether it said so."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(())
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os._exit(0 if what() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _has_right(number: int) -> bool:
    """Whether this process has a capability, by its number."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [effective] = [int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")]
    return bool(effective >> number & 1)


async def test_a_stranger_who_reaches_the_socket_is_not_answered(board: Path) -> None:
    path = board / "keeper.sock"
    path.chmod(0o666)  # as a state folder of before may have it, or an operator's mistake

    def hung_up_on() -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
            link.settimeout(60)
            link.connect(str(path))
            try:
                link.send(b'{"id": 1, "op": "list"}')
                return link.recv(1 << 17) == b""
            except ConnectionError:
                return True

    assert _as_user(USER, hung_up_on)
    assert f"refused a connection of user {USER}" in (board / "keeper.log").read_text()
    async with KeeperClient(path) as client:
        assert not await client.list()


async def test_a_fifo_belongs_to_the_user_of_its_program_alone(board: Path) -> None:
    (board / "ports").mkdir(mode=0o711)
    place = board / "ports" / "f"
    ports = [Port("f", "out", path=str(place))]
    script = f"echo mine > {place}; stat -c '%u %g %a' {place}"
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sh", "-c", script, ports=ports, sandbox=PLAN))
        [port] = fetch_ports(str(board / "keeper.sock"), "a").values()
        port.setblocking(True)
        with port, port.makefile("rb") as reading:
            assert reading.read() == b"mine\n"
        assert (await ended(client)).problem == ""
    assert (board / "a.out").read_text() == f"{USER} {USER} 600\n"


@pytest.mark.parametrize(
    ("plan", "score"), [(NO_PLAN, 500), (SandboxPlan(oom_score=700), 700)], ids=["none", "given"]
)
async def test_the_kernel_takes_a_job_before_its_keeper(
    board: Path, plan: SandboxPlan, score: int
) -> None:
    script = "cat /proc/self/oom_score_adj; env"
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sh", "-c", script, sandbox=plan))
        await ended(client)
    mine, *env = (board / "a.out").read_text().splitlines()
    assert int(mine) == score
    keepers = Path(f"/proc/{keeper_of(board)}/oom_score_adj").read_text()
    assert int(keepers) <= 0 < int(mine)
    assert int(keepers) == -900 or not _has_right(_CAP_SYS_RESOURCE)
    assert not [line for line in env if str(board / "keeper.sock") in line]
