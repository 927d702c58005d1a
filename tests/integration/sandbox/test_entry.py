"""What a plan says is done before the program begins, or nothing begins. Real keepers, of root and of a service."""

import base64
import json
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.keeper import strays
from edge_agent.keeper.client import KeeperClient, KeeperError, ensure_keeper
from edge_agent.sandbox import landlock, seccomp
from edge_agent.sandbox.plan import FilesRule
from tests.integration.keeper.programs import ended, keeper_of, program
from tests.integration.sandbox.root_keeper import PLAN, USER, board, folder
from tests.kit.until import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives programs other users")

__all__ = ("board", "folder")

AGENT_USER = 211_999
SEEN = "grep -E '^(Uid|Gid|Groups|Cap(Inh|Prm|Eff|Amb)|NoNewPrivs):' /proc/self/status"
LEASES = pytest.mark.parametrize("lease", [0.0, 60.0], ids=["plain", "leased"])


@pytest.fixture
async def plain(folder: Path) -> AsyncIterator[Path]:
    """Such a folder with a keeper that is no root and may make itself others, as that of a service."""
    os.chown(folder, AGENT_USER, AGENT_USER)
    rights = "+setuid,+setgid,+kill,+dac_read_search"  # the last one for the interpreter, which may be root's
    with (folder / "keeper.log").open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", f"--reuid={AGENT_USER}", f"--regid={AGENT_USER}", "--clear-groups",
             f"--inh-caps=-all,{rights}", f"--ambient-caps=-all,{rights}",
             sys.executable, "-m", "edge_agent.keeper", "--socket", str(folder / "keeper.sock")],
            stderr=log,
        )  # fmt: skip
    await until((folder / "keeper.sock").exists, what="the keeper")
    yield folder
    process.kill()
    process.wait()


def seen(board: Path) -> dict[str, list[str]]:
    """What the program has printed of its status."""
    lines = (board / "a.out").read_text().splitlines()
    return {name: words.split() for name, _, words in (line.partition(":") for line in lines)}


def expect_a_user_without_rights(found: Mapping[str, list[str]]) -> None:
    assert found["Uid"] == found["Gid"] == [str(USER)] * 4
    assert found["Groups"] == ["211500"]
    for which in ("Inh", "Prm", "Eff", "Amb"):
        assert int(found[f"Cap{which}"][0], 16) == 0, which
    assert found["NoNewPrivs"] == ["1"]


@LEASES
async def test_a_program_begins_as_its_plan_says(board: Path, lease: float) -> None:
    script = (
        f"{SEEN}; echo Files: $(ulimit -n) $(ulimit -Hn); echo Core: $(ulimit -Hc); "
        "echo Score: $(cat /proc/self/oom_score_adj); echo Folder: $(pwd); echo Ours: $(ls -a)"
    )
    request = program(board, "/bin/sh", "-c", script, lease=lease, sandbox=PLAN)
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(replace(request, cwd=board / "work"))
        assert (await ended(client)).exit_code == 0
    found = seen(board)
    expect_a_user_without_rights(found)
    assert found["Files"] == ["77", "77"]
    assert found["Score"] == ["500"]
    assert found["Folder"] == [str(board / "work")]
    assert found["Core"] in (["0"], ["1"]), "blocks of 512 or 1024 bytes of one byte"


@LEASES
async def test_a_keeper_that_is_no_root_leaves_none_of_its_rights(
    plain: Path, lease: float
) -> None:
    async with KeeperClient(plain / "keeper.sock") as client:
        plan = replace(PLAN, oom_score=0)
        await client.start(program(plain, "/bin/sh", "-c", SEEN, lease=lease, sandbox=plan))
        assert (await ended(client)).exit_code == 0
        expect_a_user_without_rights(seen(plain))
        script = "trap '' TERM; (env -i setsid sleep 731 &) ; sleep 732; :"
        await client.start(
            program(plain, "/bin/sh", "-c", script, attempt="b", lease=lease, sandbox=plan)
        )
        await client.stop("b", 0.3)
        assert (await ended(client, "b")).left == "", "what is another user's is ended, too"


async def test_a_limit_that_may_not_be_raised_to_what_a_plan_says_stays_below(plain: Path) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    plan = replace(PLAN, oom_score=0, limits=((int(resource.RLIMIT_NOFILE), most + 1),))
    async with KeeperClient(plain / "keeper.sock") as client:
        await client.start(program(plain, "/bin/sh", "-c", "ulimit -Hn", sandbox=plan))
        assert (await ended(client)).exit_code == 0
    assert int((plain / "a.out").read_text()) == most


async def test_a_request_longer_than_a_packet_comes_as_a_file(board: Path) -> None:
    files = tuple(FilesRule(f"/nowhere/{number:0200}") for number in range(2_000))
    plan = replace(PLAN, files=(FilesRule("/", write=True), *files))
    env = {f"LONG_{number}": "x" * 100_000 for number in range(3)}
    request = program(board, "/bin/sh", "-c", 'echo "${#LONG_0} ${#LONG_2}"')
    async with KeeperClient(board / "keeper.sock") as client:
        with pytest.raises(KeeperError, match="the keeper reads at most 131072"):
            await client.start(replace(request, env=env))  # of this keeper nothing is known yet
        await client.start(replace(request, env=env, sandbox=plan))
        assert (await ended(client)).exit_code == 0
        with pytest.raises(KeeperError, match=r"the keeper reads at most 4194304: shorten"):
            await client.start(replace(request, attempt="b", env={"LONG": "x" * (5 << 20)}))
        assert [one.attempt for one in await client.list()] == ["a"]
    assert (board / "a.out").read_text() == "100000 100000\n"


@pytest.mark.parametrize("kind", ["pipe", "empty", "no JSON"])
async def test_a_file_that_is_no_request_is_refused(board: Path, kind: str) -> None:
    reading, writing = os.pipe() if kind == "pipe" else (os.memfd_create("x"), -1)
    if kind == "no JSON":
        os.write(reading, b"\xff" * 1000)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.connect(str(board / "keeper.sock"))
        socket.send_fds(link, [b"file"], [reading])
        said = json.loads(link.recv(1 << 17))
    assert "the packet is not JSON" in said["error"]
    for descriptor in (reading, writing):
        if descriptor >= 0:
            os.close(descriptor)
    async with KeeperClient(board / "keeper.sock") as client:
        assert not await client.list()


async def test_a_setuid_program_gains_nothing(board: Path) -> None:
    mine = str(shutil.copy("/usr/bin/id", board / "id"))
    Path(mine).chmod(0o4755)
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, mine, "-u", sandbox=PLAN))
        await ended(client)
    assert (board / "a.out").read_text() == f"{USER}\n"


def secret(board: Path) -> Path:
    """A file of root's, and a link to it where USER may make one."""
    (board / "secret").write_text("root's own")
    (board / "secret").chmod(0o600)
    (board / "work" / "link").symlink_to(board / "secret")
    return board / "work" / "link"


@LEASES
@pytest.mark.parametrize(
    ("change", "more", "words"),
    [
        ({"join": ("/nowhere/cgroup.procs",)}, {}, "cannot join the control group /nowhere/cgroup.procs: No such"),
        ({"groups": (1 << 40,)}, {}, f"cannot become user {USER} and group {USER} with the groups [1099511627776]"),
        ({"limits": ((99, 1),)}, {}, "cannot raise limit 99 to 1: invalid resource"),
        ({"uid": 0}, {}, "user 0 is no user of a job"),
        ({}, {"cwd": "/proc/1/cwd"}, "Permission denied (/proc/1/cwd)"),
        ({}, {"stdin": "link"}, "Permission denied"),
        ({"wrap": ("bwrap", "--")}, {}, "do not begin with an absolute path"),
        ({"wrap": ("/nowhere/bwrap", "--")}, {}, "No such file or directory (/nowhere/bwrap)"),
    ],
    ids=["group", "groups", "limit", "root", "folder", "stdin", "word", "wrap"],
)  # fmt: skip
async def test_a_step_that_fails_starts_nothing(
    board: Path,
    change: Mapping[str, object],
    more: Mapping[str, object],
    words: str,
    lease: float,
) -> None:
    more = {**more, "stdin": secret(board)} if "stdin" in more else more
    request = program(board, "/bin/sh", "-c", "cat; echo ran", lease=lease)
    request = replace(request, sandbox=replace(PLAN, **change), **more)  # type: ignore[arg-type]
    async with KeeperClient(board / "keeper.sock") as client:
        with pytest.raises(KeeperError) as raised:
            await client.start(request)
        assert words in str(raised.value)
        assert not await client.list()
    assert not (board / "a.out").exists() or (board / "a.out").read_text() == ""
    keeper = keeper_of(board)
    await until(lambda: not strays.descendants(keeper), what="nothing left of it")


async def test_a_plan_of_another_version_starts_nothing(board: Path) -> None:
    asked: dict[str, object] = {
        "id": 1,
        "op": "start",
        "attempt": "x",
        "argv": ["/bin/true"],
        "env": {},
        "cwd": "/",
    }
    asked |= {"stdout": str(board / "o"), "stderr": str(board / "e"), "sandbox": {"magic": True}}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.connect(str(board / "keeper.sock"))
        link.send(json.dumps(asked).encode())
        said = json.loads(link.recv(1 << 17))
    assert "has no field 'magic': it is of another version" in said["error"]


async def test_a_program_with_a_plan_ends_with_its_keeper(board: Path) -> None:
    async with KeeperClient(board / "keeper.sock") as client:
        pid = await client.start(program(board, "/bin/sleep", "733", sandbox=PLAN))
        os.kill(keeper_of(board), signal.SIGKILL)
        await until(lambda: not strays.alive(pid), what="its end")
    await ensure_keeper(board / "keeper.sock", board / "keeper.log")


@LEASES
async def test_a_program_is_kept_from_files_and_system_calls(board: Path, lease: float) -> None:
    if landlock.abi() < landlock.SCOPES_ABI:
        pytest.skip("the kernel's Landlock has no scopes")
    (board / "open").write_text("for everybody")
    read = (FilesRule("/usr"), FilesRule("/lib"), FilesRule("/lib64"), FilesRule("/bin"))
    plan = replace(
        PLAN,
        files=(*read, FilesRule("/etc"), FilesRule(str(board / "work"), write=True)),
        scoped=True,
        seccomp=base64.b64encode(seccomp.program(platform.machine())).decode(),
    )
    script = (
        f"echo mine > {board}/work/x && cat {board}/work/x; cat {board}/open || echo no file; "
        f"unshare --user true || echo no namespace; kill -0 {os.getpid()} || echo no signal"
    )
    async with KeeperClient(board / "keeper.sock") as client:
        await client.start(program(board, "/bin/sh", "-c", script, lease=lease, sandbox=plan))
        await ended(client)
    said = (board / "a.out").read_text().splitlines()
    assert said == ["mine", "no file", "no namespace", "no signal"]
