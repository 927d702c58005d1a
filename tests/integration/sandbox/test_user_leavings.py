"""What a job of level user leaves in places of all users is gone with it, by a real agent that is root."""

import os
import stat
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.attempt_folder import AttemptFolder
from edge_agent.sandbox.control_groups import ControlGroups
from edge_agent.sandbox.job_limits import JobLimits
from edge_agent.sandbox.narrowing import Narrowing
from edge_agent.sandbox.planning import SandboxPlanning
from edge_agent.sandbox.user_leavings import UserLeavings
from edge_agent.sandbox.user_range import UserRange
from shoal.model import JobState
from shoal.sandbox import NodeSandbox
from shoal.spec import Environment, Job
from tests.integration.agent.board import Board
from tests.kit.agent_process import AgentProcess
from tests.kit.job_users import job_users
from tests.kit.object_server import ObjectServer
from tests.kit.scripted_controller import ScriptedController
from tests.kit.until import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root lets jobs have users")

_SHMGET = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.shmget(0, 4096, 0o1666) >= 0, "shm"
assert libc.semget(0, 1, 0o1666) >= 0, "sem"
assert libc.msgget(0, 0o1666) >= 0, "msg"
"""
_LEAVES = (
    _SHMGET
    + """
import os, tempfile
for folder in ("/dev/shm", "/var/tmp"):
    made = tempfile.mkdtemp(dir=folder, prefix="left-")
    os.mkdir(f"{made}/below")
    os.symlink("/etc/passwd", f"{made}/below/link")
    os.chmod(f"{made}/below", 0)
    with open(tempfile.mkstemp(dir=folder, prefix="left-")[0], "wb") as file:
        file.write(bytes(1 << 20))
print(os.getuid())
"""
)


@pytest.fixture
async def board() -> AsyncIterator[Board]:
    """A board whose jobs have users of their own."""
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
        AgentProcess(controller.address, "--sandbox", "user") as agent,
    ):
        found = Board(objects, controller, agent)
        await found.connected()
        yield found


def left_by(uid: int) -> list[str]:
    """Everything of a user in memory and in places of all users."""
    found = [
        str(path)
        for folder in (Path("/dev/shm"), Path("/var/tmp"))
        for path in folder.glob("left-*")
        if path.lstat().st_uid == uid
    ]
    rows = [
        line
        for kind in ("shm", "sem", "msg")
        for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]
    ]
    return [*found, *(row for row in rows if str(uid) in row.split())]


_ESCAPES = (
    _LEAVES.replace("print(os.getuid())", "")
    + """
import socket
reads, writes = os.pipe()  # closed as the last one becomes another program
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        kept = socket.socket(socket.AF_UNIX)
        kept.bind("\\0left-behind")
        kept.listen()
        os.environ.clear()
        os.execv("/bin/sleep", ["sleep", "600"])
    os._exit(0)
os.close(writes)
os.read(reads, 1)
print(os.getuid())
"""
)
_LOOKS = """
import pathlib
uid = str(os.getuid())
files = [
    str(path)
    for folder in ("/dev/shm", "/var/tmp", "/dev/mqueue")
    for path in pathlib.Path(folder).glob("*")
    if path.lstat().st_uid == os.getuid()
]
objects = [
    line
    for kind in ("shm", "sem", "msg")
    for line in open("/proc/sysvipc/" + kind).read().splitlines()[1:]
    if uid in line.split()
]
others = []
for pid in filter(str.isdecimal, os.listdir("/proc")):
    try:
        if int(pid) != os.getpid() and os.stat("/proc/" + pid).st_uid == os.getuid():
            # One that has ended, and whose parent has not looked yet, has no words any more.
            others += [pid] if open("/proc/" + pid + "/cmdline").read() else []
    except OSError:
        pass
sockets = [line for line in open("/proc/net/unix") if "left-behind" in line]
print(uid, files, objects, others, sockets)
"""


async def test_the_next_attempt_of_a_user_meets_nothing_of_the_one_before() -> None:
    """There are two users alone, one of which may build, so numbers and control groups come again at once."""
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
        AgentProcess(controller.address, "--sandbox", "user", "--job-users", "3400000:2") as agent,
    ):
        board = Board(objects, controller, agent)
        await board.connected()
        had: list[str] = []
        for turn in range(3):
            for name, code in (("leaves", _ESCAPES), ("looks", f"import os{_LOOKS}")):
                ref = board.run(
                    Job(
                        f"{name}-{turn}",
                        ("python", "-c", code),
                        environment=Environment(python="system"),
                    )
                )
                assert await board.end(ref) is JobState.SUCCEEDED, board.controller.reason(ref)
                uid, *met = board.controller.log(ref).split(maxsplit=1)
                assert met == ([] if name == "leaves" else ["[] [] [] []\n"])
                had.append(uid)
                await board.idle()
        assert set(had) <= {"3400000", "3400001"}


async def test_memory_and_files_that_an_attempt_leaves_go_with_it(board: Board) -> None:
    """Else one job after the other fills the memory of the board for good."""
    ref = board.run(
        Job("leaves", ("python", "-c", _LEAVES), environment=Environment(python="system"))
    )
    assert await board.end(ref) is JobState.SUCCEEDED, board.controller.reason(ref)
    uid = int(board.controller.log(ref))
    assert not [path for path in left_by(uid) if path.startswith("/dev/shm")], "memory, at once"
    await until(lambda: left_by(uid) == [], 30, "that what it left is looked for")


def test_what_others_have_there_stays() -> None:
    """Files and memory of another user, and folders in which not all users may write."""
    uid, other = 299_990, 299_991
    subprocess.run(
        [Path("/usr/bin/python3"), "-c", _SHMGET], user=other, group=other, check=True, cwd="/"
    )
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        shared, closed = Path(name, "shared"), Path(name, "closed")
        for folder in (shared, closed):
            folder.mkdir()
            for owner in (uid, other):
                (folder / str(owner)).write_text("x")
                os.chown(folder / str(owner), owner, owner)
        shared.chmod(0o1777)
        leavings = UserLeavings({uid, other}, time.time, (shared, closed, Path(name, "none")))
        assert leavings.remove({uid}) == []
        assert [path.name for path in shared.iterdir()] == [str(other)]
        assert len(list(closed.iterdir())) == 2
    assert len(left_by(other)) == 3
    nowhere = UserLeavings({uid, other}, time.time, ())
    nowhere.remove_memory(other)
    assert len(left_by(other)) == 2, "the segment is memory, and goes at once"
    assert nowhere.remove({other}) == []
    assert left_by(other) == []


def test_a_folder_of_another_owner_ends_nothing_of_his(tmp_path: Path) -> None:
    """An attempt of an agent with another range: its number may be a person's."""
    person = 299_992
    folder = AttemptFolder(tmp_path / "attempts" / "default.p.j.1-1")
    folder.work.mkdir(parents=True)
    os.chown(folder.work, person, person)
    descriptor, name = tempfile.mkstemp(dir="/var/tmp", prefix="left-")
    os.fchown(descriptor, person, person)
    os.close(descriptor)
    users = job_users(UserRange(3_100_000, 4), tmp_path / "registry", tmp_path)
    limits = JobLimits(ControlGroups(), frozenset())
    planning = SandboxPlanning(
        tmp_path, NodeSandbox(), users, Narrowing((), (), "x86_64", ""), limits
    )
    try:
        assert planning.close(folder) == person
        assert left_by(person) == [name]
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    finally:
        Path(name).unlink(missing_ok=True)
