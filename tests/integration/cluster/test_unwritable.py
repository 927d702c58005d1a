"""B2: what cannot write where it was told to says so in a sentence, and leaves nothing running."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.small_disk import SmallDisk, small_disk

SHOAL = str(Path(sys.executable).parent / "shoal")
COMMANDS = {
    "controller": "controller --grpc 127.0.0.1:0 --gossip off --objects 127.0.0.1:0",
    "agent": "agent --sandbox none --gossip off --streams 127.0.0.1:0 --controller 127.0.0.1:1",
    "up": "up --agents 1 --port 0 --mqtt none",
    "detached": "up --detach --agents 1 --port 0 --mqtt none",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Folders that cannot be written, each in its own way."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "file").touch()
    with small_disk(folder / "disk") as disk:
        (disk.path / "empty").mkdir(mode=0o700)
        _hold_locks(disk)
        disk.remount("ro")
        yield {
            "below a file": folder / "file/state",
            "new on a read-only disk": disk.path / "new",
            "empty on a read-only disk": disk.path / "empty",
            "used, on a disk that became read-only": disk.path / "used",
        }


def _hold_locks(disk: SmallDisk) -> None:
    """Lay out what an earlier start of each command leaves first."""
    used = disk.path / "used"
    used.mkdir(mode=0o700)
    for name in ("cluster.lock", "controller.db", "controller.db.lock"):
        (used / name).touch(0o600)


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("agent", "below a file"),
        ("agent", "empty on a read-only disk"),
        ("controller", "empty on a read-only disk"),
        ("controller", "used, on a disk that became read-only"),
        ("up", "empty on a read-only disk"),
        ("up", "used, on a disk that became read-only"),
        ("detached", "new on a read-only disk"),
    ],
)
def test_b2_a_state_folder_that_cannot_be_written_is_refused_with_a_remedy(
    places: dict[str, Path], command: str, place: str, tmp_path: Path
) -> None:
    words = (*COMMANDS[command].split(), "--state", str(places[place]))
    _refused(words, {"XDG_STATE_HOME": str(tmp_path)}, str(places[place]))
    assert not list(tmp_path.glob("shoal/clusters/*")), "what others read of a cluster is left"


def test_b2_other_files_that_cannot_be_written_are_named(
    places: dict[str, Path], tmp_path: Path
) -> None:
    home = places["empty on a read-only disk"]
    up, controller = COMMANDS["up"].split(), COMMANDS["controller"].split()
    said = _refused((*up, "--state", str(tmp_path)), {"XDG_STATE_HOME": str(home)}, str(home))
    assert "set XDG_STATE_HOME" in said
    ready = str(home / "ready")
    words = (*controller, "--state", str(tmp_path / "c"), "--ready-file", ready)
    assert "--ready-file" in _refused(words, {}, ready)


def _refused(words: tuple[str, ...], variables: dict[str, str], named: str) -> str:
    ended = subprocess.run(
        [SHOAL, *words],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert named in ended.stderr
    assert "cannot" in ended.stderr
    assert any(word in ended.stderr for word in ("writ", "permissions"))
    return ended.stderr
