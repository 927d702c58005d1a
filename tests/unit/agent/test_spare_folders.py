"""Folders of attempts that are used again: only those that are as they were."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.attempt_folder import AttemptFolder
from edge_agent.directory_times import directory_times, file_time
from edge_agent.long_work import done_at_once
from edge_agent.sandbox.job_folders import close_attempt, hand_over, hand_over_fresh
from edge_agent.spare_folders import (
    JOB_PLACES,
    USER_PLACES,
    MadeFolder,
    SpareFolders,
    take_back,
)
from shoal.sandbox import SandboxLevel
from tests.kit.until import until

LEVEL = SandboxLevel.NONE


def made(tmp_path: Path, name: str = "one") -> tuple[Path, MadeFolder]:
    """The folder of an attempt whose program is about to begin."""
    folder = tmp_path / "attempts" / name
    return folder, SpareFolders(tmp_path / "none").take(str(folder), LEVEL, "/environments/a")


def spares(tmp_path: Path) -> SpareFolders:
    return SpareFolders(tmp_path / "spare")


def uses_again(spare: SpareFolders, path: Path, level: SandboxLevel) -> bool:
    """Whether the folder of the next attempt is one that was there before."""
    there = {one.stat().st_ino for one in path.parents[1].rglob("work")}
    spare.take(str(path), level, "/environments/a")
    return (path / "work").stat().st_ino in there


def test_a_folder_in_which_nothing_was_made_is_used_again_without_its_outputs(
    tmp_path: Path,
) -> None:
    folder, was = made(tmp_path)
    (folder / "stdout").write_text("words")
    (folder / "stderr").touch()
    number = (folder / "work").stat().st_ino
    spare = spares(tmp_path)
    assert spare.put(str(folder), LEVEL, was)
    assert not folder.exists()
    assert spare.left() == []
    another = folder.with_name("two")
    again = spare.take(str(another), LEVEL, "/environments/b")
    assert (another / "work").stat().st_ino == number
    assert sorted(one.name for one in another.iterdir()) == ["environment", "work"]
    assert (another / "environment").readlink() == Path("/environments/b")
    spare.take(str(folder), LEVEL, "/environments/b")
    assert (folder / "work").stat().st_ino != number, "there was one"
    assert spare.put(str(another), LEVEL, again)


def test_a_folder_of_another_level_is_not_taken(tmp_path: Path) -> None:
    folder, was = made(tmp_path)
    spare = spares(tmp_path)
    assert spare.put(str(folder), LEVEL, was)
    assert not uses_again(spare, folder, SandboxLevel.USER)


def test_a_name_that_is_there_is_left_alone_and_the_spare_folder_kept(tmp_path: Path) -> None:
    folder, was = made(tmp_path)
    other, _ = made(tmp_path, "two")
    spare = spares(tmp_path)
    assert spare.put(str(folder), LEVEL, was)
    with pytest.raises(FileExistsError):
        spare.take(str(other), LEVEL, "/environments/a")
    assert uses_again(spare, folder, LEVEL)


def _replace_results(folder: Path) -> None:
    (folder / "work/results").rename(folder / "kept-open")
    (folder / "work/results").mkdir()
    (folder / "kept-open").rmdir()


def _link_results(folder: Path) -> None:
    (folder / "work/results").rmdir()
    (folder / "work/results").symlink_to("/tmp")


def _link_work(folder: Path) -> None:
    (folder / "work").rename(folder.with_name("elsewhere"))
    (folder / "work").symlink_to(folder.with_name("elsewhere"))


def _relink(folder: Path) -> None:
    (folder / "environment").unlink()
    (folder / "environment").symlink_to("/environments/evil")


SPOILS: tuple[Callable[[Path], object], ...] = (
    lambda folder: (folder / "work/results/x").touch(),
    lambda folder: (folder / "work/.hidden").touch(),
    lambda folder: (folder / "work/empty").mkdir(),
    lambda folder: (folder / "beside").touch(),
    lambda folder: (folder / "work").chmod(0o777),
    lambda folder: (folder / "work/results").chmod(0o2755),
    lambda folder: (folder / "work/results").rmdir(),
    lambda folder: (folder / "stdout").mkdir(),
    _replace_results,
    _link_results,
    _link_work,
    _relink,
)


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_folder_that_is_not_as_it_was_is_not_used_again(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    folder, was = made(tmp_path)
    spoil(folder)
    spare = spares(tmp_path)
    assert not spare.put(str(folder), LEVEL, was)
    assert folder.exists(), "it is for the trash"
    assert not uses_again(spare, tmp_path / "attempts" / "next", LEVEL)


def test_a_folder_with_attributes_of_a_job_is_not_used_again(tmp_path: Path) -> None:
    folder, was = made(tmp_path)
    try:
        os.setxattr(folder / "work", "user.note", b"for the next one")
    except OSError:
        pytest.skip("the file system has no attributes")
    assert not spares(tmp_path).put(str(folder), LEVEL, was)


def test_only_so_many_are_kept_and_what_an_earlier_agent_left_is_used_for_nothing(
    tmp_path: Path,
) -> None:
    spare = spares(tmp_path)
    kept = 0
    for number in range(70):
        folder, was = made(tmp_path, str(number))
        kept += spare.put(str(folder), LEVEL, was)
    assert kept == 64
    assert len(spares(tmp_path).left()) == 64
    assert not uses_again(spares(tmp_path), tmp_path / "attempts/next", LEVEL)


ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders to users")
FIRST, SECOND = 61_001, 61_002


def given(tmp_path: Path, user: int, spare: SpareFolders, name: str) -> tuple[Path, MadeFolder]:
    """The folder of an attempt that its user has, and that is closed since its program has ended."""
    folder = tmp_path / "attempts" / name
    was = spare.take(str(folder), SandboxLevel.USER, "/environments/a")
    hand_over_fresh(str(folder), user)
    close_attempt(str(folder))
    return folder, was


@ROOT
def test_a_folder_of_a_user_is_taken_back_and_given_to_the_next_one(tmp_path: Path) -> None:
    spare = spares(tmp_path)
    folder, was = given(tmp_path, FIRST, spare, "one")
    number = (folder / "work").stat().st_ino
    owners = {path.name: path.lstat().st_uid for path in folder.rglob("*")}
    assert owners == {
        "environment": 0,
        "ports": 0,
        **dict.fromkeys(("home", "tmp", "work", "results", "stdout", "stderr"), FIRST),
    }
    assert spare.put(str(folder), SandboxLevel.USER, was, FIRST)
    assert {path.lstat().st_uid for path in (tmp_path / "spare").rglob("*")} == {0}
    another, _ = given(tmp_path, SECOND, spare, "two")
    assert (another / "work").stat().st_ino == number
    assert (another / "work/results").stat().st_uid == SECOND
    modes = {name: (another / name).stat().st_mode & 0o777 for name in ("work", "home", "ports")}
    assert modes == {"work": 0o700, "home": 0o700, "ports": 0o711}


def given_ahead(tmp_path: Path, spare: SpareFolders, name: str) -> tuple[Path, MadeFolder]:
    """The folder of an attempt that was given to SECOND before there was the attempt."""
    folder, was = given(tmp_path, FIRST, spare, "before")
    assert spare.put(str(folder), SandboxLevel.USER, was, FIRST, following=SECOND)
    another = tmp_path / "attempts" / name
    return another, spare.take(str(another), SandboxLevel.USER, "/environments/b")


@ROOT
def test_a_folder_that_is_given_ahead_is_all_its_users_and_closed(tmp_path: Path) -> None:
    spare = spares(tmp_path)
    folder, was = given_ahead(tmp_path, spare, "one")
    assert was.user == SECOND
    assert folder.stat().st_mode & 0o777 == 0o700
    owners = {path.name: path.lstat().st_uid for path in folder.rglob("*")}
    assert owners == {
        "environment": 0,
        "ports": 0,
        **dict.fromkeys(("home", "tmp", "work", "results", "stdout", "stderr"), SECOND),
    }
    assert (folder / "environment").readlink() == Path("/environments/b")
    assert (folder / "stdout").stat().st_mode & 0o777 == 0o600
    assert was.times is not None
    assert all(was.times.is_same(name, (folder / name).lstat()) for name in USER_PLACES)


@ROOT
def test_what_was_given_ahead_can_be_taken_back_and_given_as_any_other(tmp_path: Path) -> None:
    folder, _ = given_ahead(tmp_path, spares(tmp_path), "one")
    take_back(str(folder))
    assert {(folder / name).lstat().st_uid for name in USER_PLACES} == {0}
    done_at_once(hand_over(AttemptFolder(folder), SECOND))
    assert {(folder / name).lstat().st_uid for name in USER_PLACES} == {SECOND}


@ROOT
def test_the_outputs_of_the_program_before_are_not_those_that_are_given_ahead(
    tmp_path: Path,
) -> None:
    spare = spares(tmp_path)
    folder, was = given(tmp_path, FIRST, spare, "before")
    (folder / "stdout").write_text("of the first")
    number = (folder / "stdout").stat().st_ino
    with (folder / "stdout").open("a") as kept_open:  # so that its inode is not used again
        assert spare.put(str(folder), SandboxLevel.USER, was, FIRST, following=SECOND)
        spare.take(str(folder), SandboxLevel.USER, "/environments/a")
        kept_open.write("more")
    assert (folder / "stdout").stat().st_size == 0
    assert (folder / "stdout").stat().st_ino != number


SPOILS_BY_USER: tuple[Callable[[Path], object], ...] = (
    lambda folder: (folder / "home/.x").touch(),
    lambda folder: (folder / "tmp/x").mkdir(),
    lambda folder: (folder / "home").chmod(0o755),
    lambda folder: os.setxattr(folder / "tmp", "trusted.note", b"for the next one"),
    lambda folder: (folder / "work/results/x").touch(),
    _replace_results,
    _link_results,
)


@ROOT
@pytest.mark.parametrize("spoil", SPOILS_BY_USER)
async def test_a_folder_that_a_user_has_changed_is_not_used_again_for_its_times(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    spare = spares(tmp_path)
    folder, was = given(tmp_path, FIRST, spare, "one")
    times = directory_times(str(folder), USER_PLACES)
    await until(lambda: times.prove(file_time()), what="times that prove something")
    spoil(folder)
    assert not spare.put(str(folder), SandboxLevel.USER, was, FIRST, times=times)


@ROOT
async def test_a_folder_is_used_again_whose_times_prove_that_nothing_was_changed(
    tmp_path: Path,
) -> None:
    spare = spares(tmp_path)
    folder, was = given(tmp_path, FIRST, spare, "one")
    times = directory_times(str(folder), USER_PLACES)
    await until(lambda: times.prove(file_time()), what="times that prove something")
    assert spare.put(str(folder), SandboxLevel.USER, was, FIRST, JOB_PLACES, times)
    another, _ = given(tmp_path, SECOND, spare, "two")
    assert (another / "work").stat().st_ino == times.looks["work"][1]
    assert {path.lstat().st_uid for path in (another / "work").rglob("*")} == {SECOND}


@ROOT
@pytest.mark.parametrize("spoil", SPOILS_BY_USER)
def test_a_folder_that_a_user_has_changed_is_not_used_again(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    spare = spares(tmp_path)
    folder, was = given(tmp_path, FIRST, spare, "one")
    spoil(folder)
    assert not spare.put(str(folder), SandboxLevel.USER, was, FIRST)
    assert folder.exists()


@ROOT
def test_a_folder_of_a_user_with_a_process_is_not_used_again(tmp_path: Path) -> None:
    spare = spares(tmp_path)
    folder, was = given(tmp_path, FIRST, spare, "one")
    with subprocess.Popen(["/bin/sleep", "600"], user=FIRST, group=FIRST, extra_groups=[]) as left:
        assert not spare.put(str(folder), SandboxLevel.USER, was, FIRST)
        left.kill()
    assert spare.put(str(folder), SandboxLevel.USER, was, FIRST)


@ROOT
def test_who_kept_a_directory_open_gets_at_nothing_of_the_next_attempt(tmp_path: Path) -> None:
    """The process of one job stands in its folder, which is used for the job of another user."""
    spare = spares(tmp_path)
    folder, was = given(tmp_path, FIRST, spare, "one")
    kept_open = os.open(folder / "work", os.O_RDONLY | os.O_DIRECTORY)
    assert spare.put(str(folder), SandboxLevel.USER, was, FIRST)
    number = os.fstat(kept_open).st_ino
    another, _ = given(tmp_path, SECOND, spare, "two")
    another.chmod(0o711)
    assert (another / "work").stat().st_ino == number
    (another / "work/secret").write_text("of the second")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresuid(FIRST, FIRST, FIRST)
            status = 2
            os.open("secret", os.O_RDONLY, dir_fd=kept_open)
        except PermissionError:
            status = 0 if status == 2 else status
        finally:
            os._exit(status)
    os.close(kept_open)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
