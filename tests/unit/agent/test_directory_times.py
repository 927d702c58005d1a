"""Directories that are as they were, as one look at each shows."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.directory_times import DirectoryTimes, directory_times, file_time
from tests.kit.until import until

NAMES = ("work", "work/results")


def seen(folder: Path) -> DirectoryTimes:
    (folder / "work/results").mkdir(parents=True)
    return directory_times(str(folder), NAMES)


def is_same(folder: Path, was: DirectoryTimes) -> bool:
    return all(was.is_same(name, (folder / name).lstat()) for name in NAMES)


def _made_and_removed(folder: Path) -> None:
    (folder / "work/x").touch()
    (folder / "work/x").unlink()


def _replaced(folder: Path) -> None:
    (folder / "work/results").rmdir()
    (folder / "work/results").mkdir()


CHANGES: tuple[Callable[[Path], object], ...] = (
    lambda folder: (folder / "work/x").touch(),
    lambda folder: (folder / "work/results/x").mkdir(),
    lambda folder: (folder / "work/results").chmod(0o700),
    lambda folder: os.utime(folder / "work", (1, 1)),
    lambda folder: (folder / "work/results").rename(folder / "elsewhere"),
    _made_and_removed,
    _replaced,
)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_after_the_tick_is_seen(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    was = seen(tmp_path)
    await until(lambda: was.prove(file_time()), what="a later time of the file system")
    assert is_same(tmp_path, was)
    change(tmp_path)
    try:
        assert not is_same(tmp_path, was)
    except FileNotFoundError:
        assert not (tmp_path / "work/results").exists()


def test_a_program_that_was_asked_for_in_the_same_tick_proves_nothing() -> None:
    at = 1_700_000_000_123_456_789
    times = DirectoryTimes({"work": (1, 2, 3, 4, at), "work/results": (1, 3, 3, 4, at - 10**9)})
    assert not times.prove(0)
    assert not times.prove(at)
    assert times.prove(at + 4_000_000)


def test_times_without_parts_of_a_millisecond_prove_nothing() -> None:
    times = DirectoryTimes({"work": (1, 2, 3, 4, 1_700_000_000_000_000_000)})
    assert not times.prove(1_700_000_100_000_000_000)
