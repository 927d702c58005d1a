"""Going through a folder that a job has left, whatever it has made of it.

One descriptor stands in one folder at a time, so that neither the depth of a tree nor the length of a
path has a limit (a path as one word ends at 4096 bytes), and no link is ever gone through. The way
back is `..`, checked against where the walk came from: a folder that was moved meanwhile ends it.
"""

import logging
import os
import stat
from pathlib import Path
from typing import Final, TypeAlias

from services.runtime.log import fields

LOG = logging.getLogger(__name__)

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS: Final = (
    os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
)  # a FIFO or a device that took the file's place meanwhile does not hold us up


class TreeChangedError(OSError):
    """A folder is no longer where it was when the walk came through it."""


class NoPlainFileError(OSError):
    """Something else has the name of a file."""


_Identity: TypeAlias = tuple[int, int]
"""Device and inode of a folder."""


class Descent:
    """Where a walk stands in a tree; close it.

    Args:
        root: the folder to begin in.

    Raises:
        OSError: it is no folder, or cannot be read.
    """

    def __init__(self, root: str | Path) -> None:
        # The folder in which the walk stands.
        self.descriptor = os.open(root, _FOLDER_FLAGS)
        self._trail: list[_Identity] = []
        self._here = _identity(self.descriptor)

    def enter(self, name: str) -> None:
        """Go into a folder of this folder.

        Raises:
            OSError: it is none, a link included, or cannot be read.
        """
        self._move(os.open(name, _FOLDER_FLAGS, dir_fd=self.descriptor), self._here)

    def leave(self) -> None:
        """Go back to where this folder was entered from.

        Raises:
            TreeChangedError: it has been moved to somewhere else.
            OSError: there is no way back.
        """
        descriptor = os.open("..", _FOLDER_FLAGS, dir_fd=self.descriptor)
        if _identity(descriptor) != self._trail[-1]:
            os.close(descriptor)
            raise TreeChangedError(0, "a folder was moved while it was gone through")
        self._trail.pop()
        self._move(descriptor, None)

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self.descriptor)

    def _move(self, descriptor: int, came_from: _Identity | None) -> None:
        os.close(self.descriptor)
        self.descriptor = descriptor
        if came_from is not None:
            self._trail.append(came_from)
        self._here = _identity(descriptor)


def children(folder: Path) -> list[Path]:
    """What lies in a folder, by name; nothing where it is missing, or cannot be read, which is logged."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        LOG.warning("a folder counts as empty", extra=fields(path=folder, error=error))
        return []


def open_plain(path: str | Path, dir_fd: int | None = None) -> int:
    """Open a plain file for reading, never through a link and never waiting for another side.

    Raises:
        NoPlainFileError: it is a link, FIFO, socket, device or folder.
        OSError: there is none, or it cannot be read.
    """
    # Opening alone has effects on some devices, so they are looked at first.
    mode = os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_mode
    if not stat.S_ISREG(mode):
        raise NoPlainFileError(0, f"it is a {kind(mode)}")
    descriptor = os.open(path, _FILE_FLAGS, dir_fd=dir_fd)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise NoPlainFileError(0, f"it is a {kind(mode)}")
    return descriptor


def kind(mode: int) -> str:
    """What a file is, in a word."""
    return _KINDS.get(stat.S_IFMT(mode), "thing of an unknown kind")


_KINDS: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def _identity(descriptor: int) -> _Identity:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
