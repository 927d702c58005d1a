"""Landlock on real processes: files by rule, sockets and signals by scope."""

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from edge_agent.sandbox import landlock
from edge_agent.sandbox.plan import FilesRule

needs_files = pytest.mark.skipif(
    landlock.abi() < landlock.FILES_ABI, reason="the kernel has no Landlock for files"
)
needs_scopes = pytest.mark.skipif(
    landlock.abi() < landlock.SCOPES_ABI,
    reason="the kernel has no Landlock for sockets and signals",
)

_TRY = """
import ctypes, json, os, signal, socket, subprocess, sys
from edge_agent.sandbox import landlock
from edge_agent.sandbox.plan import FilesRule
asked = json.load(sys.stdin)
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
landlock.restrict([FilesRule(*rule) for rule in asked["files"]], scoped=asked["scoped"])
def tried(what):
    try:
        what()
    except OSError as error:
        return error.errno
    return 0
def connect(name):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(name)
print(json.dumps([tried(lambda: eval(words)) for words in asked["tries"]]))
"""


@needs_files
def test_only_what_is_allowed_is_read_and_written(tmp_path: Path) -> None:
    ours, others, read = tmp_path / "ours", tmp_path / "others", tmp_path / "read"
    for folder in (ours, others, read):
        folder.mkdir()
        (folder / "file").write_text("words")
    files = [*_system(), FilesRule(str(ours), write=True), FilesRule(str(read))]
    assert _restricted(
        files,
        f"open({str(ours / 'file')!r}, 'w').close()",
        f"os.mkdir({str(ours / 'folder')!r})",
        f"os.rename({str(ours / 'file')!r}, {str(ours / 'folder' / 'file')!r})",
        f"open({str(read / 'file')!r}).close()",
        f"open({str(read / 'file')!r}, 'a').close()",
        f"os.truncate({str(read / 'file')!r}, 0)",
        f"open({str(others / 'file')!r}).close()",
        f"os.listdir({str(others)!r})",
        f"os.link({str(ours / 'folder' / 'file')!r}, {str(read / 'linked')!r})",
        "subprocess.run(['/bin/true'], check=True)",
    ) == [0, 0, 0, 0, errno.EACCES, errno.EACCES, errno.EACCES, errno.EACCES, errno.EACCES, 0]
    assert (read / "file").read_text() == "words"


@needs_files
def test_a_rule_for_what_is_not_there_allows_nothing(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    files = [*_system(), FilesRule(str(absent), write=True)]
    assert _restricted(files, f"os.mkdir({str(absent)!r})") == [errno.EACCES]


@needs_files
def test_one_file_and_one_device_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    files = [*_system(), FilesRule(str(tmp_path / "one")), FilesRule("/dev/null", write=True)]
    assert _restricted(
        files,
        f"open({str(tmp_path / 'one')!r}).close()",
        f"open({str(tmp_path / 'two')!r}).close()",
        "open('/dev/null', 'w').close()",
        "open('/dev/zero').close()",
    ) == [0, errno.EACCES, 0, errno.EACCES]


@needs_scopes
def test_a_scoped_process_reaches_no_abstract_socket_and_signals_only_its_own(
    tmp_path: Path,
) -> None:
    """A socket with a name in the file system is as before: the file's rights are for that."""
    with socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as named:
        name = f"\0shoal-test-{os.getpid()}"
        abstract.bind(name)
        named.bind(str(tmp_path / "named"))
        abstract.listen()
        named.listen()
        tries = (f"connect({name!r})", f"connect({str(tmp_path / 'named')!r})", f"os.kill({os.getpid()}, 0)",
                 "os.kill(os.getpid(), 0)")  # fmt: skip
        assert _restricted([], *tries) == [0, 0, 0, 0]
        assert _restricted([], *tries, scoped=True) == [errno.EPERM, 0, errno.EPERM, 0]


@needs_scopes
def test_a_scoped_process_may_make_namespaces_and_mount() -> None:
    """Or bubblewrap could not be started by it."""
    assert _restricted(
        [],
        "subprocess.run(['unshare', '--user', '--map-root-user', '--mount', 'mount', '-t', 'tmpfs', 'none', '/tmp'],"
        " check=True)",
        scoped=True,
    ) == [0]


def test_nothing_asked_is_nothing_done() -> None:
    landlock.restrict([])
    Path("/proc/self/status").read_text()


def test_all_but_what_is_hidden_is_allowed() -> None:
    tree: Mapping[str, Sequence[str]] = {
        "/": ("etc", "home", "usr", "var"),
        "/var": ("lib", "log"),
        "/var/lib": ("shoal", "dpkg"),
        "/var/lib/shoal": ("agent.db",),
    }
    asked: list[str] = []

    def children(folder: str) -> Sequence[str]:
        asked.append(folder)
        return tree[folder]

    rules = landlock.all_but(
        ["/home", "/var/lib/shoal", "/var/lib/shoal/deeper"],
        ["/var/lib/shoal/sdk"],
        ["/var/lib/shoal/a/work"],
        children,
    )
    assert rules == (
        FilesRule("/etc"),
        FilesRule("/usr"),
        FilesRule("/var/lib/dpkg"),
        FilesRule("/var/log"),
        FilesRule("/var/lib/shoal/sdk"),
        FilesRule("/var/lib/shoal/a/work", write=True),
    )
    assert "/var/lib/shoal" not in asked, "what is hidden is not even listed"


def test_a_folder_with_more_names_than_rules_can_tell_is_allowed_as_a_whole() -> None:
    many = [f"folder-{number}" for number in range(landlock.BESIDE_MAX)]
    tree = {"/": ["data", "usr"], "/data": [*many, "shoal"]}
    assert landlock.all_but(["/data/shoal"], [], [], tree.__getitem__) == (
        FilesRule("/data"),
        FilesRule("/usr"),
    )
    tree["/data"] = [*many[1:], "shoal"]
    rules = landlock.all_but(["/data/shoal"], [], [], tree.__getitem__)
    assert len(rules) == landlock.BESIDE_MAX
    assert FilesRule("/data") not in rules


@needs_files
def test_all_but_holds_on_the_real_tree(tmp_path: Path) -> None:
    hidden, shown = tmp_path / "hidden", tmp_path / "shown"
    (hidden / "inner").mkdir(parents=True)
    shown.mkdir()
    (hidden / "file").write_text("secret")
    (hidden / "inner" / "file").write_text("for the job")
    (shown / "file").write_text("for all")
    (tmp_path / "link").symlink_to(hidden)

    def children(folder: str) -> list[str]:
        """What is on the way to the test's folder, and in it: temporary folders may hold thousands of others."""
        names = os.listdir(folder)
        return [
            name
            for name in names
            if tmp_path.is_relative_to(Path(folder, name)) or len(names) < 100
        ]

    rules = landlock.all_but([str(hidden)], [str(hidden / "inner")], [], children)
    assert _restricted(
        rules,
        f"open({str(hidden / 'file')!r}).close()",
        f"open({str(hidden / 'inner' / 'file')!r}).close()",
        f"open({str(shown / 'file')!r}).close()",
    ) == [errno.EACCES, 0, 0]


def _system() -> list[FilesRule]:
    """What an interpreter needs."""
    folders = {
        "/usr",
        "/bin",
        "/lib",
        "/lib64",
        "/etc",
        "/proc",
        "/dev/null",
        sys.prefix,
        sys.base_prefix,
    }
    return [FilesRule(folder) for folder in sorted(folders)]


def _restricted(files: Sequence[FilesRule], *tries: str, scoped: bool = False) -> list[int]:
    """Restrict a process, and return the error numbers of what it then tries; 0 where it could."""
    asked = {"files": [(rule.path, rule.write) for rule in files], "scoped": scoped, "tries": tries}
    done = subprocess.run(
        [sys.executable, "-c", _TRY], input=json.dumps(asked), capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[int] = json.loads(done.stdout)
    return found
