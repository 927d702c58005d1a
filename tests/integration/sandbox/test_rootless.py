"""An ordinary user with subordinate users: inside of its namespace it starts programs as them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_agent.attempt_folder import AttemptFolder, keeper_id
from edge_agent.sandbox import rootless
from shoal.model import JobState
from shoal.spec import Job
from tests.integration.agent.board import Board
from tests.kit.agent_process import AgentProcess
from tests.kit.object_server import ObjectServer
from tests.kit.open_folder import open_folder  # noqa: F401 - a fixture  # pyright: ignore[reportUnusedImport]
from tests.kit.programs import program, unavailable
from tests.kit.scripted_controller import ScriptedController
from tests.kit.tree import ROOT
from tests.kit.until import until

USER = 61234
FIRST = 300_000
PYTHON = "/usr/bin/python3"

CHOOSE = """
import os, sys
from pathlib import Path
os.environ["PATH"] = sys.argv[2]
from compose.own_sandbox import own_sandbox
print(own_sandbox(Path(sys.argv[1])).level.value)
"""

# The module alone, for an interpreter that every user reaches.
INSIDE = """
import importlib.util, os, pathlib, sys
spec = importlib.util.spec_from_file_location("rootless", sys.argv[1])
rootless = importlib.util.module_from_spec(spec)
sys.modules["rootless"] = rootless
spec.loader.exec_module(rootless)
words = rootless.why_not()
if words:
    sys.exit(f"refused: {words}")
count = rootless.enter_namespace()
private = pathlib.Path(sys.argv[2]) / "private"
private.write_text("of the agent")
private.chmod(0o600)
work = pathlib.Path(sys.argv[2]) / "work"
work.mkdir(mode=0o700)
os.chown(work, 7, 7)
child = os.fork()
if child == 0:
    os.setgroups([])
    os.setresgid(7, 7, 7)
    os.setresuid(7, 7, 7)
    (work / "result").write_text("of the job")
    try:
        private.read_text()
    except PermissionError:
        os._exit(0)
    os._exit(1)
refused = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(os.getuid(), count, refused, (work / "result").read_text())
"""


@pytest.fixture
def as_ada(open_folder: Path) -> "tuple[Path, list[str]]":  # noqa: F811
    """The words that start a program as a user of a machine on which that user is known; and the user's folder."""
    if os.geteuid():
        unavailable("users are made for the test, which root may alone")
    folder = open_folder / "ada"
    folder.mkdir()
    os.chown(folder, USER, USER)
    files = {
        "passwd": Path("/etc/passwd").read_text() + f"ada:x:{USER}:{USER}::{folder}:/bin/sh\n",
        "subuid": f"ada:{FIRST}:65536\n",
        "subgid": f"ada:{FIRST}:65536\n",
    }
    # Only in a mount namespace: the machine's own users stay as they are.
    binds: list[str] = []
    for name, text in files.items():
        (open_folder / name).write_text(text)
        if not Path("/etc", name).exists():
            unavailable(f"there is no /etc/{name} (package uidmap)")
        binds.append(f"mount --bind {open_folder / name} /etc/{name}")
    shutil.copy(rootless.__file__, open_folder / "rootless.py")
    # The checkout and its interpreter may be below a folder that is closed to others, such as /root.
    binds += _opened(open_folder / "closed", [ROOT, Path(sys.prefix), Path(sys.base_prefix)])
    script = " && ".join([*binds, 'exec "$@"'])
    setpriv = (program("setpriv"), "--reuid", str(USER), "--regid", str(USER), "--clear-groups")
    return folder, [program("unshare"), "--mount", "sh", "-c", script, "sh", *setpriv]


def test_a_subordinate_user_cannot_read_what_is_the_agents(
    as_ada: tuple[Path, list[str]],
) -> None:
    """Inside, the user is root, and starts a program as user 7, which owns its folder and nothing else."""
    folder, words = as_ada
    program("newuidmap")
    done = _run(words, folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(maxsplit=3) == ["0", "65536", "True", "of the job\n"]
    # Outside it is the seventh of ada's subordinate users.
    assert (folder / "work" / "result").stat().st_uid == FIRST + 6
    assert (folder / "private").stat().st_uid == USER


def test_without_rights_to_gain_it_says_what_to_do(as_ada: tuple[Path, list[str]]) -> None:
    """As under NoNewPrivileges=yes of systemd: newuidmap gains none, and the process stays as it was."""
    folder, words = as_ada
    done = _run([*words, "--no-new-privs"], folder)
    assert done.returncode == 1
    assert "newuidmap cannot map subordinate users" in done.stderr
    assert "--sandbox confined" in done.stderr


def test_a_cluster_of_an_ordinary_user_takes_its_subordinate_users_where_nothing_confines(
    as_ada: tuple[Path, list[str]],
) -> None:
    """As `shoal up` chooses; the PATH has what maps users, and no bubblewrap."""
    folder, words = as_ada
    programs = folder / "bin"
    programs.mkdir()
    for name in ("newuidmap", "newgidmap"):
        (programs / name).symlink_to(program(name))
    chosen = {}
    for path in (programs, folder):
        done = subprocess.run(
            [*words, sys.executable, "-c", CHOOSE, str(folder / "cluster"), str(path)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        chosen[path] = done.stdout.strip()
    assert chosen == {programs: "user", folder: "none"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no subordinate users for ada"),
        ("bob:1:2\nada:x:y\nada:5\n", "has no subordinate users for ada"),
        ("\xff\n", "has no subordinate users for ada"),
    ],
)
def test_a_file_without_a_range_is_told_with_the_remedy(
    tmp_path: Path, text: str, words: str
) -> None:
    """What the file holds beside it does not matter."""
    path = tmp_path / "subuid"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(rootless.RootlessError, match=words) as caught:
        rootless.subordinate_ids(path, "ada", 1000)
    assert "usermod --add-subuids" in str(caught.value)


def test_a_range_is_found_by_name_or_by_number(tmp_path: Path) -> None:
    """The first one counts."""
    path = tmp_path / "subuid"
    path.write_text("bob:1:2\n1000:100000:65536\nada:5:6\n")
    assert rootless.subordinate_ids(path, "ada", 1000) == rootless.SubordinateIds(100_000, 65_536)


def _opened(aside: Path, paths: Sequence[Path]) -> list[str]:
    """Commands that let every user of a mount namespace pass to these folders."""
    closed = {
        next((one for one in reversed(path.parents) if not one.stat().st_mode & 0o001), None): path
        for path in paths
    }
    commands: list[str] = []
    for number, folder in enumerate(filter(None, closed)):
        source = aside / str(number)
        source.mkdir(parents=True)
        commands += [
            f"mount --rbind {folder} {source}",
            f"mount -t tmpfs -o mode=755 none {folder}",
        ]
        for path in (one for one in paths if one.is_relative_to(folder)):
            beside = source / path.relative_to(folder)
            commands += [f"mkdir -p {path}", f"mount --bind {beside} {path}"]
    return commands


def _run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*words, PYTHON, "-c", INSIDE, str(folder.parent / "rootless.py"), str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


class AgentOfAda(AgentProcess):
    """An agent of that user, with a state folder of its own; it is told no level but that of `extra`."""

    def __init__(self, controller: str, home: Path, as_ada: list[str], *extra: str) -> None:
        environ = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": ""}
        super().__init__(controller, *extra, environ=environ)
        os.chown(self.state, USER, USER)
        self._as_ada = as_ada

    def argv(self) -> list[str]:
        """The words of an agent, without a level, by ada."""
        words = super().argv()
        place = words.index("--sandbox")
        return [*self._as_ada, *words[:place], *words[place + 2 :]]


async def test_an_agent_of_an_ordinary_user_gives_each_attempt_a_subordinate_user(
    as_ada: tuple[Path, list[str]],
) -> None:
    """Without a word about levels; a job reads nothing of the agent's, also after a restart, and is archived."""
    home, words = as_ada
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
        AgentOfAda(controller.address, home, words) as agent,
    ):
        board = Board(objects, controller, agent)
        try:
            await board.connected()
        except AssertionError as error:
            error.add_note(agent.log())
            raise
        tries = (
            f"cat {agent.state}/agent.db || cat {agent.state}/keeper.log || touch {agent.state}/x"
        )
        ref = board.run(
            Job(
                "work",
                ("sh", "-c", f"if {tries}; then exit 9; fi; id -u > results/x; cat results/x"),
            )
        )
        assert await board.end(ref) is JobState.SUCCEEDED, board.controller.reason(ref)
        uid = int(board.artifact(ref, "results/x"))
        assert 1000 <= uid < 65536
        assert board.artifact(ref, "stdout") == b"%d\n" % uid
        wait = (
            "until test -e $HOME/go; do echo x >> $SHOAL_RESULTS/lines || exit 9; sleep 0.02; done"
        )
        long = board.run(Job("long", ("sh", "-c", f"echo ready; {wait}; id -u")))
        await until(lambda: "ready" in controller.log(long), 30, "it runs")
        sessions = controller.sessions
        agent.kill()
        agent.start()
        await board.connected(sessions + 1)
        folder = AttemptFolder(agent.state / "attempts" / keeper_id(long))
        # Outside it is one of ada's subordinate users.
        assert FIRST <= folder.home.stat().st_uid < FIRST + 65_536
        (folder.home / "go").touch()
        assert await board.end(long) is JobState.SUCCEEDED, board.controller.reason(long)
        await board.idle()
        assert agent.attempts() == []


async def test_an_agent_of_an_ordinary_user_confines_its_jobs_as_that_user(
    as_ada: tuple[Path, list[str]],
) -> None:
    """Without subordinate users: a job is ada, has a home of its own, and sees nothing of the agent's."""
    home, words = as_ada
    program("bwrap")
    async with (
        ObjectServer() as objects,
        ScriptedController(objects) as controller,
        AgentOfAda(controller.address, home, words, "--sandbox", "confined") as agent,
    ):
        board = Board(objects, controller, agent)
        try:
            await board.connected()
        except AssertionError as error:
            error.add_note(agent.log())
            raise
        script = (
            "touch $HOME/x $TMPDIR/x /tmp/x results/x && id -u && echo $$ && "
            f"ls {agent.state} && ! ls {home} && touch {agent.state}/x"
        )
        ref = board.run(Job("work", ("sh", "-c", script)))
        assert await board.end(ref) is JobState.SUCCEEDED, board.controller.reason(ref)
        said = board.artifact(ref, "stdout").decode()
        assert said.splitlines()[0] == str(USER)
        assert int(said.splitlines()[1]) < 9, "processes of its own"
        assert "agent.db" not in said
        assert not (agent.state / "x").exists()
        await board.idle()
