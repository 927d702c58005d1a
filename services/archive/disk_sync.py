"""Brings what a batch has changed to the disk: one by one where it is little, else all at once.

Rule. When `files` returns, the files are on the disk with their content; when `folders` returns, so are the
entries of the folders. Between the two the caller gives the files their names, so that a power cut shows a
name with its whole content or no name.

Why two ways. fsync(2) of a file waits for one commit of the file system and one flush of the disk. For many small
files syncfs(2) waits for one of each, whatever their number; it also waits for whatever others write to that file
system, so a few files are better off without it. It is believed only where it says what went wrong and where
the file system itself does it:

- Linux before 5.8 returns no error of writing from syncfs (man 2 syncfs, "Versions"). Since then it returns
  those since its descriptor was opened, so that is opened before anything is written.
- A file system of another process (FUSE) is not told of it.

Elsewhere each one is synced. Example: 100 manifests of new pipelines are 100 files and 301 folders; on ext4 that
is 401 waits one by one, and two at once.
"""

import ctypes
import os
import platform
from collections.abc import Collection
from types import TracebackType
from typing import Final, Self

ONE_BY_ONE_MAX: Final = 8
"""Of more than these the file system is synced as a whole."""

_SYNCED_WHOLE: Final = frozenset(
    {0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x01021994}  # ext4, XFS, btrfs, F2FS, tmpfs
)
"""What statfs(2) calls the file systems whose syncfs is believed (linux/magic.h)."""

_LINUX_WITH_ERRORS: Final = (5, 8)
_STATFS_WORDS: Final = 64
"""Room for a `struct statfs`, whose first word is the type, in longs; it has about 15."""


class DiskSync:
    """Use it with `with` around all that is written; it blocks.

    Args:
        folder: a folder of the file system on which all of it lies.

    Raises:
        OSError: The folder is not there.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def files(self, descriptors: Collection[int]) -> None:
        """Bring the content of files to the disk.

        Raises:
            OSError: The disk does not take it.
        """
        if len(descriptors) > ONE_BY_ONE_MAX and self._whole():
            return
        for descriptor in descriptors:
            os.fsync(descriptor)

    def folders(self, folders: Collection[str]) -> None:
        """Bring the entries of folders to the disk.

        Raises:
            OSError: The disk does not take them.
        """
        if len(folders) > ONE_BY_ONE_MAX and self._whole():
            return
        for folder in folders:
            sync_folder(folder)

    def _whole(self) -> bool:
        """Sync the file system if that can be believed; False if it has to be done one by one."""
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "syncfs") or _linux() < _LINUX_WITH_ERRORS:
            return False
        words = (ctypes.c_long * _STATFS_WORDS)()
        if libc.fstatfs(self._descriptor, words) != 0 or words[0] not in _SYNCED_WHOLE:
            return False
        if libc.syncfs(self._descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), self._folder)
        return True


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Bring the entries of one folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _linux() -> tuple[int, ...]:
    """The version of the kernel, as far as it is a number; (0,) where it is no Linux."""
    if platform.system() != "Linux":
        return (0,)
    found = platform.release().split("-")[0].split(".")
    return tuple(int(one) for one in found[:2] if one.isdecimal())
