"""Going through a folder that a job has left, whatever it has made of it.

One descriptor stands in one folder at a time, so that neither the depth of a tree nor the length of a
path has a limit (a path as one word ends at 4096 bytes), and no link is ever gone through. The way
back is `..`, checked against where the walk came from: a folder that was moved meanwhile ends it.

**Why owners.** An agent that is root may read everything, and a job decides which names lie in its folder: it can
link a name to another file (link(2) asks for no rights to that file where `fs.protected_hardlinks` is 0), or change
what a name means between two looks at it. So what is opened for a job is looked at once it is open: it has to
belong to the job's user. A file of that user is one that the job could have read itself.
"""

import errno
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from services.runtime.log import fields

LOG = logging.getLogger(__name__)

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS: Final = (
    os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
)  # a FIFO or a device that took the file's place meanwhile does not hold us up


_LINKS_MAX: Final = 40  # path_resolution(7)


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


def open_plain(path: str | Path, dir_fd: int | None = None, owner: int = -1) -> int:
    """Open a plain file for reading, never through a link and never waiting for another side.

    Args:
        path: the file.
        dir_fd: the folder that a relative path begins in; None for the working folder.
        owner: the user that the file has to belong to; -1 for any.

    Raises:
        NoPlainFileError: it is a link, FIFO, socket, device or folder.
        PermissionError: it belongs to another user.
        OSError: there is none, or it cannot be read.
    """
    # Opening alone has effects on some devices, so they are looked at first.
    _check(os.stat(path, dir_fd=dir_fd, follow_symlinks=False), owner)
    descriptor = os.open(path, _FILE_FLAGS, dir_fd=dir_fd)
    try:
        _check(os.fstat(descriptor), owner)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check(status: os.stat_result, owner: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NoPlainFileError(0, f"it is a {kind(status.st_mode)}")
    if owner not in {-1, status.st_uid}:
        raise PermissionError(
            errno.EPERM, f"it belongs to user {status.st_uid}, and the job is user {owner}"
        )


@dataclass(frozen=True, slots=True)
class PlainFile:
    """A plain file beneath a folder in which only its user, or only the agent, gives names.

    Attributes:
        folder: the folder, whose own path no job can change.
        name: path of the file in it, with `/` between folders and no link on the way.
        owner: the user that the file has to belong to; -1 for any.
    """

    folder: Path
    name: str
    owner: int = -1

    def open(self) -> int:
        """Open it for reading; folder by folder, so that none of them can be a link.

        Raises:
            NoPlainFileError, PermissionError, OSError: as `open_plain`.
        """
        *folders, name = self.name.split("/")
        here = os.open(self.folder, _FOLDER_FLAGS)
        try:
            for folder in folders:
                below = os.open(folder, _FOLDER_FLAGS, dir_fd=here)
                os.close(here)
                here = below
            return open_plain(name, here, self.owner)
        finally:
            os.close(here)


class LeadsOutError(OSError):
    """A link leads out of the folder in which it lies; `target` says where, as it is written there."""

    def __init__(self, target: str) -> None:
        super().__init__(0, f"it leads to {target!r}")
        self.target = target


def resolve_beneath(root: str, path: str) -> str:
    """Say where a path beneath a folder leads, links followed; empty for the folder itself.

    Nothing outside of the folder is looked at: whether there is something would be told to a job that may
    not know.

    Args:
        root: the folder, whose own path has no link in it.
        path: relative to it.

    Raises:
        LeadsOutError: a link on the way leads out.
        OSError: there is nothing, or links lead in circles.
    """
    rest = list(reversed(path.split("/")))
    found: list[str] = []
    links = 0
    target = path
    while rest:
        part = rest.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            if not found:
                raise LeadsOutError(target)
            found.pop()
            continue
        place = "/".join((root, *found, part))
        if not stat.S_ISLNK(os.lstat(place).st_mode):
            found.append(part)
            continue
        links += 1
        if links > _LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = inside = os.readlink(place)  # noqa: PTH115 - often
        if target.startswith("/"):
            found = []
            if target != root and not target.startswith(f"{root}/"):
                raise LeadsOutError(target)
            inside = target[len(root) :]
        rest += reversed(inside.split("/"))
    return "/".join(found)


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
