"""Folders of attempts that are used again: only those that are as they were."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.spare_folders import MadeFolder, SpareFolders, made_folder
from shoal.sandbox import SandboxLevel

LEVEL = SandboxLevel.NONE


def made(tmp_path: Path, name: str = "one") -> tuple[Path, MadeFolder]:
    """The folder of an attempt whose program is about to begin."""
    folder = tmp_path / "attempts" / name
    (folder / "work" / "results").mkdir(parents=True)
    (folder / "environment").symlink_to("/environments/a")
    return folder, made_folder(str(folder), LEVEL, "/environments/a")


def spares(tmp_path: Path) -> SpareFolders:
    return SpareFolders(tmp_path / "spare")


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
    assert spare.take(str(another), LEVEL, "/environments/b")
    assert (another / "work").stat().st_ino == number
    assert sorted(one.name for one in another.iterdir()) == ["environment", "work"]
    assert (another / "environment").readlink() == Path("/environments/b")
    assert not spare.take(str(folder), LEVEL, "/environments/b"), "there was one"


def test_a_folder_of_another_level_is_not_taken(tmp_path: Path) -> None:
    folder, was = made(tmp_path)
    spare = spares(tmp_path)
    assert spare.put(str(folder), LEVEL, was)
    assert not spare.take(str(folder), SandboxLevel.USER, "/environments/a")


def test_a_name_that_is_there_is_left_alone_and_the_spare_folder_kept(tmp_path: Path) -> None:
    folder, was = made(tmp_path)
    other, _ = made(tmp_path, "two")
    spare = spares(tmp_path)
    assert spare.put(str(folder), LEVEL, was)
    with pytest.raises(FileExistsError):
        spare.take(str(other), LEVEL, "/environments/a")
    assert spare.take(str(folder), LEVEL, "/environments/a")


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
    assert not spare.take(str(tmp_path / "attempts" / "next"), LEVEL, "/environments/a")


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
    assert not spares(tmp_path).take(str(tmp_path / "attempts/next"), LEVEL, "/environments/a")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders to users")
def test_who_kept_a_directory_open_gets_at_nothing_of_the_next_attempt(tmp_path: Path) -> None:
    """The process of one job stands in its folder, which is used for the job of another user."""
    first, second = 61_001, 61_002
    folder = tmp_path / "one"
    for name in ("work/results", "home", "ports", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "environment").symlink_to("/environments/a")
    work = folder / "work"
    work.chmod(0o700)
    os.chown(work, first, first)
    was = made_folder(str(folder), SandboxLevel.USER, "/environments/a")
    kept_open = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    spare = spares(tmp_path)
    assert spare.put(str(folder), SandboxLevel.USER, was)
    assert spare.take(str(tmp_path / "two"), SandboxLevel.USER, "/environments/a")
    assert (tmp_path / "two/work").stat().st_uid == 0, "it was taken back"
    os.chown(tmp_path / "two/work", second, second)
    (tmp_path / "two/work/secret").write_text("of the second")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresuid(first, first, first)
            status = 2
            os.open("secret", os.O_RDONLY, dir_fd=kept_open)
        except PermissionError:
            status = 0 if status == 2 else status
        finally:
            os._exit(status)
    os.close(kept_open)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
