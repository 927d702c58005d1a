"""What closes the way to a path for a user that owns nothing."""

from pathlib import Path

import pytest

from edge_agent.sandbox.reach import EXECUTE, READ, barrier
from tests.kit.open_folder import open_folder

__all__ = ["open_folder"]

UID = 234_567


def test_the_first_folder_that_is_closed_is_the_barrier(open_folder: Path) -> None:
    below = open_folder / "a" / "b"
    below.mkdir(parents=True)
    for folder in (below, below.parent):
        folder.chmod(0o755)
    assert barrier(below, UID, READ) is None
    below.parent.chmod(0o700)
    assert barrier(below, UID) == below.parent
    assert barrier(below.parent, UID) is None  # it is reached, and not passed
    assert barrier(below.parent, UID, READ) == below.parent


def test_links_are_followed_wherever_they_lead(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    (closed / "program").touch(mode=0o755)
    for name, target in (("there", closed), ("back", Path("closed/../closed"))):
        (open_folder / name).symlink_to(target)
        assert barrier(open_folder / name / "program", UID, EXECUTE) == closed
    (open_folder / "circle").symlink_to("circle")
    assert barrier(open_folder / "circle" / "x", UID) is None


@pytest.mark.parametrize(("mode", "closed"), [(0o755, False), (0o750, True), (0o744, True)])
def test_the_rights_of_the_last_one_count(open_folder: Path, mode: int, *, closed: bool) -> None:
    program = open_folder / "program"
    program.touch()
    program.chmod(mode)
    assert (barrier(program, UID, EXECUTE) == program) is closed


def test_what_is_missing_is_no_barrier(open_folder: Path) -> None:
    assert barrier(open_folder / "missing" / "x", UID, READ) is None
