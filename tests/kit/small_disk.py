"""A real small disk: a tmpfs of its own, filled and emptied by a test."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.programs import program

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
        """Change how it is mounted: "ro" or "rw"."""
        _mount("-o", f"remount,{how}", str(self.path))

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
    done = subprocess.run([program("mount"), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"mount {' '.join(words)} failed: {done.stderr.strip()}")
