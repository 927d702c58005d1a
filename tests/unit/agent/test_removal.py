"""Whatever a job leaves is removed, or counted; nothing beyond it is touched (R2)."""

import asyncio
import fcntl
import itertools
import os
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from edge_agent.long_work import LongWork, Steps, done_at_once
from edge_agent.removal import Leftover, remove_tree
from edge_agent.trash import Trash
from shoal.backoff import Backoff
from tests.kit.nasty_tree import deep_folder, nasty_tree
from tests.kit.until import until

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount and give away")


def removed(path: Path) -> Leftover:
    return done_at_once(remove_tree(path))


def test_r2_a_nasty_tree_is_removed(tmp_path: Path) -> None:
    beyond = tmp_path / "beyond"
    beyond.mkdir()
    (beyond / "file").write_text("kept")
    folder = tmp_path / "attempt"
    nasty_tree(folder, beyond=beyond)
    assert removed(folder) == Leftover()
    assert not os.path.lexists(folder)
    assert (beyond / "file").read_text() == "kept"


def test_r2_deeper_than_any_path_is_long_and_than_python_recurses(tmp_path: Path) -> None:
    """10,000 folders were tried, too."""
    folder = tmp_path / "attempt"
    deep_folder(folder, "x" * 255, 1_200)
    assert removed(folder) == Leftover()
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["file", "link", "fifo"])
def test_r2_what_has_the_name_of_a_folder_goes_too(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "attempt"
    match kind:
        case "file":
            path.touch()
        case "link":
            path.symlink_to("/etc")
        case _:
            os.mkfifo(path)
    assert removed(path) == Leftover()
    assert not os.path.lexists(path)
    assert removed(path) == Leftover()


@contextmanager
def mounted(place: Path, *words: str) -> Iterator[None]:
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *words, str(place)], check=True)
    try:
        yield
    finally:
        while (
            subprocess.run(
                ["umount", "-l", str(place)], capture_output=True, check=False
            ).returncode
            == 0
        ):
            pass


@ROOT
def test_r2_mounts_are_detached_and_what_is_mounted_is_kept(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis").write_text("kept")
    folder = tmp_path / "attempt"
    with (
        mounted(folder / "work/tmpfs", "-t", "tmpfs", "none"),
        mounted(folder / "work/tmpfs/below", "-t", "tmpfs", "none"),
        mounted(folder / "work/home", "--bind", str(home)),
    ):
        (folder / "work/tmpfs/x").touch()
        assert removed(folder) == Leftover()
    assert not folder.exists()
    assert (home / "thesis").read_text() == "kept"


@ROOT
def test_r2_what_belongs_to_somebody_else_is_counted_and_the_rest_goes(tmp_path: Path) -> None:
    """As an agent that is not root meets what `sudo` or a container has left."""
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and parent.name.startswith("pytest"):
            parent.chmod(0o755)
    folder = tmp_path / "attempt"
    (folder / "work/theirs").mkdir(parents=True)
    (folder / "work/theirs/file").touch()
    (folder / "work/empty").mkdir()
    (folder / "work/ours").touch()
    for path in (folder, folder / "work", folder / "work/ours"):
        os.chown(path, 12345, 12345)
    child = os.fork()
    if child == 0:
        os.setgid(12345)
        os.setuid(12345)
        left = removed(folder)
        os._exit(left.count if "work/theirs/file': Permission denied" in left.reasons[0] else 99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert sorted(path.name for path in folder.rglob("*")) == ["file", "theirs", "work"]


@ROOT
def test_r2_a_file_that_may_not_be_changed_is_freed(tmp_path: Path) -> None:
    folder = tmp_path / "attempt"
    folder.mkdir()
    file = folder / "fixed"
    file.touch()
    descriptor = os.open(file, os.O_RDONLY)
    flags = 0x40006602 | struct.calcsize("l") << 16
    try:
        fcntl.ioctl(descriptor, flags, struct.pack("i", 0x10))
    except OSError:
        return  # this file system has no such flags
    finally:
        os.close(descriptor)
    assert removed(folder) == Leftover()


@asynccontextmanager
async def a_trash(folder: Path, backoff: Backoff) -> AsyncIterator[Trash]:
    numbers = itertools.count()
    async with LongWork(time.monotonic) as work, asyncio.TaskGroup() as group:
        trash = Trash(
            folder, work, new_id=lambda: f"{next(numbers)}", chance=lambda: 1.0, backoff=backoff
        )
        await trash.open()
        running = group.create_task(trash.run())
        yield trash
        running.cancel()


async def test_r2_trash_is_moved_at_once_and_removed_beside(tmp_path: Path) -> None:
    old = tmp_path / "trash" / "of-before"
    old.mkdir(parents=True)
    folder = tmp_path / "attempt"
    nasty_tree(folder, beyond=tmp_path)
    async with a_trash(tmp_path / "trash", Backoff(60.0, 60.0)) as trash:
        await trash.throw(folder)
        assert not folder.exists()
        await trash.throw(folder)
        await until(lambda: not any((tmp_path / "trash").iterdir()), 30, "an empty trash")


async def test_t7_long_work_takes_turns_and_is_given_up_within_a_step() -> None:
    endings: list[str] = []

    def endless(name: str) -> Steps[None]:
        try:
            while True:
                yield
        finally:
            endings.append(name)

    def short() -> Steps[int]:
        yield
        return 7

    async with LongWork(time.monotonic, slice_seconds=0.02) as work, asyncio.TaskGroup() as group:
        giants = [group.create_task(work.run(endless(f"{number}"))) for number in range(20)]
        for _ in range(3):
            assert await asyncio.wait_for(work.run(short()), 30) == 7
        for giant in giants:
            giant.cancel()
    assert sorted(endings, key=int) == [f"{number}" for number in range(20)]
