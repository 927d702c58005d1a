"""What a user leaves in places that all users may write to: memory that stays taken, and files that the next one finds.

**Rule.** When the processes of an attempt have ended, everything of its user goes that lies by itself in `SHARED`,
and all System V memory, semaphores and queues of that user, as systemd does it for a user that it made
(`DynamicUser=`, which implies `RemoveIPC=`). Nothing of another user is touched, but what it has put into a folder of
this one.

**Why.** Shared memory outlives its processes: a job that fills `/dev/shm` would take memory from all that come after
it, which no claim of theirs can give back. And the number of the user is another attempt's later, and then so are the
files.

Example: `open("/dev/shm/x", "wb").write(bytes(1 << 30))`, and the attempt ends.
"""

import contextlib
import ctypes
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from edge_agent.removal import remove_tree

SHARED: Final = (Path("/dev/shm"), Path("/dev/mqueue"), Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - others' files
_OTHERS_WRITE: Final = 0o002
_IPC_RMID: Final = 0  # linux/ipc.h
_TABLES: Final = Path("/proc/sysvipc")
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_REMOVE: Final[dict[str, Callable[[int], int]]] = {
    "shm": lambda number: _LIBC.shmctl(number, _IPC_RMID, None),
    "sem": lambda number: _LIBC.semctl(number, 0, _IPC_RMID),
    "msg": lambda number: _LIBC.msgctl(number, _IPC_RMID, None),
}
_NUMBER: Final = {"shm": "shmid", "sem": "semid", "msg": "msqid"}


def remove_left_by(uid: int, shared: Sequence[Path] = SHARED) -> list[str]:
    """Remove what a user that has no process any more has left; return what is left still, for people.

    Args:
        uid: the user.
        shared: folders to which all users may write; others are left alone.

    Raises:
        ValueError: it is root, or the user of this process.
    """
    if uid in {0, os.getuid(), os.geteuid()}:
        raise ValueError(f"what user {uid} has is no job's")
    left: list[str] = []
    for folder in shared:
        for path in _of(uid, folder):
            removal = remove_tree(path)
            try:
                while True:
                    next(removal)
            except StopIteration as end:
                left += end.value.reasons
    for kind, remove in _REMOVE.items():
        left += [
            f"System V {kind} {number}"
            for number in _numbers_of(uid, kind)
            if remove(number) != 0 and number in _numbers_of(uid, kind)
        ]
    return left


def _of(uid: int, folder: Path) -> Iterator[Path]:
    """Yield what of a user lies in a folder of all users."""
    with contextlib.suppress(OSError):
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or not status.st_mode & _OTHERS_WRITE:
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid == uid:
                        yield folder / entry.name


def _numbers_of(uid: int, kind: str) -> list[int]:
    """Return the System V objects of a kind that a user owns or has made (sysvipc(7))."""
    try:
        head, *rows = (_TABLES / kind).read_text("ascii").splitlines()
    except (OSError, ValueError):
        return []
    names = head.split()
    found = (dict(zip(names, row.split(), strict=False)) for row in rows)
    return [int(row[_NUMBER[kind]]) for row in found if str(uid) in {row["uid"], row["cuid"]}]
