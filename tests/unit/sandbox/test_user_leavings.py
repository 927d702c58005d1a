"""What users leave in places of all users is found, and a folder that did not change is not listed again."""

import os
from pathlib import Path

import pytest

from edge_agent.sandbox.user_leavings import UserLeavings
from edge_agent.sandbox.user_range import UserRange

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")

USERS = UserRange(3_200_000, 100)
ONE, OTHER = 3_200_001, 3_200_002


class Clock:
    """Seconds since the epoch, as a test sets them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return self.now


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder of all users."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def left(folder: Path, name: str, uid: int) -> Path:
    path = folder / name
    path.write_text("x")
    os.chown(path, uid, uid)
    return path


def stamp(folder: Path, seconds: float) -> None:
    """Say when a folder changed last, as the kernel does it."""
    os.utime(folder, (seconds, seconds))


def test_many_users_are_looked_after_by_one_look(shared: Path) -> None:
    wall = Clock()
    leavings = UserLeavings(USERS, wall, [shared])
    for uid in range(USERS.first, USERS.first + 50):
        left(shared, f"of-{uid}", uid)
    stays = left(shared, "of-other", 3_300_000)
    assert leavings.remove(range(USERS.first, USERS.first + 50)) == []
    assert list(shared.iterdir()) == [stays]
    assert wall.asked == 1


def test_a_folder_that_did_not_change_is_not_listed_again(shared: Path) -> None:
    wall = Clock()
    leavings = UserLeavings(USERS, wall, [shared])
    kept = left(shared, "of-other", OTHER)
    stamp(shared, 1000.0)
    wall.now = 1010.0
    leavings.remove_memory(ONE)
    mine = left(shared, "of-one", ONE)
    stamp(shared, 1000.0)  # as only the owner of the folder can, and no job
    leavings.remove_memory(ONE)
    assert mine.exists(), "it was not looked for"
    stamp(shared, 1020.0)
    leavings.remove_memory(ONE)
    assert (mine.exists(), kept.exists()) == (False, True)


def test_a_file_of_the_same_moment_as_the_listing_before_is_found(shared: Path) -> None:
    """The kernel's clock of files goes in steps: two changes within one step have one time."""
    wall = Clock()
    leavings = UserLeavings(USERS, wall, [shared])
    stamp(shared, 1000.0)
    wall.now = 1000.003
    leavings.remove_memory(ONE)
    mine = left(shared, "just-after", ONE)
    stamp(shared, 1000.0)
    wall.now = 2000.0
    leavings.remove_memory(ONE)
    assert not mine.exists()


def test_another_folder_in_its_place_is_listed(shared: Path, tmp_path: Path) -> None:
    """Something else may be mounted there."""
    wall = Clock()
    leavings = UserLeavings(USERS, wall, [shared])
    stamp(shared, 1000.0)
    wall.now = 2000.0
    leavings.remove_memory(ONE)
    shared.rename(tmp_path / "before")
    shared.mkdir()
    shared.chmod(0o1777)
    mine = left(shared, "mine", ONE)
    stamp(shared, 1000.0)
    leavings.remove_memory(ONE)
    assert not mine.exists()


def test_only_what_lies_in_memory_goes_at_once(shared: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.mkdir()
    slow.chmod(0o1777)
    leavings = UserLeavings(USERS, Clock(), [shared, slow])
    memory, file = left(shared, "memory", ONE), left(slow, "file", ONE)
    leavings.remove_memory(ONE)
    assert (memory.exists(), file.exists()) == (False, True)
    leavings.remove([ONE])
    assert not file.exists()


def test_a_folder_that_is_gone_or_closed_to_others_is_left_alone(shared: Path) -> None:
    mine = left(shared, "mine", ONE)
    shared.chmod(0o755)
    leavings = UserLeavings(USERS, Clock(), [shared.parent / "none", shared])
    assert leavings.remove([ONE]) == []
    assert mine.exists()


def test_what_root_has_is_not_removed(shared: Path) -> None:
    leavings = UserLeavings(USERS, Clock(), [shared])
    with pytest.raises(ValueError, match="no job's"):
        leavings.remove([ONE, 0])
    with pytest.raises(ValueError, match="no job's"):
        leavings.remove_memory(os.getuid())
