"""What the agent takes over of a build that left what it should not, and what it gives."""

import os
import stat
from pathlib import Path

import pytest

from edge_agent.environments.ownership import LeftBehindError, give, take_over
from edge_agent.long_work import Steps, ValueT
from edge_agent.removal import remove_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to give files away")
_BUILDER = 321_001
_STRANGER = 321_002


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a build, with a file in it."""
    folder = tmp_path / "built"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib/module.py").write_text("1")
    for path in (folder, folder / "lib", folder / "lib/module.py"):
        os.chown(path, _BUILDER, _BUILDER)
    return folder


def _done(steps: Steps[ValueT]) -> ValueT:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            value: ValueT = done.value
            return value


def test_what_was_built_becomes_the_agents_and_loses_rights(root: Path) -> None:
    program = root / "lib/program"
    program.write_text("2")
    os.chown(program, _BUILDER, _BUILDER)
    program.chmod(0o6770)
    (root / "link").symlink_to("/etc/shadow")
    before = Path("/etc/shadow").stat()
    assert _done(take_over(root, _BUILDER))
    status = program.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), 0o755)
    assert stat.S_IMODE((root / "lib/module.py").stat().st_mode) == 0o644
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    assert Path("/etc/shadow").stat() == before
    assert not _done(take_over(root, _BUILDER)), "there is nothing to change any more"


def test_a_second_name_for_the_file_of_a_stranger_stays_what_it_was(
    root: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("3")
    os.chown(secret, _STRANGER, _STRANGER)
    secret.chmod(0o600)
    (root / "lib/data").hardlink_to(secret)
    with pytest.raises(LeftBehindError, match=f"user {_STRANGER}"):
        _done(take_over(root, _BUILDER))
    assert not _done(give(root, _STRANGER + 1, _BUILDER))
    status = secret.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (_STRANGER, 0o600)


def test_a_file_that_somebody_still_writes_is_not_taken_over(root: Path) -> None:
    with (root / "lib/module.py").open("a"), pytest.raises(LeftBehindError, match="open for"):
        _done(take_over(root, _BUILDER))


def test_a_fifo_is_not_taken_over(root: Path) -> None:
    os.mkfifo(root / "lib/fifo")
    os.chown(root / "lib/fifo", _BUILDER, _BUILDER)
    with pytest.raises(LeftBehindError, match="FIFO 'fifo'"):
        _done(take_over(root, _BUILDER))


def test_a_deep_folder_is_given_as_a_whole(tmp_path: Path) -> None:
    root = tmp_path / "kept"
    root.mkdir()
    folder = os.open(root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=folder)
        deeper = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    assert _done(give(root, _BUILDER, os.geteuid()))
    assert os.fstat(folder).st_uid == _BUILDER
    assert root.stat().st_uid == _BUILDER
    os.close(folder)
    assert _done(remove_tree(root)).count == 0  # pytest's own removal does not go so deep
