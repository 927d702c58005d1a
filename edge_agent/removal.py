"""Removing a folder with whatever a job has made in it.

**Rule.** Everything beneath the folder goes, nothing beyond it is touched, and nothing raises: what
cannot be removed is counted, and the rest is removed around it.

**Why by hand.** `shutil.rmtree` recurses (a tree a thousand folders deep ends it), raises at the
first mount or foreign folder, and goes into a folder that is bind-mounted from elsewhere. Here the
kernel is asked first: `rmdir` says EBUSY of a mount point and ENOTEMPTY of anything else, so a
mount is never gone into; it is detached (`umount2`, MNT_DETACH) where this process may, else left. The
mount id of every folder that is entered is compared all the same. Rights that the job took from
itself (`chmod 000`, `chattr +i`) are given back where this process may.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from edge_agent.long_work import Steps
from edge_agent.tree import Descent, open_plain

_NAMES_AT_ONCE: Final = 1024
_TOLD_MAX: Final = 3
_PATH_SHOWN: Final = 200
_TRIES: Final = 4

_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8
_MOUNTS_STACKED_MAX: Final = 1000

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_LONG: Final = struct.calcsize("l") << 16
_GET_FLAGS: Final = 0x80006601 | _LONG  # FS_IOC_GETFLAGS of linux/fs.h, _IOR('f', 1, long)
_SET_FLAGS: Final = 0x40006602 | _LONG
_FIXED_FLAGS: Final = 0x10 | 0x20  # FS_IMMUTABLE_FL, FS_APPEND_FL


@dataclass(slots=True)
class Leftover:
    """What could not be removed: how many things, and why in the first cases."""

    count: int = 0
    reasons: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class _Folder:
    """A folder on the way down: what is still to be removed of it, and what cannot be."""

    name: str
    names: list[str] = field(default_factory=list[str])
    stuck: set[str] = field(default_factory=set[str])


def remove_tree(path: Path) -> Steps[Leftover]:
    """Remove a folder, or whatever has its name, and say what is left."""
    leftover = Leftover()
    try:
        descent = Descent(path.parent)
    except OSError as error:
        leftover.count += 1
        leftover.reasons.append(f"{path.parent}: {error.strerror}")
        return leftover
    try:
        yield from _Removal(descent, leftover).run(path.name)
    finally:
        descent.close()
    return leftover


def remove_plain(path: str, *, mounts: bool) -> bool:
    """Remove the folder of an attempt in which a job has made nothing; say whether it is gone.

    A few calls by name, none of which removes what has something in it: where one of them fails, `remove_tree` has the
    rest to do.

    Args:
        path: the folder.
        mounts: whether a job may have mounted something there, so that this is looked at.
    """
    try:
        folder = os.open(path, _FOLDER_FLAGS)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if mounts and _mount_of(folder) != _mount_at(os.path.dirname(path)):  # noqa: PTH120 - often
            return False
        with contextlib.suppress(FileNotFoundError):
            work = os.open("work", _FOLDER_FLAGS, dir_fd=folder)
            try:
                if mounts and _mount_of(work) != _mount_of(folder):
                    return False
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir("results", dir_fd=work)
            finally:
                os.close(work)
            os.rmdir("work", dir_fd=folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    os.rmdir(entry.name, dir_fd=folder)
                else:
                    os.unlink(entry.name, dir_fd=folder)
        os.rmdir(path)  # noqa: PTH106 - often
    except OSError:
        return False
    finally:
        os.close(folder)
    return True


def make_movable(path: Path) -> bool:
    """Take away what keeps a folder from being renamed; say whether there was something."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with contextlib.suppress(OSError):
            _allow(path.name, folder)
        detached, thawed = _detach(path.name, folder), _thaw(path.name, folder)
        return detached or thawed or path.is_dir()
    finally:
        os.close(folder)


class _Removal:
    """One removal on its way."""

    def __init__(self, descent: Descent, leftover: Leftover) -> None:
        self._descent = descent
        self._leftover = leftover
        self._mount = _mount_of(descent.descriptor)
        self._trail: list[_Folder] = []

    def run(self, name: str) -> Steps[None]:
        """Remove `name` from the folder in which the descent stands."""
        self._trail.append(_Folder("", [name]))
        while self._trail:
            yield
            folder = self._trail[-1]
            if not folder.names and len(self._trail) > 1:
                folder.names = self._list(folder)
            if folder.names:
                self._take(folder, folder.names.pop())
            elif not self._leave():
                return

    def _take(self, folder: _Folder, name: str) -> None:
        try:
            if not _remove(name, self._descent.descriptor):
                self._enter(name)
        except OSError as error:
            self._stuck(folder, name, error)

    def _enter(self, name: str) -> None:
        with contextlib.suppress(OSError):
            _allow(name, self._descent.descriptor)
        self._descent.enter(name)
        self._trail.append(_Folder(name))
        if _mount_of(self._descent.descriptor) != self._mount:
            self._trail[-1].stuck.add("")
            raise OSError(errno.EBUSY, "it is a mount that could not be detached")

    def _list(self, folder: _Folder) -> list[str]:
        if "" in folder.stuck:
            return []
        try:
            with os.scandir(self._descent.descriptor) as found:
                names = (entry.name for entry in found if entry.name not in folder.stuck)
                return list(islice(names, _NAMES_AT_ONCE))
        except OSError as error:
            self._stuck(folder, "", error)
            return []

    def _leave(self) -> bool:
        """Go back and remove the folder that was left; say whether there is more to do."""
        left = self._trail.pop()
        if not self._trail:
            return False
        folder = self._trail[-1]
        try:
            self._descent.leave()
        except OSError as error:
            self._stuck(left, "", error)
            return False
        try:
            if _remove(left.name, self._descent.descriptor):
                return True
            if not left.stuck:
                raise OSError(errno.ENOTEMPTY, "it is filled while it is emptied")
        except OSError as error:
            self._stuck(folder, left.name, error)
        folder.stuck.add(left.name)
        return True

    def _stuck(self, folder: _Folder, name: str, error: OSError) -> None:
        folder.stuck.add(name)
        self._leftover.count += 1
        if len(self._leftover.reasons) < _TOLD_MAX:
            names = [one.name for one in self._trail if one.name]
            path = "/".join([*names, name])
            shown = path if len(path) <= _PATH_SHOWN else f"…{path[-_PATH_SHOWN:]}"
            self._leftover.reasons.append(f"{shown!r}: {error.strerror}")


def _remove(name: str, folder: int) -> bool:
    """Remove a file or an empty folder; False for a folder that is not empty.

    Raises:
        OSError: it cannot be removed.
    """
    for last in (*[False] * (_TRIES - 1), True):
        try:
            try:
                os.unlink(name, dir_fd=folder)
            except IsADirectoryError:
                os.rmdir(name, dir_fd=folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                return False
            helped = (error.errno == errno.EBUSY and _detach(name, folder)) or (
                error.errno == errno.EPERM and (_thaw(name, folder) | _thaw(".", folder))
            )
            if last or not helped:
                raise
            continue
        return True
    raise AssertionError("the last try returns or raises")


def _allow(name: str, folder: int) -> None:
    """Give ourselves the rights that a folder needs to be emptied."""
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
            # By way of /proc, because chmod itself would go through a link.
            os.chmod(f"/proc/self/fd/{descriptor}", stat.S_IRWXU)  # noqa: PTH101
    finally:
        os.close(descriptor)


def _detach(name: str, folder: int) -> bool:
    """Take what is mounted here away; say whether something was."""
    libc = ctypes.CDLL(None, use_errno=True)
    path = os.fsencode(f"/proc/self/fd/{folder}/{name}")
    for layer in range(_MOUNTS_STACKED_MAX):
        if libc.umount2(path, _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
            return layer > 0
    return True


def _thaw(name: str, folder: int) -> bool:
    """Let a file or folder be changed again (`chattr -i -a`); say whether that did something."""
    try:
        descriptor = (
            os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            if name == "."
            else _open_any(name, folder)
        )
    except OSError:
        return False
    try:
        flags = struct.unpack("i", fcntl.ioctl(descriptor, _GET_FLAGS, struct.pack("i", 0)))[0]
        if not flags & _FIXED_FLAGS:
            return False
        fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("i", flags & ~_FIXED_FLAGS))
    except OSError:
        return False  # a file system without such flags, or a right that we do not have
    finally:
        os.close(descriptor)
    return True


def _open_any(name: str, folder: int) -> int:
    """Open a plain file or a folder."""
    try:
        return open_plain(name, folder)
    except OSError:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=folder)


def _mount_at(path: str) -> str:
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _mount_of(descriptor)
    finally:
        os.close(descriptor)


def _mount_of(descriptor: int) -> str:
    """The mount in which an open folder lies; its device where the system does not say."""
    try:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    found = next((line for line in lines if line.startswith("mnt_id:")), "")
    return found or f"device {os.fstat(descriptor).st_dev}"
