"""A board's disk as an ext4 image, and the loss of its power: what the disk had at that moment is all there is.

The image is the backing file of a loop device that reads and writes it directly (`--direct-io`), so the file
has what ext4 has written to its disk and nothing of the page cache. A cut stops the board's processes, so that
they ask for nothing more, copies the file, kills the processes, and mounts the copy in its place; ext4 then
replays its own journal, as at the start of a machine. Mounted with `commit=300`, ext4 commits for nothing but
an fsync: what was not made durable on purpose is lost, with the worst luck there is.

Sources: losetup(8), ext4(5).
"""

import contextlib
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.kit.programs import program
from tests.kit.until import until_sync


class BoardDisk:
    """A mounted image; `path` is where.

    Args:
        path: where it is mounted.
        image: its backing file; each cut makes another one beside it.
    """

    def __init__(self, path: Path, image: Path) -> None:
        self.path = path
        self._image = image
        self._cuts = 0
        self._device = ""

    def mount(self) -> None:
        """Attach the image and mount it."""
        attach = ("losetup", "--find", "--show", "--direct-io=on", str(self._image))
        self._device = _said(*attach)
        _said("mount", "-t", "ext4", "-o", "commit=300,noatime", self._device, str(self.path))

    def unmount(self) -> None:
        """Take it away, with whatever is still open on it."""
        if self._device:
            _said("umount", "-l", str(self.path))
            until_sync(lambda: _detached(self._device), 20, f"that {self._device} is free")
            self._device = ""

    def cut(self, pids: Iterable[int]) -> None:
        """Let the power fail for these processes and this disk; what the disk had is mounted when it returns.

        The boot id that the agent's journal knows is another machine start's afterwards.
        """
        board = tuple(pids)
        _signal(board, signal.SIGSTOP)
        self._cuts += 1
        left = self._image.with_name(f"{self._image.name}.{self._cuts}")
        _said("cp", "--sparse=always", str(self._image), str(left))
        _signal(board, signal.SIGKILL)
        until_sync(lambda: not any(map(_lives, board)), 20, "that nothing of the board is left")
        self.unmount()
        self._image.unlink()
        self._image = left
        self.mount()
        journal = self.path / "agent.db"
        if journal.exists():
            with contextlib.closing(sqlite3.connect(journal)) as database, database:
                database.execute("UPDATE fact SET value = 'before' WHERE name = 'boot_id'")


@contextlib.contextmanager
def board_disk(path: Path, image: Path, size: str = "192M") -> Iterator[BoardDisk]:
    """Make an image with ext4 of a size as truncate(1) has it, and mount it at `path` until the end of the block."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    path.mkdir(parents=True, exist_ok=True)
    _said("truncate", "-s", size, str(image))
    _said("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
    disk = BoardDisk(path, image)
    try:
        disk.mount()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine mounts no image: {error.stderr.strip()}")
    try:
        yield disk
    finally:
        disk.unmount()


def _said(name: str, *words: str) -> str:
    done = subprocess.run(
        [program(name), *words], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _detached(device: str) -> bool:
    # A device that is still mounted somewhere lets go once that ends.
    subprocess.run([program("losetup"), "--detach", device], check=False, capture_output=True)
    found = subprocess.run(
        [program("losetup"), device], check=False, capture_output=True, timeout=60
    )
    return found.returncode != 0
