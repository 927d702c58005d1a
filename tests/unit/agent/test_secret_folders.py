"""Secrets as files are in memory, for one user, and gone afterwards."""

import os
import stat
from pathlib import Path

import pytest

from edge_agent.attempt_folder import keeper_id
from edge_agent.secrets.secret_folders import SecretFolderError, SecretFolders
from shoal.names import AttemptRef

REF = AttemptRef("default", "p", "a", 1, 2)
OTHER = AttemptRef("default", "p", "b", 1, 2)


def folders(tmp_path: Path, kind: str = "tmpfs") -> SecretFolders:
    """Folders below `memory`, which the machine says is of a kind."""
    memory = tmp_path / "memory"
    memory.mkdir(exist_ok=True)
    mounts = tmp_path / "mounts"
    mounts.write_text(f"proc /proc proc rw 0 0\nx {memory} {kind} rw 0 0\n")
    return SecretFolders(tmp_path / "state", (tmp_path / "none", memory), mounts)


def test_a_file_is_read_by_its_user_alone_in_a_folder_that_is_not_theirs(tmp_path: Path) -> None:
    user = 200_001 if os.geteuid() == 0 else -1
    folder = folders(tmp_path).place(REF, {"TOKEN": b"\0x"}, user)
    assert folder.name == keeper_id(REF)
    status = (folder / "TOKEN").stat()
    assert stat.S_IMODE(status.st_mode) == 0o400
    if user >= 0:
        assert (status.st_uid, status.st_gid) == (user, user)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o711
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o711
    assert folder.stat().st_uid == os.geteuid()


def test_a_folder_is_made_anew_and_goes_with_its_attempt(tmp_path: Path) -> None:
    ours = folders(tmp_path)
    ours.remove(REF)
    assert ours.place(REF, {"A": b"1"}) == ours.place(REF, {"B": b"2"})
    other = ours.place(OTHER, {"C": b"3"})
    folder = ours.place(REF, {"B": b"2"})
    assert os.listdir(folder) == ["B"]
    ours.remove(REF)
    assert not folder.exists()
    again = folders(tmp_path)  # of another life of the agent
    again.sweep({keeper_id(OTHER)})
    assert other.exists()
    again.sweep(())
    assert os.listdir(tmp_path / "memory") == [], "nothing at all is left"
    again.place(REF, {"A": b"1"})
    again.remove(REF)
    assert os.listdir(tmp_path / "memory") == []


def test_no_secret_is_written_to_a_disk(tmp_path: Path) -> None:
    with pytest.raises(SecretFolderError, match="give the secret as a variable"):
        folders(tmp_path, "ext4").place(REF, {"A": b"1"})
    assert os.listdir(tmp_path / "memory") == []


@pytest.mark.parametrize("mode", [0o777, 0o731])
def test_a_folder_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    ours = folders(tmp_path)
    root = ours.place(REF, {}).parent
    root.chmod(mode)
    with pytest.raises(SecretFolderError, match="was not made by this agent"):
        ours.place(REF, {"A": b"1"})
    ours.sweep(())
    assert os.listdir(root) == [keeper_id(REF)]


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    ours = folders(tmp_path)
    root = ours.place(REF, {}).parent
    (root / keeper_id(REF)).rmdir()
    root.rmdir()
    (tmp_path / "elsewhere").mkdir()
    root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SecretFolderError, match="remove it"):
        ours.place(REF, {"A": b"1"})
    assert os.listdir(tmp_path / "elsewhere") == []
