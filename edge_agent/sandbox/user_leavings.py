"""What attempts leave in places that all users may write to: memory that stays taken, files that the next one finds.

**Rule.** When the processes of an attempt have ended, everything of its user goes that lies by itself in `SHARED`,
and all System V memory, semaphores and queues of that user, as systemd does it for a user that it made
(`DynamicUser=`, which implies `RemoveIPC=`). Nothing of another user is touched, but what it has put into a folder of
this one.

**Why.** Shared memory outlives its processes: a job that fills `/dev/shm` would take memory from all that come after
it, which no claim of theirs can give back. And the number of the user is another attempt's later, and then so are the
files.

**When.** Memory (`/dev/shm` and System V memory) goes at once with each attempt. The rest goes by one walk for many
users (`edge_agent.sandbox.user_pool`): a folder for temporary files may hold thousands, and a walk for each attempt
would cost more than the attempt.

**A folder that has not changed is not listed again.** To give, take or move a name in a folder changes the
folder's time (inode(7), mtime), and no user of jobs can set it back: that takes the folder's owner. The kernel's clock
of files goes in steps of up to 10 ms, so two changes may have one time: a listing counts only if the folder's time lay
behind it by more than `_SETTLED_SECONDS`.

Example: `open("/dev/shm/x", "wb").write(bytes(1 << 30))`, and the attempt ends.
"""

import ctypes
import os
import stat
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.long_work import done_at_once
from edge_agent.removal import remove_tree

MEMORY: Final = Path("/dev/shm")  # noqa: S108 - others' files
SHARED: Final = (MEMORY, Path("/dev/mqueue"), Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - others' files
_OTHERS_WRITE: Final = 0o002
_SETTLED_SECONDS: Final = 0.1
_IPC_RMID: Final = 0  # linux/ipc.h
_SHM_INFO: Final = 14  # linux/shm.h; struct shm_info begins with the number of segments, an int
_INFO: Final = ctypes.create_string_buffer(64)
_SEGMENTS_THERE: Final = ctypes.c_int.from_buffer(_INFO)
_TABLES: Final = Path("/proc/sysvipc")
_TABLE_BYTES: Final = 1 << 16
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_SEGMENTS: Final = "shm"
_REMOVE: Final[Mapping[str, Callable[[int], int]]] = {
    _SEGMENTS: lambda number: _LIBC.shmctl(number, _IPC_RMID, None),
    "sem": lambda number: _LIBC.semctl(number, 0, _IPC_RMID),
    "msg": lambda number: _LIBC.msgctl(number, _IPC_RMID, None),
}
_NUMBER: Final = {_SEGMENTS: "shmid", "sem": "semid", "msg": "msqid"}


class UserLeavings:
    """Removes what users of jobs have left; users have no process any more then. For several threads at once.

    Args:
        users: those whose leavings are looked for.
        wall: seconds since the epoch, by the clock by which the kernel stamps files.
        shared: folders to which all users may write; others are left alone. The first of them holds memory.
    """

    def __init__(
        self,
        users: Container[int],
        wall: Callable[[], float],
        shared: Sequence[Path] = SHARED,
    ) -> None:
        self._folders = [_SharedFolder(path, users, wall) for path in shared]

    def no_memory_of(self, uid: int) -> bool:
        """Say whether it is known that a user has left no memory; False where that takes more than a look."""
        memory = self._folders[0].known(uid) if self._folders else False
        return memory is False and (_no_segments() or not _numbers_of(_SEGMENTS, (uid,)))

    def remove_memory(self, uid: int) -> list[str]:
        """Remove the memory that a user has left; return what is left still, for people.

        Raises:
            ValueError: it is root, or the user of this process.
        """
        _refuse_own((uid,))
        return [*_remove_files(self._folders[:1], (uid,)), *_remove_objects(_SEGMENTS, (uid,))]

    def remove(self, uids: Collection[int]) -> list[str]:
        """Remove everything that users have left; return what is left still, for people.

        Raises:
            ValueError: one is root, or the user of this process.
        """
        _refuse_own(uids)
        left = _remove_files(self._folders, uids)
        for kind in _REMOVE:
            left += _remove_objects(kind, uids)
        return left


@dataclass(frozen=True, slots=True)
class _Listing:
    """What lay in a folder: names by user, and the folder's identity and time before the look."""

    identity: tuple[int, int, int]
    settled: bool
    names: Mapping[int, Sequence[str]]


class _SharedFolder:
    """A folder to which all users may write."""

    def __init__(self, path: Path, users: Container[int], wall: Callable[[], float]) -> None:
        self._path = path
        self._users = users
        self._wall = wall
        self._last: _Listing | None = None

    def of(self, uids: Collection[int]) -> Iterator[Path]:
        """Yield what of these users lies in it."""
        try:
            now = self._wall()
            status = os.lstat(self._path)
            if not stat.S_ISDIR(status.st_mode) or not status.st_mode & _OTHERS_WRITE:
                return
            identity = (status.st_dev, status.st_ino, status.st_mtime_ns)
            last = self._last
            if last is None or not last.settled or last.identity != identity:
                settled = now - status.st_mtime > _SETTLED_SECONDS
                last = self._last = _Listing(identity, settled, self._names())
        except OSError:
            return
        for uid in last.names.keys() & set(uids):
            for name in last.names[uid]:
                yield self._path / name

    def known(self, uid: int) -> bool | None:
        """Whether something of a user lies in it; None where it would have to be listed for that."""
        last = self._last
        if last is None or not last.settled:
            return None
        try:
            status = os.lstat(self._path)
        except OSError:
            return None
        if last.identity != (status.st_dev, status.st_ino, status.st_mtime_ns):
            return None
        return uid in last.names

    def _names(self) -> Mapping[int, Sequence[str]]:
        found: dict[int, list[str]] = {}
        with os.scandir(self._path) as entries:
            for entry in entries:
                try:
                    uid = entry.stat(follow_symlinks=False).st_uid
                except OSError:
                    continue
                if uid in self._users:
                    found.setdefault(uid, []).append(entry.name)
        return found


def _refuse_own(uids: Collection[int]) -> None:
    for uid in uids:
        if uid in {0, os.getuid(), os.geteuid()}:
            raise ValueError(f"what user {uid} has is no job's")


def _remove_files(folders: Sequence[_SharedFolder], uids: Collection[int]) -> list[str]:
    left: list[str] = []
    for folder in folders:
        for path in folder.of(uids):
            left += done_at_once(remove_tree(path)).reasons
    return left


def _remove_objects(kind: str, uids: Collection[int]) -> list[str]:
    """Remove System V objects; return those that stay."""
    remove = _REMOVE[kind]
    stay = [number for number in _numbers_of(kind, uids) if remove(number) != 0]
    if stay:
        there = set(_numbers_of(kind, uids))
        stay = [number for number in stay if number in there]
    return [f"System V {kind} {number}" for number in stay]


def _numbers_of(kind: str, uids: Collection[int]) -> list[int]:
    """Return the System V objects of a kind that one of these users owns or has made (sysvipc(7))."""
    head, *rows = _table(kind) or [b""]
    if not rows:
        return []
    wanted = {b"%d" % uid for uid in uids}
    names = head.decode("ascii", "replace").split()
    found = (dict(zip(names, row.split(), strict=False)) for row in rows)
    return [int(row[_NUMBER[kind]]) for row in found if wanted & {row["uid"], row["cuid"]}]


def _no_segments() -> bool:
    """Whether the kernel says that there is no segment of System V memory at all, as is usual."""
    # Threads that ask at once are told the same.
    return _LIBC.shmctl(0, _SHM_INFO, _INFO) >= 0 and _SEGMENTS_THERE.value == 0


def _table(kind: str) -> list[bytes]:
    """The lines of what the kernel says of all objects of a kind; none where it does not say."""
    try:
        descriptor = os.open(f"{_TABLES}/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    said = b""
    try:
        while chunk := os.read(descriptor, _TABLE_BYTES):
            said += chunk
    except OSError:
        return []
    finally:
        os.close(descriptor)
    return said.splitlines()
