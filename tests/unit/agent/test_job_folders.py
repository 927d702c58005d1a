"""Who owns what of a state folder; what a job has left is read for it, and not for the agent (R2)."""

import hashlib
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.attempt_folder import AttemptFolder
from edge_agent.disk_gauge import DiskGauge
from edge_agent.long_work import done_at_once
from edge_agent.removal import remove_tree
from edge_agent.sandbox.job_folders import close_attempt, hand_over, open_state, owner_of
from edge_agent.tree import LeadsOutError, PlainFile, resolve_beneath
from edge_agent.uploads.collect import Collected, collect, locate
from shoal.model import Artifact
from shoal.names import AttemptRef
from tests.kit.nasty_tree import deep_folder, nasty_tree
from tests.kit.open_folder import open_folder

__all__ = ["open_folder"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")

UID, OTHER = 3_200_000, 3_200_001
REF = AttemptRef("default", "p", "work", 1, 1)
SECRET = "nobody but root may read this"  # noqa: S105 - what a file says


def prepared(state: Path, name: str = "default.p.work.1-1") -> AttemptFolder:
    """An attempt that is ready to start, as the agent has made it."""
    folder = AttemptFolder(state / "attempts" / name)
    (folder.work / "results").mkdir(parents=True)
    folder.path.chmod(0o700)
    folder.spool.mkdir()
    folder.fetched.write_text("{}")
    return folder


def given(state: Path) -> AttemptFolder:
    """An attempt that belongs to its user."""
    open_state(state)
    folder = prepared(state)
    done_at_once(hand_over(folder, UID))
    return folder


def as_user(uid: int, *words: str) -> tuple[int, str]:
    """Run a program as a user with no rights; returns its exit status and what it said."""
    done = subprocess.run(
        words,
        user=uid,
        group=uid,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    return done.returncode, done.stdout + done.stderr


def collected(folder: AttemptFolder, *patterns: str) -> Collected:
    return done_at_once(
        collect(
            folder.work, patterns or ["results/**"], folder.path, REF, owner=owner_of(folder.path)
        )
    )


def test_a_job_has_what_is_its_own_and_sees_nothing_else(open_folder: Path) -> None:
    state = open_folder / "state"
    state.mkdir(mode=0o700)
    (state / "agent.db").write_text(SECRET)
    (state / "agent.db").chmod(0o600)
    old = prepared(state, "default.old.work.1-1")  # as 0.1.x left it
    old.path.chmod(0o755)
    (old.work / "x").write_text(SECRET)
    folder = given(state)
    for path in (folder.work, folder.home, folder.tmp):
        assert as_user(UID, "touch", f"{path}/x") == (0, "")
        assert as_user(OTHER, "ls", str(path))[0] != 0
    with folder.stdout.open("ab") as stdout:
        subprocess.run(
            ["sh", "-c", "echo said > /dev/stdout"],
            user=UID, group=UID, extra_groups=[], stdout=stdout, check=True, cwd="/",
        )  # fmt: skip
    assert folder.stdout.read_text() == "said\n"
    closed = (
        f"ls {state}", f"ls {state}/attempts", f"cat {state}/agent.db", f"ls {old.path}", f"cat {old.work}/x",
        f"ls {folder.path}", f"ls {folder.spool}", f"cat {folder.fetched}", f"ls {state}/kept",
        f"mv {folder.work} {folder.home}", f"rm {folder.stdout}", f"touch {folder.ports}/x",
        f"mkdir {state}/environments/x", f"touch {state}/sdk/x", f"touch {state}/attempts/x",
    )  # fmt: skip
    for words in closed:
        status, said = as_user(UID, "sh", "-c", words)
        assert status != 0, words
        assert "denied" in said, said
    assert as_user(UID, "ls", f"{state}/sdk") == (0, "")
    close_attempt(folder.text)
    assert as_user(UID, "ls", str(folder.work))[0] != 0


def test_a_folder_that_others_may_pass_is_used_as_it_is(open_folder: Path) -> None:
    open_folder.chmod(0o1777)
    open_state(open_folder)
    assert stat.S_IMODE(open_folder.stat().st_mode) == 0o1777


def test_everything_is_given_once_whatever_is_in_it(open_folder: Path) -> None:
    folder = prepared(open_folder)
    beyond = open_folder / "beyond"
    beyond.mkdir()
    (beyond / "file").touch()
    nasty_tree(folder.work, beyond=beyond, many=100)
    deep_folder(folder.work, "x" * 200, 60)
    done_at_once(hand_over(folder, UID))
    status, said = as_user(UID, "find", str(folder.work), "!", "-uid", str(UID))
    assert (status, said) == (0, "") or "Permission denied" in said  # closed folders of its own
    for path in (beyond, beyond / "file"):
        assert path.stat().st_uid == 0
    # A job that runs has linked a name to a file of ours: an agent that starts again does not give it away.
    os.link(beyond / "file", folder.work / "results" / "ours")
    done_at_once(hand_over(folder, UID))
    assert (beyond / "file").stat().st_uid == 0
    with pytest.raises(PermissionError, match=f"given to user {UID} before"):
        done_at_once(hand_over(folder, OTHER))


def test_one_that_was_interrupted_is_given_again(open_folder: Path) -> None:
    folder = prepared(open_folder)
    for number in range(20):
        (folder.work / f"d{number}").mkdir()
    steps = hand_over(folder, UID)
    next(steps)
    next(steps)
    steps.close()
    assert owner_of(folder.path) == -1
    done_at_once(hand_over(folder, OTHER))
    assert as_user(OTHER, "find", str(folder.work), "!", "-uid", str(OTHER)) == (0, "")


def test_a_file_of_another_user_is_not_read_for_a_job(open_folder: Path) -> None:
    state = open_folder / "state"
    state.mkdir()
    folder = given(state)
    secret = open_folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    (open_folder / "closed").mkdir(mode=0o700)
    (open_folder / "closed" / "link").symlink_to(secret)
    results = folder.work / "results"
    # What a job does where fs.protected_hardlinks is 0: no right to a file is needed to link to it.
    os.link(secret, results / "hard")
    for name, target in (
        ("out", str(secret)), ("through", f"{open_folder}/closed/link"), ("up", "../../../../secret"),
        ("nothing", "/etc/ssl/private/is-this-there"), ("folder", "/etc/ssl/private"), ("inside", "hard"),
    ):  # fmt: skip
        (results / name).symlink_to(target)
    assert as_user(UID, "sh", "-c", f"echo mine > {results}/good") == (0, "")
    found = collected(folder)
    assert [one.path for one in found.artifacts] == ["results/good"]
    words = hashlib.sha256(SECRET.encode()).hexdigest()
    assert words not in str(found)
    for name in ("hard", "out", "through", "up", "nothing", "folder", "inside"):
        assert f"'results/{name}'" in found.problem
    assert "belongs to user 0, and the job is user 3200000" in found.problem
    # Neither whether there is something, nor where its links lead.
    assert f"'{open_folder}/closed/link', which is not in the job's folder" in found.problem
    assert "'/etc/ssl/private/is-this-there', which is not in the job's folder" in found.problem


@contextmanager
def swapped(folder: Path, one: str, other: str) -> Iterator[None]:
    """Change what two names mean, as fast as a process of the job can."""
    code = (
        "import ctypes, os, sys; libc = ctypes.CDLL(None); here, a, b = sys.argv[1:]; os.chdir(here)\n"
        "os.write(1, b'x')\n"
        "while True: libc.renameat2(-100, a.encode(), -100, b.encode(), 2)"  # RENAME_EXCHANGE
    )
    words = ["/usr/bin/python3", "-c", code, str(folder), one, other]
    with subprocess.Popen(
        words, user=UID, group=UID, extra_groups=[], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)  # it runs
        try:
            yield
        finally:
            process.kill()


def test_names_that_change_between_two_looks_lead_to_nothing_of_others(open_folder: Path) -> None:
    state = open_folder / "state"
    state.mkdir()
    folder = given(state)
    beyond = open_folder / "beyond"
    beyond.mkdir(mode=0o700)
    (beyond / "data").write_text(SECRET)
    work = folder.work
    done = as_user(
        UID, "sh", "-c",
        f"cd {work} && mkdir real && echo mine > real/data && ln -s {beyond} fake && "
        "ln -s ../real/data results/link",
    )  # fmt: skip
    assert done == (0, "")
    mine, theirs = (hashlib.sha256(text.encode()).hexdigest() for text in ("mine\n", SECRET))
    reads = uploads = 0
    with swapped(work, "real", "fake"):
        for _ in range(400):
            found = collected(folder, "results/**", "real/**")
            for artifact in found.artifacts:
                assert artifact.sha256 != theirs
                reads += artifact.sha256 == mine
            try:
                artifact = Artifact("results/link", 5, mine)
                descriptor = locate(work, folder.path, artifact, UID).open()
            except OSError:
                continue
            with os.fdopen(descriptor) as file:
                assert file.read() == "mine\n"
            uploads += 1
    assert reads
    assert uploads


def test_nothing_beyond_goes_while_names_change_under_a_removal(open_folder: Path) -> None:
    beyond = open_folder / "beyond"
    (beyond / "below").mkdir(parents=True)
    for number in range(200):
        (beyond / str(number)).touch()
        (beyond / "below" / str(number)).touch()
    beyond.chmod(0o711)
    for number in range(30):
        folder = prepared(open_folder, f"default.p.work.1-{number}")
        for name in ("real", "real/below"):
            (folder.work / name).mkdir()
            for child in range(100):
                (folder.work / name / str(child)).touch()
        (folder.work / "fake").symlink_to(beyond)
        done_at_once(hand_over(folder, UID))
        with swapped(folder.work, "real", "fake"):
            done_at_once(remove_tree(folder.path))
    assert len(list(beyond.iterdir())) == 201
    assert len(list((beyond / "below").iterdir())) == 200
    assert stat.S_IMODE(beyond.stat().st_mode) == 0o711


async def test_what_lies_beyond_is_not_measured_either(open_folder: Path) -> None:
    folder = prepared(open_folder)
    beyond = open_folder / "beyond"
    beyond.mkdir()
    for number in range(100):
        (beyond / str(number)).touch()
    (folder.work / "real").mkdir()
    (folder.work / "fake").symlink_to(beyond)
    done_at_once(hand_over(folder, UID))
    async with DiskGauge(open_folder, open_folder, lambda: "", time.monotonic) as gauge:
        with swapped(folder.work, "real", "fake"):
            for _ in range(400):
                [use] = await gauge.folders([(REF, folder.work)])
                assert 1 <= use.files <= 3


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("a/file", "a/file"), ("to-a/file", "a/file"), ("absolute/file", "a/file"), ("a/up", "file"),
        ("self/self/a", "a"), ("self", ""), ("./a//file", "a/file"),
    ],
)  # fmt: skip
def test_a_path_leads_where_the_kernel_goes(tmp_path: Path, path: str, leads: str) -> None:
    (tmp_path / "a").mkdir()
    for name in ("file", "a/file"):
        (tmp_path / name).touch()
    for name, target in (
        ("to-a", "a"), ("absolute", f"{tmp_path}/a"), ("a/up", "../file"), ("self", "."),
    ):  # fmt: skip
        (tmp_path / name).symlink_to(target)
    assert resolve_beneath(str(tmp_path), path) == leads
    assert os.path.realpath(tmp_path / path) == str(tmp_path / leads).rstrip("/")


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../x", "a/../../x", "/", "beside", "loop", "missing"]
)
def test_a_path_that_leads_out_or_nowhere_is_no_path(tmp_path: Path, target: str) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "rooted").mkdir()
    (root / "loop").symlink_to("loop")
    (root / "link").symlink_to(f"{root}ed" if target == "beside" else target)
    expected = OSError if target in {"loop", "missing"} else LeadsOutError
    with pytest.raises(expected):
        resolve_beneath(str(root), "link")
    with pytest.raises(OSError, match=r"it is a link|Too many"):
        PlainFile(root, "link").open()
