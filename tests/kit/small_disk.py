"""A real small disk: a tmpfs of its own, filled and emptied by a test."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.kit.programs import program
from tests.kit.until import until_sync

_PIECE = 64 * 1024


class SmallDisk:
    """A mounted tmpfs; `path` is where.

    Args:
        path: where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def free_bytes(self) -> int:
        """What can still be written."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """Write until nothing more fits."""
        with (self.path / "filler").open("ab", buffering=0) as file:
            size = _PIECE
            while size:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 2

    def empty(self) -> None:
        """Give back what `fill` took."""
        (self.path / "filler").unlink(missing_ok=True)

    def remount(self, how: str) -> None:
        """Change how it is mounted: "ro" or "rw".

        It waits while the disk is busy: a process that ends gives its memory back, by which it is seen, before
        its files.
        """
        options = ("-o", f"remount,{how}", str(self.path))
        until_sync(lambda: _busy(options) is None, 10, f"that nothing holds {self.path}")

    def unmount(self) -> None:
        """Take it away, with whatever is still open on it."""
        subprocess.run([program("umount"), "-l", str(self.path)], check=False)


@contextlib.contextmanager
def small_disk(path: Path, size: str = "16m") -> Iterator[SmallDisk]:
    """Mount a tmpfs of `size`, as mount(8) has it, at `path`, and unmount it at the end."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    path.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size},mode=0755", "none", str(path))
    disk = SmallDisk(path)
    try:
        yield disk
    finally:
        if path.is_mount():
            disk.unmount()


def _mount(*words: str) -> None:
    if (busy := _busy(words)) is not None:
        pytest.fail(busy)


def _busy(words: Sequence[str]) -> str | None:
    """Mount; what mount(8) says where the disk is busy, and a failure where it says anything else."""
    done = subprocess.run([program("mount"), *words], capture_output=True, text=True, check=False)
    if not done.returncode:
        return None
    if "busy" not in done.stderr:
        pytest.fail(f"mount {' '.join(words)} failed: {done.stderr.strip()}")
    return done.stderr.strip()
