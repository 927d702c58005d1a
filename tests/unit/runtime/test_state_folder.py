"""What a state folder lets others see: nothing; and what is not a state folder is left alone."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from services.runtime.process import StartRefusedError
from services.runtime.state_folder import create_private, prepare_state_folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_is_made_for_its_user_alone(tmp_path: Path) -> None:
    prepare_state_folder(tmp_path / "a" / "b", "ours.db")
    assert mode(tmp_path / "a" / "b") == 0o700
    assert create_private(tmp_path / "a" / "b" / "ours.db")
    assert not create_private(tmp_path / "a" / "b" / "ours.db")
    assert mode(tmp_path / "a" / "b" / "ours.db") == 0o600


def test_what_an_earlier_version_left_open_is_closed(tmp_path: Path) -> None:
    for name in ("ours.db", "ours.db-wal", "some.log"):
        (tmp_path / name).touch(0o644)
    (tmp_path / "folder").mkdir(0o755)
    tmp_path.chmod(0o755)
    prepare_state_folder(tmp_path, "ours.db")
    assert mode(tmp_path) == 0o700
    assert {mode(path) for path in tmp_path.iterdir() if path.is_file()} == {0o600}


def test_a_folder_of_others_keeps_its_rights(tmp_path: Path) -> None:
    (tmp_path / "somebody.else").touch(0o644)
    tmp_path.chmod(0o1777)
    prepare_state_folder(tmp_path, "ours.db")
    assert mode(tmp_path) == 0o1777
    assert mode(tmp_path / "somebody.else") == 0o644


def test_a_folder_that_cannot_be_used_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartRefusedError, match=r"file cannot be used: .*another --state"):
        prepare_state_folder(tmp_path / "file", "ours.db")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_a_folder_of_another_user_is_refused_with_the_remedy() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        os.chown(folder, 12345, 12345)
        os.seteuid(54321)
        try:
            with pytest.raises(StartRefusedError, match=r"user 12345.*chown -R 54321"):
                prepare_state_folder(folder, "ours.db")
        finally:
            os.seteuid(0)
