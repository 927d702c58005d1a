"""Builds of environments above level `none`: what the code of a package reaches, and what it leaves."""

import contextlib
import json
import os
import re
import shutil
import socket
import stat
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from edge_agent.sandbox.user_range import USERS_OF_JOBS, UserRange
from shoal.model import JobState
from shoal.sandbox import SandboxLevel
from shoal.spec import Environment, Job, PipStep, RequirementsStep
from tests.integration.agent.board import Board
from tests.kit.agent_process import AgentProcess
from tests.kit.bundle_archive import tar_of
from tests.kit.environment_workshop import UV, EnvironmentWorkshop, open_workshop, says
from tests.kit.evil_build import evil_package
from tests.kit.job_users import job_users
from tests.kit.object_server import ObjectServer
from tests.kit.scripted_controller import ScriptedController

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="users for builds take root")
_INSTALL = PipStep(("--no-index", "--no-deps", "--no-build-isolation", "."))
_SLEEP = "86397"


@contextlib.asynccontextmanager
async def _apart(folder: Path, name: str = "state") -> AsyncIterator[EnvironmentWorkshop]:
    """A workshop that builds as users of its own, with an installer that they can reach."""
    uv = folder / "uv"
    if not uv.exists():
        shutil.copy(UV, uv)
    root = folder / name
    root.mkdir(exist_ok=True)
    root.chmod(0o711)
    users = job_users(UserRange(310_000, 1000), folder / "users", root, 0.5)
    users.open(root / "attempts")
    async with open_workshop(root, users=users, uv=uv) as shop:
        (root / "attempts").mkdir(mode=0o700, exist_ok=True)
        yield shop


@pytest.mark.parametrize("level", [SandboxLevel.USER, SandboxLevel.CONFINED])
async def test_the_code_of_a_package_reaches_nothing_but_its_own(
    open_folder: Path, level: SandboxLevel
) -> None:
    async with _apart(open_folder) as shop:
        journal = shop.root / "agent.db"
        journal.write_text("journal")
        journal.chmod(0o600)
        other = shop.attempts / "other"
        other.mkdir(parents=True)
        (other / "secret").write_text("of another job")
        hashed = shop.root / "packages/sha256"
        hashed.mkdir(parents=True)
        (hashed / "aa").write_text("a package")
        neighbour = shop.packages.of("neighbour").uv
        async with shop.rooms.open("neighbour", SandboxLevel.USER):
            pass  # it has built something before
        keeper = shop.root / "keeper.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(str(keeper))
            listening.listen()
            keeper.chmod(0o600)
            _lay_out(
                shop.work,
                {
                    "read": [*map(str, (journal, other / "secret", hashed / "aa")), "/etc/shadow"],
                    "list": [*map(str, (shop.attempts, shop.root, hashed, neighbour))],
                    "write": [
                        *map(str, (shop.root / "new", shop.folder / "new", neighbour / "new"))
                    ],
                    "dial": [str(keeper)],
                    "agent": os.getpid(),
                    "sleep": _SLEEP,
                    "links": {".files": str(journal), ".complete.new": str(journal)},
                },
            )
            built = await shop.get(shop.cache(), _INSTALL, python="system", bundle="b", level=level)
        said = json.loads(says(built, "import evil; print(evil.SAID)"))
        environ, _ = said.pop("environ"), said.pop("groups")
        assert 310_000 <= said.pop("uid") < 311_000
        assert said.pop("no_new_privs") == "1"
        assert int(said.pop("capabilities"), 16) == 0
        links = {name: said.pop(f"link {name}") for name in (".files", ".complete.new")}
        assert set(links.values()) == {"None"}, "the attack was not carried out"
        reached = {name: what for name, what in said.items() if not what.startswith("refused: ")}
        if level is SandboxLevel.CONFINED:
            # It sees an empty folder in the place of the state, with the way to what it may write.
            seen = reached.pop(f"list {shop.root}", "")
            assert "agent.db" not in seen
            assert "attempts" not in seen
            reached = {name: what for name, what in reached.items() if not name.startswith("write")}
        assert not reached
        assert not [path for path in (shop.root, shop.folder, neighbour) if (path / "new").exists()]
        assert str(Path.home()) not in {environ["HOME"], environ["UV_CACHE_DIR"]}
        assert journal.read_text() == "journal", "the agent wrote through a link of the build"
        assert not _running(_SLEEP)


async def test_what_was_built_is_the_agents_and_can_be_read_by_everyone(open_folder: Path) -> None:
    async with _apart(open_folder) as shop:
        _lay_out(shop.work, {"agent": os.getpid(), "sleep": _SLEEP})
        cache = shop.cache()
        built = await shop.get(
            cache, _INSTALL, python="system", bundle="b", level=SandboxLevel.USER
        )
        for parent, folders, names in os.walk(built):
            for name in ("", *folders, *names):
                status = os.lstat(Path(parent, name))
                if stat.S_ISLNK(status.st_mode):
                    continue
                assert status.st_uid == os.geteuid(), name
                assert not status.st_mode & 0o7022, name
                if name not in {".complete", ".files"}:
                    assert status.st_mode & 0o044 == 0o044, name
        assert not list((shop.root / "builds").iterdir())
        # It is there for its namespace, after a restart of the agent, too; another one builds its own.
        again = shop.cache()
        await again.open()
        for namespace, same in (("default", True), ("other", False)):
            found = await shop.get(
                again,
                _INSTALL,
                python="system",
                bundle="b",
                namespace=namespace,
                level=SandboxLevel.USER,
            )
            assert (found == built) is same


async def test_two_namespaces_build_at_once(open_folder: Path) -> None:
    async with _apart(open_folder) as shop:
        kept = [shop.packages.of(name).folder for name in ("one", "two")]
        async with (
            shop.rooms.open("one", SandboxLevel.USER),
            shop.rooms.open("two", SandboxLevel.USER),
        ):
            assert [stat.S_IMODE(folder.stat().st_mode) for folder in kept] == [0o711, 0o711]
        assert [stat.S_IMODE(folder.stat().st_mode) for folder in kept] == [0o700, 0o700]


async def test_kept_packages_are_shut_after_an_agent_that_was_killed(open_folder: Path) -> None:
    """Their user is another attempt's once the agent has started again."""
    async with _apart(open_folder) as shop:
        kept = shop.packages.of("default").folder
        async with shop.rooms.open("default", SandboxLevel.USER):
            while_built = stat.S_IMODE(kept.stat().st_mode)
        kept.chmod(while_built)  # as it is when the agent is killed in between
        assert while_built == 0o711
        await shop.cache().open()
        assert stat.S_IMODE(kept.stat().st_mode) == 0o700


@pytest.mark.parametrize("level", ["user", "confined"])
async def test_a_job_runs_in_an_environment_that_a_stranger_built(level: str) -> None:
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
        AgentProcess(controller.address, "--sandbox", level) as agent,
    ):
        board = Board(objects, controller, agent)
        await board.connected()
        assert agent.process is not None
        journal = str(agent.state / "agent.db")
        files = evil_package({"read": [journal], "agent": agent.process.pid, "sleep": _SLEEP})
        code = "import evil, json, os; said = json.loads(evil.SAID); print(said['uid'], os.getuid(), said)"
        ref = board.run(
            Job(
                "main",
                ("python", "-c", code),
                environment=Environment(python="system", steps=(_INSTALL,)),
            ),
            tar_of(files),
        )
        assert await board.end(ref) is JobState.SUCCEEDED, board.controller.reason(ref)
        builder, user, said = board.controller.log(ref).split(" ", 2)
        assert int(builder) in USERS_OF_JOBS
        assert int(user) in USERS_OF_JOBS
        assert builder != user
        assert "'kill the agent': 'refused" in said
        assert "agent.db': 'refused" in said
        if level == "user" and Path("/sys/fs/cgroup/pids/cgroup.procs").exists():
            assert re.search(r":pids:\S*/shoal-[^/]+/attempt-\d", said), said
        assert not _groups_of_builds()


async def test_an_environment_of_an_agent_of_before_is_used_at_a_higher_level(
    open_folder: Path,
) -> None:
    async with _apart(open_folder) as shop:
        step = RequirementsStep("r.txt")
        (shop.work / "r.txt").write_text("--no-index\n-f .\nshoalpart\n")
        shop.wheel("shoalpart", "1.0")
        first = await shop.get(shop.cache(), step, python="system")
        module = next(first.glob("lib/*/site-packages/shoalpart.py"))
        module.chmod(0o600)
        shop.lose(first)
        first = await shop.get(shop.cache(), step, python="system")
        module = next(first.glob("lib/*/site-packages/shoalpart.py"))
        cache = shop.cache()
        await cache.open()
        built = await shop.get(cache, step, python="system", level=SandboxLevel.USER)
        assert built == first
        assert module.stat().st_mode & 0o777 == 0o644


def _lay_out(folder: Path, targets: Mapping[str, object]) -> None:
    for name, text in evil_package(targets).items():
        (folder / name).write_text(text)


def _groups_of_builds() -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob("*/**/shoal-*/*builds*"))


def _running(word: str) -> list[str]:
    """Processes with this word in their command."""
    said = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in said.splitlines() if word in line.split()]
