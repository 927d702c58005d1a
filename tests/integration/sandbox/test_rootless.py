"""An ordinary user with subordinate users: inside of its namespace it starts programs as them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_agent.sandbox import rootless
from tests.kit.open_folder import open_folder  # noqa: F401 - a fixture
from tests.kit.programs import program, unavailable

USER = 61234
FIRST = 300_000
PYTHON = "/usr/bin/python3"

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
print(os.getuid(), count, refused, rootless.is_rootless(), (work / "result").read_text())
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
    assert done.stdout.split(maxsplit=4) == ["0", "65536", "True", "True", "of the job\n"]
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


def _run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*words, PYTHON, "-c", INSIDE, str(folder.parent / "rootless.py"), str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
