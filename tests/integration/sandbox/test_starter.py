"""Programs that a starter starts are as those of a fork in all that the kernel says of them, and no job reaches it."""

import base64
import contextlib
import ctypes
import json
import multiprocessing
import os
import platform
import resource
import selectors
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_agent.cgroup_limits import own_groups
from edge_agent.keeper import strays
from edge_agent.keeper.client import KeeperClient, KeeperError, ensure_keeper
from edge_agent.keeper.execution import Execution
from edge_agent.keeper.record import ProcessRecord
from edge_agent.keeper.starters import IDLE_SECONDS, STARTERS_MAX, Starters
from edge_agent.sandbox import landlock, seccomp
from edge_agent.sandbox.control_groups import ControlGroups, GroupLimits
from edge_agent.sandbox.plan import FilesRule, SandboxPlan
from edge_agent.sandbox.user_processes import processes_of
from tests.integration.keeper.programs import ended, keeper_of, program
from tests.integration.sandbox.root_keeper import PLAN, USER, board, folder
from tests.kit.group_name import group_name
from tests.kit.until import until

_APART_SECONDS = 120.0

__all__ = ("board", "folder")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root gives programs other users"),
    pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="no starter here"),
]

PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
READ = ("/usr", "/bin", "/lib", "/lib64", "/sbin", "/etc", "/opt")


def shared(board: Path, name: str = "a", uid: int = USER, **more: object) -> SandboxPlan:
    """The plan of an attempt whose folder lies in that of all attempts."""
    attempts = board / "attempts"
    work = attempts / name / "work"
    if not work.exists():
        attempts.mkdir(exist_ok=True)
        attempts.chmod(0o711)
        work.mkdir(parents=True, mode=0o700)
        os.chown(work, uid, uid)
    files: tuple[FilesRule, ...] = ()
    if landlock.abi() >= landlock.FILES_ABI:
        written = ("/dev", "/proc", "/sys", "/tmp")
        files = (*map(FilesRule, READ), *(FilesRule(path, write=True) for path in written))
    plan = replace(
        PLAN,
        uid=uid,
        gid=uid,
        files=files,
        own=(FilesRule(str(work), write=True),) if files else (),
        scoped=landlock.abi() >= landlock.SCOPES_ABI,
        seccomp=base64.b64encode(seccomp.program(platform.machine())).decode(),
        attempts=str(attempts),
    )
    return replace(plan, **more)  # type: ignore[arg-type]


def starters(board: Path) -> list[int]:
    """The starters of the keeper of a folder that are alive."""
    return [pid for pid in strays.children(keeper_of(board)) if _is_starter(pid)]


def _is_starter(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"shoal-starter ")
    except OSError:
        return False


async def run(
    client: KeeperClient,
    board: Path,
    plan: SandboxPlan,
    *argv: str,
    attempt: str = "a",
    timeout_seconds: float = 0.0,
) -> ProcessRecord:
    """Start a program in its folder, and wait for its end."""
    request = program(board, *argv, attempt=attempt, sandbox=plan, timeout_seconds=timeout_seconds)
    await client.start(replace(request, cwd=Path(plan.attempts or board) / attempt / "work"))
    return await ended(client, attempt)


SEEN = r"""
import ctypes, json, os, sys
def read(name):
    with open(f"/proc/self/{name}", errors="replace") as file: return file.read()
status = dict(line.split(":", 1) for line in read("status").splitlines())
for name in ("FDSize", "Pid", "Tgid", "NStgid", "NSpid", "NSpgid", "NSsid", "PPid"): status.pop(name, None)
status = {name: text for name, text in status.items() if "ctxt" not in name and name[:2] not in ("Vm", "Rs", "Hu")}
limits = {line[:26].strip(): line[26:].split() for line in read("limits").splitlines()[1:]}
mark = limits.pop("Max file locks")
fields = read("stat").rpartition(")")[2].split()
me = str(os.getpid())
stat = {"own group": fields[2] == me, "own session": fields[3] == me, "terminal": fields[4], "priority": fields[15:17],
        "policy": fields[38]}
def attempt(what):
    try: what()
    except OSError as error: return error.errno
    return 0
json.dump({
    "status": status, "limits": limits, "marked": int(mark[0]) > 1 << 32, "hard mark": mark[1], "stat": stat,
    "cgroup": read("cgroup"), "score": read("oom_score_adj"), "cwd": os.getcwd(), "umask": os.umask(0),
    "open": {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if int(name) < 3},
    "more": [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
             if int(name) > 2 and os.path.lexists(f"/proc/self/fd/{name}")],
    "env": dict(os.environ), "affinity": sorted(os.sched_getaffinity(0)),
    "own": attempt(lambda: open("x", "w").close()),
    "refused": [attempt(lambda: os.listdir("/var/lib")), attempt(lambda: os.kill(os.getppid(), 0)),
                attempt(lambda: os.setuid(0)), attempt(lambda: os.setgroups([])),
                ctypes.CDLL(None, use_errno=True).unshare(0x10000000) and ctypes.get_errno()],
    "stdin": sys.stdin.read(),
}, sys.stdout)
"""


async def test_a_program_of_a_starter_is_what_one_of_a_fork_is(board: Path) -> None:
    groups = ControlGroups.open(group_name())
    plan = shared(board)
    if groups.enforces:
        places = groups.make("a", GroupLimits(memory_bytes=256 << 20, processes=50))
        plan = replace(plan, join=places.join, kill=places.kill)
    (board / "attempts/a/work/given").write_text("what it reads")
    os.chown(board / "attempts/a/work/given", USER, USER)
    found: list[dict[str, Any]] = []
    try:
        async with KeeperClient(board / "keeper.sock") as client:
            for attempts, many in (("", 0), (plan.attempts, 1)):
                one = replace(plan, attempts=attempts)
                if not attempts:
                    one = replace(
                        one, own=(FilesRule(plan.attempts, write=True),) if one.own else ()
                    )
                request = program(
                    board, PYTHON, "-c", SEEN, sandbox=one, open_files=300, stdin=Path("given")
                )
                await client.start(replace(request, cwd=board / "attempts/a/work"))
                record = await ended(client)
                assert (record.exit_code, record.left) == (0, ""), (board / "a.err").read_text()
                assert len(starters(board)) == many
                found.append(json.loads((board / "a.out").read_text()))
                (board / "a.out").unlink()
                await client.forget("a")
    finally:
        groups.sweep(())
        groups.close()
    [forked, ours] = found
    assert not ours.pop("more"), "nothing is open that is not its own"
    del forked["more"]  # what these tests have from their own parent
    assert forked == ours
    assert ours["status"]["Uid"].split() == [str(USER)] * 4
    assert ours["marked"]
    assert ours["stdin"] == "what it reads"
    assert ours["own"] == 0
    assert all(ours["refused"][0 if plan.files else 1 :])


async def test_attempts_of_one_recipe_have_one_starter_and_reach_nothing_of_one_another(
    board: Path,
) -> None:
    first, second = shared(board), shared(board, "b", USER + 1)
    async with KeeperClient(board / "keeper.sock") as client:
        serve = (
            f"import socket; s=socket.socket(socket.AF_UNIX); s.bind(b'\\0shoal-test-{os.getpid()}'); "
            "s.listen(); open('mine','w').write('x'); print('up', flush=True); s.accept()"
        )
        request = program(board, PYTHON, "-c", serve, sandbox=first)
        pid = await client.start(replace(request, cwd=board / "attempts/a/work"))
        await until(lambda: "up" in (board / "a.out").read_text(), what="the first one")
        attack = (
            "import os,socket\n"
            "def tried(what):\n"
            "    try: what()\n"
            "    except OSError as error: return type(error).__name__\n"
            "    return 'done'\n"
            f"print(tried(lambda: os.kill({pid}, 9)), tried(lambda: os.listdir('{board}/attempts/a/work')),\n"
            f"      tried(lambda: open('{board}/attempts/a/work/mine')),\n"
            f"      tried(lambda: os.listdir('{board}/attempts')),\n"
            f"      tried(lambda: socket.socket(socket.AF_UNIX).connect(b'\\0shoal-test-{os.getpid()}')))\n"
        )
        record = await run(client, board, second, PYTHON, "-c", attack, attempt="b")
        assert record.exit_code == 0, (board / "b.err").read_text()
        assert len(starters(board)) == 1
        assert strays.alive(pid)
    said = (board / "b.out").read_text().split()
    assert said[:4] == ["PermissionError"] * 4
    if first.scoped:
        assert said[4] == "PermissionError"


@pytest.mark.parametrize(
    ("change", "more", "words"),
    [
        ({"join": ("/nowhere/cgroup.procs",)}, {}, "cannot join the control group /nowhere/cgroup.procs: No such"),
        ({}, {"cwd": Path("/proc/1/cwd")}, "Permission denied (/proc/1/cwd)"),
        ({}, {"stdin": Path("link")}, "Permission denied (link)"),
        ({}, {"argv": ("/nowhere/program",)}, "No such file or directory (/nowhere/program)"),
        ({}, {"argv": ("/etc/passwd",)}, "Permission denied (/etc/passwd)"),
    ],
    ids=["group", "folder", "stdin", "program", "mode"],
)  # fmt: skip
async def test_a_step_that_fails_says_the_same_with_a_starter(
    board: Path, change: Mapping[str, object], more: Mapping[str, object], words: str
) -> None:
    plan: SandboxPlan = replace(shared(board), **change)  # type: ignore[arg-type]
    (board / "secret").write_text("root's own")
    (board / "secret").chmod(0o600)
    (board / "attempts/a/work/link").symlink_to(board / "secret")
    said: list[str] = []
    async with KeeperClient(board / "keeper.sock") as client:
        for attempts in ("", plan.attempts):
            request = program(board, "/bin/true", sandbox=replace(plan, attempts=attempts))
            asked = replace(request, **{"cwd": board / "attempts/a/work", **more})  # type: ignore[arg-type]
            with pytest.raises(KeeperError) as raised:
                await client.start(asked)
            said.append(str(raised.value))
        assert words in said[1]
        assert said[0] == said[1]
        assert not await client.list()
        assert not processes_of(USER)
        assert (await run(client, board, shared(board), "/bin/true")).exit_code == 0


async def test_programs_go_on_and_are_told_of_when_their_starter_is_killed(board: Path) -> None:
    keeper = keeper_of(board)
    async with KeeperClient(board / "keeper.sock") as client:
        await run(client, board, shared(board, "z", USER + 9), "/bin/true", attempt="z")
        for name, uid, script in (
            ("a", USER, "read x < wait; exit 7"),
            ("b", USER + 1, "trap 'exit 8' TERM; read x < wait"),
        ):
            plan = shared(board, name, uid)
            os.mkfifo(board / f"attempts/{name}/work/wait", 0o600)
            os.chown(board / f"attempts/{name}/work/wait", uid, uid)
            request = program(board, "/bin/sh", "-c", script, attempt=name, sandbox=plan)
            await client.start(replace(request, cwd=board / f"attempts/{name}/work"))
        [starter] = starters(board)
        os.kill(starter, signal.SIGKILL)
        await until(lambda: len(strays.children(keeper)) == 2, what="them being the keeper's")
        with (board / "attempts/a/work/wait").open("w") as go:
            go.write("on\n")
        assert (await ended(client, "a")).exit_code == 7
        await client.stop("b", 60.0)
        assert (await ended(client, "b")).exit_code == 8
        assert (
            await run(client, board, shared(board, "c", USER + 2), "/bin/true", attempt="c")
        ).exit_code == 0
        assert starters(board) != [starter]


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
async def test_a_starter_that_cannot_answer_is_replaced_and_no_program_begins_twice(
    board: Path, number: signal.Signals
) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        request = program(board, "/bin/sleep", "751", sandbox=shared(board))
        pid = await client.start(replace(request, cwd=board / "attempts/a/work"))
        [starter] = starters(board)
        os.kill(starter, number)
        begun = board / "attempts/b/work/begun"
        plan = shared(board, "b", USER + 1)
        with contextlib.suppress(
            KeeperError
        ):  # it does not hear of a start that has not been heard either
            await run(client, board, plan, "/bin/sh", "-c", "echo x >> begun", attempt="b")
        assert not processes_of(USER + 1)
        assert not begun.exists() or begun.read_text() == "x\n"
        await until(lambda: starter not in strays.children(keeper_of(board)), what="its end")
        assert strays.alive(pid), "what ran goes on"
        plan = shared(board, "c", USER + 2)
        assert (await run(client, board, plan, "/bin/true", attempt="c")).exit_code == 0
        await client.stop("a", 0.0)
        assert (await ended(client)).signal == signal.SIGKILL


AWAY = """
import os, resource
resource.setrlimit(10, (5, -1))
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    os.execve('/bin/sleep', ['sleep', '752'], {})
"""


async def test_nothing_is_left_of_its_programs_at_their_end(board: Path) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        request = program(
            board, "/bin/sleep", "753", attempt="o", sandbox=shared(board, "o", USER + 1)
        )
        other = await client.start(replace(request, cwd=board / "attempts/o/work"))
        record = await run(client, board, shared(board), PYTHON, "-c", AWAY)
        assert (record.exit_code, record.left) == (0, "")
        assert not processes_of(USER)
        assert strays.alive(other)


async def test_all_programs_end_with_their_keeper_and_so_does_the_starter(board: Path) -> None:
    script = f"{AWAY}\nos.execv('/bin/sleep', ['sleep', '754'])"
    async with KeeperClient(board / "keeper.sock") as client:
        request = program(board, PYTHON, "-c", script, sandbox=shared(board))
        await client.start(replace(request, cwd=board / "attempts/a/work"))
        await until(lambda: len(processes_of(USER)) > 1, what="a daemon")
        [starter] = starters(board)
        os.kill(keeper_of(board), signal.SIGKILL)
        await until(lambda: not processes_of(USER), what="the end of both")
        await until(lambda: not strays.alive(starter), what="that of the starter")
    await ensure_keeper(board / "keeper.sock", board / "keeper.log")


async def test_programs_end_with_a_keeper_that_had_not_heard_all_of_its_starter(
    board: Path,
) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        for name, uid, argv in (
            ("a", USER, ("/bin/sleep", "761")),
            ("b", USER + 1, ("/bin/sh", "-c", "read x < wait")),
        ):
            request = program(board, *argv, attempt=name, sandbox=shared(board, name, uid))
            wait = board / f"attempts/{name}/work/wait"
            os.mkfifo(wait, 0o600)
            os.chown(wait, uid, uid)
            pid = await client.start(replace(request, cwd=wait.parent))
        keeper, [starter] = keeper_of(board), starters(board)
        os.kill(keeper, signal.SIGSTOP)
        (board / "attempts/b/work/wait").write_text("on\n")
        await until(lambda: not Path(f"/proc/{pid}").exists(), what="b being told of and reaped")
        os.kill(keeper, signal.SIGKILL)
        await until(lambda: not processes_of(USER), what="the end of a")
        await until(lambda: not strays.alive(starter), what="that of the starter")
    await ensure_keeper(board / "keeper.sock", board / "keeper.log")


async def test_a_group_that_was_made_again_is_joined_by_its_starter(board: Path) -> None:
    own = next((one for one in own_groups() if one.unified or "pids" in one.controllers), None)
    if own is None or not os.access(own.folder, os.W_OK):
        pytest.skip("no group can be made here")
    group = own.folder / group_name()
    join = group / ("cgroup.procs" if own.unified else "tasks")
    async with KeeperClient(board / "keeper.sock") as client:
        known: list[int] = []
        for number, name in enumerate("ab"):
            group.mkdir()
            try:
                plan = shared(board, name, USER + number, join=(str(join),), kill=(str(group),))
                record = await run(
                    client, board, plan, "/bin/cat", "/proc/self/cgroup", attempt=name
                )
            finally:
                group.rmdir()
            assert (record.exit_code, record.left) == (0, "")
            assert f"/{group.name}\n" in (board / f"{name}.out").read_text()
            known += starters(board)
        assert len(set(known)) == 1


REACH = r"""
import ctypes, os, resource, signal, sys, time
starter, libc = os.getppid(), ctypes.CDLL(None, use_errno=True)
def refused(what):
    try: return what() is None and False
    except PermissionError: return True
def call(*words):
    if libc.syscall(*map(ctypes.c_long, words)) < 0: raise OSError(ctypes.get_errno(), "")
number = {"x86_64": (101, 234, 200), "aarch64": (117, 131, 130)}[os.uname().machine]
def users(thread):
    with open(f"/proc/{starter}/task/{thread}/status") as file:
        return next(line for line in file if line.startswith("Uid")).split()[1:]
threads = list(map(int, os.listdir(f"/proc/{starter}/task")))
for thread in threads:
    while users(thread) != ["0"] * 4:  # the one that has started this
        os.sched_yield()
ways = {
    "SIGKILL": lambda: os.kill(starter, 9),
    "SIGSTOP": lambda: os.kill(starter, 19),
    "SIGTERM": lambda: os.kill(starter, 15),
    "tkill": lambda: call(number[2], starter, 9),
    "tgkill": lambda: call(number[1], starter, starter, 19),
    "ptrace attach": lambda: call(number[0], 16, starter, 0, 0),
    "ptrace seize": lambda: call(number[0], 0x4206, starter, 0, 0),
    "prlimit": lambda: resource.prlimit(starter, resource.RLIMIT_NOFILE, (3, 3)),
    "affinity": lambda: os.sched_setaffinity(starter, {0}),
    "scheduler": lambda: os.sched_setscheduler(starter, os.SCHED_BATCH, os.sched_param(0)),
    "nice": lambda: os.setpriority(os.PRIO_PROCESS, starter, 19),
    "memory": lambda: open(f"/proc/{starter}/mem", "rb"),
    "variables": lambda: open(f"/proc/{starter}/environ", "rb").read(1),
    "descriptors": lambda: os.listdir(f"/proc/{starter}/fd"),
    "score": lambda: open(f"/proc/{starter}/oom_score_adj", "w"),
}
for one in set(threads) - {starter}:
    ways |= {
        "tkill a hand": lambda: call(number[2], one, 9),
        "tgkill a hand": lambda: call(number[1], starter, one, 19),
        "ptrace a hand": lambda: call(number[0], 0x4206, one, 0, 0),
        "prlimit of a hand": lambda: resource.prlimit(one, resource.RLIMIT_NOFILE, (3, 3)),
        "affinity of a hand": lambda: os.sched_setaffinity(one, {0}),
        "scheduler of a hand": lambda: os.sched_setscheduler(one, os.SCHED_BATCH, os.sched_param(0)),
        "nice of a hand": lambda: os.setpriority(os.PRIO_PROCESS, one, 19),
        "memory of a hand": lambda: open(f"/proc/{one}/mem", "rb"),
    }
assert len(threads) == 2, threads
print(sorted(name for name, what in ways.items() if not refused(what)), flush=True)
"""
STORM = r"""
import ctypes, os
starter, libc = os.getppid(), ctypes.CDLL(None)
number = ctypes.c_long({"x86_64": 200, "aarch64": 130}[os.uname().machine])
for _ in range(300):
    for thread in os.listdir(f"/proc/{starter}/task"):
        for near in range(int(thread), int(thread) + 3):
            libc.syscall(number, ctypes.c_long(near), ctypes.c_long(9))
"""


async def test_a_program_reaches_nothing_of_its_starter(board: Path) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        record = await run(client, board, shared(board), PYTHON, "-c", REACH)
        assert record.exit_code == 0, (board / "a.err").read_text()
        assert len(starters(board)) == 1
    assert (board / "a.out").read_text() == "[]\n"


def _change_priority(thread: int) -> None:
    os.setpriority(os.PRIO_PROCESS, thread, 19)


def _change_processors(thread: int) -> None:
    os.sched_setaffinity(thread, {min(os.sched_getaffinity(0))})


def _change_policy(thread: int) -> None:
    os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


def _change_io_priority(thread: int) -> None:
    number = {"x86_64": 251, "aarch64": 30}[platform.machine()]
    of_process, idle = 1, 3 << 13  # linux/ioprio.h
    done = ctypes.CDLL(None).syscall(*map(ctypes.c_long, (number, of_process, thread, idle)))
    assert done == 0


@pytest.mark.parametrize(
    "change",
    [
        _change_priority,
        _change_processors,
        _change_policy,
        _change_io_priority,
    ],
    ids=["priority", "processors", "policy", "priority of input and output"],
)
async def test_a_hand_that_was_changed_starts_no_further_program(
    board: Path, change: Callable[[int], None]
) -> None:
    """As a program may change it that hits the moment of its own start; here root does."""
    if os.nice(0) == 19 or len(os.sched_getaffinity(0)) == 1:
        pytest.skip("nothing would change here")
    async with KeeperClient(board / "keeper.sock") as client:

        async def start(number: int) -> None:
            plan = shared(board, f"n{number}", USER + number)
            record = await run(client, board, plan, "/bin/true", attempt=f"n{number}")
            assert (record.exit_code, record.left) == (0, "")

        await start(0)
        [starter] = starters(board)
        tasks = Path(f"/proc/{starter}/task")
        [hand] = [task for task in tasks.iterdir() if task.name != str(starter)]
        change(int(hand.name))
        await start(1)
        assert hand.exists(), "it is found to be changed after this one"
        await start(2)
        await until(lambda: not hand.exists(), what="the end of the hand")
        await start(3)
        [starter] = starters(board)  # another one, where the hand took longer than a starter rests
        left = os.listdir(f"/proc/{starter}/task")
        assert len(left) == 2
        assert hand.name not in left


async def test_programs_that_run_at_once_have_a_hand_each_and_those_that_follow_share_one(
    board: Path,
) -> None:
    """So each has a scope of Landlock of its own, and nothing of another program lives in it."""
    many, scoped = 12, shared(board).scoped
    async with KeeperClient(board / "keeper.sock") as client:
        for number in range(many):
            plan = shared(board, f"n{number}", USER + number)
            argv = ("/bin/sleep", "762")
            request = program(board, *argv, attempt=f"n{number}", sandbox=plan)
            await client.start(replace(request, cwd=board / f"attempts/n{number}/work"))
        [starter] = starters(board)
        # Hands whose programs run on are kept up to a number, beside the one on duty and the first thread.
        threads = len(os.listdir(f"/proc/{starter}/task"))
        assert threads == (1 + 1 + min(many - 1, 8) if scoped else 2)
        for number in range(many):
            await client.stop(f"n{number}", 0.0)
            assert (await ended(client, f"n{number}")).signal == signal.SIGKILL
        # And each takes so many scopes, one within the other, and no more.
        for number in range(100, 140):
            plan = shared(board, f"n{number}", USER + number)
            record = await run(client, board, plan, "/bin/true", attempt=f"n{number}")
            assert (record.exit_code, record.left) == (0, "")
        assert starters(board) == [starter]
        assert len(os.listdir(f"/proc/{starter}/task")) <= threads


async def test_programs_that_shoot_at_the_threads_of_their_starter_end_no_other(
    board: Path,
) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        request = program(
            board, "/bin/sleep", "755", attempt="o", sandbox=shared(board, "o", USER + 1)
        )
        other = await client.start(replace(request, cwd=board / "attempts/o/work"))
        for _ in range(10):
            with contextlib.suppress(
                KeeperError
            ):  # each of them may hit the moment of its own start
                await run(client, board, shared(board), PYTHON, "-c", STORM)
                await client.forget("a")
            assert not processes_of(USER)
        assert strays.alive(other)
        await client.stop("o", 0.0)
        assert (await ended(client, "o")).signal == signal.SIGKILL


async def test_a_folder_that_was_replaced_is_the_one_that_a_program_sees(board: Path) -> None:
    if landlock.abi() < landlock.FILES_ABI:
        pytest.skip("the kernel's Landlock has no rules about files")
    given = board / "given"
    plan = shared(board)
    plan = replace(plan, files=(*plan.files, FilesRule(str(given))))
    async with KeeperClient(board / "keeper.sock") as client:
        for text in ("old", "new"):
            shutil.rmtree(given, ignore_errors=True)
            given.mkdir()
            (given / "words").write_text(text)

            async def read(wanted: str = text) -> bool:
                record = await run(client, board, plan, "/bin/cat", str(given / "words"))
                said = (board / "a.out").read_text()
                (board / "a.out").unlink()
                await client.forget("a")
                return record.exit_code == 0 and said == wanted

            await until(read, what=f"it reads {text}")
        assert len(starters(board)) == 1


async def test_there_are_only_so_many_starters_and_none_with_programs_makes_room(
    board: Path,
) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        first: list[int] = []
        for number in range(STARTERS_MAX + 2):
            name = f"n{number}"
            limits = ((int(resource.RLIMIT_NOFILE), 100 + number),)
            plan = shared(board, name, USER + number, limits=limits)
            request = program(board, "/bin/sleep", "756", attempt=name, sandbox=plan)
            await client.start(replace(request, cwd=board / f"attempts/{name}/work"))
            assert len(starters(board)) == min(number + 1, STARTERS_MAX)
            first = first or starters(board)
        await client.stop("n0", 0.0)
        assert (await ended(client, "n0")).signal == signal.SIGKILL
        plan = shared(board, "last", USER + 100)
        assert (await run(client, board, plan, "/bin/true", attempt="last")).exit_code == 0
        assert len(starters(board)) == STARTERS_MAX
        assert first[0] not in starters(board), "it had nothing to do"
        os.kill(keeper_of(board), signal.SIGKILL)
        users = [USER + number for number in range(STARTERS_MAX + 2)]
        await until(
            lambda: not any(map(processes_of, users)), what="the end of all with their keeper"
        )
    await ensure_keeper(board / "keeper.sock", board / "keeper.log")


@pytest.mark.parametrize(
    "change",
    [
        {"limits": ((int(resource.RLIMIT_CPU), 100),)},
        {"limits": ((int(resource.RLIMIT_NPROC), 1),)},
        {"limits": ((int(resource.RLIMIT_NOFILE), 20),)},
        {"attempts": ""},
    ],
    ids=["a limit of time", "one process", "few files", "no folder of all"],
)
async def test_what_a_starter_cannot_do_exactly_is_done_by_a_fork(
    board: Path, change: Mapping[str, object]
) -> None:
    plan: SandboxPlan = replace(shared(board), **change)  # type: ignore[arg-type]
    async with KeeperClient(board / "keeper.sock") as client:
        request = program(board, "/bin/true", sandbox=plan)
        await client.start(replace(request, cwd=board / "attempts/a/work"))
        assert (await ended(client)).exit_code == 0
        assert not starters(board)


@pytest.mark.parametrize("script", ["exit 3", "kill -TERM $$", "kill -SEGV $$"])
async def test_an_end_is_told_as_it_was(board: Path, script: str) -> None:
    ends: Sequence[ProcessRecord] = []
    async with KeeperClient(board / "keeper.sock") as client:
        for attempts in ("", shared(board).attempts):
            request = program(
                board, "/bin/sh", "-c", script, sandbox=replace(shared(board), attempts=attempts)
            )
            await client.start(replace(request, cwd=board / "attempts/a/work"))
            ends = [*ends, await ended(client)]
            await client.forget("a")
    first, second = ends
    assert (first.exit_code, first.signal, first.left) == (
        second.exit_code,
        second.signal,
        second.left,
    )


async def test_a_timeout_ends_the_group_by_its_starter(board: Path) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        script = "trap '' TERM; sleep 757 & sleep 758; :"
        record = await run(
            client, board, shared(board), "/bin/sh", "-c", script, timeout_seconds=0.2
        )
        assert (record.timed_out, record.signal, record.left) == (True, signal.SIGKILL, "")
        assert not processes_of(USER)


async def test_in_version_2_of_control_groups_the_starter_leaves_the_groups_of_its_programs(
    board: Path,
) -> None:
    unified = [one.folder for one in own_groups() if one.unified]
    if not unified:
        pytest.skip("no hierarchy of version 2 is mounted here")
    group = unified[0] / group_name()
    group.mkdir()
    try:
        plan = shared(board, join=(str(group / "cgroup.procs"),), kill=(str(group),))
        async with KeeperClient(board / "keeper.sock") as client:
            request = program(board, "/bin/sleep", "759", sandbox=plan)
            pid = await client.start(replace(request, cwd=board / "attempts/a/work"))
            assert (group / "cgroup.procs").read_text().split() == [str(pid)]
            assert len(starters(board)) == 1
            await client.stop("a", 0.0)
            assert (await ended(client)).left == ""
    finally:
        group.rmdir()


def test_a_starter_without_work_ends_and_one_whose_program_runs_stays(board: Path) -> None:
    # As a keeper has it: in a process with the threads of other tests a fork may never get to its first line.
    apart = multiprocessing.get_context("spawn").Process(target=_drive, args=(board,))
    apart.start()
    apart.join(_APART_SECONDS)
    assert apart.exitcode == 0, "its own words stand on stderr"


def _drive(board: Path) -> None:
    now = [100.0]
    selector = selectors.DefaultSelector()
    ours = Starters(selector, "shoal-starter of a test", print, lambda: now[0])
    nothing = os.open(os.devnull, os.O_RDWR)
    plan = shared(board)
    work = str(board / "attempts/a/work")
    one = Execution("a", ["/bin/sleep", "760"], {}, work, "", [(nothing, 1), (nothing, 2)], 1, plan)
    pid = ours.start(one)
    assert pid is not None
    [starter] = ours.pids
    assert ours.deadline() is None
    now[0] += 1000.0
    ours.tick()
    assert strays.alive(starter)
    assert ours.signal(pid, signal.SIGTERM)
    for key, _ in selector.select(60.0):
        ours.hear(key.fd)
    [end] = ours.ended()
    assert (end.pid, end.exited, end.status) == (pid, False, signal.SIGTERM)
    assert not ours.signal(pid, signal.SIGTERM), "its number may be that of another by now"
    assert ours.deadline() == now[0] + IDLE_SECONDS
    now[0] += IDLE_SECONDS
    ours.tick()
    assert os.waitpid(starter, 0)[1] == 0
    ours.reaped(starter)
    assert not ours.pids
    os.close(nothing)
    selector.close()
