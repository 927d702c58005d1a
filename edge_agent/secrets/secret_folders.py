"""Secrets as files, which lie in memory alone: a folder of each attempt on a tmpfs.

**Rule.** A folder is there from just before its program begins until it has ended. It is the agent's, and a job
may pass it but not list or change it; the user of the job alone reads the files (0400). A machine that
goes down takes them along, and one that comes up makes them again from the journal.

**Why not below the state folder.** What was once written to an SD card stays there after its file is gone. A
tmpfs may be swapped out, however: a board that needs more has no swap, or an encrypted one.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from edge_agent.attempt_folder import keeper_id
from shoal.names import AttemptRef

BASES: Final = (Path("/run"), Path("/dev/shm"))  # noqa: S108 - what is made there is checked
"""Where a tmpfs usually is; the first in which the agent may write is taken."""

_PASSED: Final = 0o711
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


class SecretFolderError(OSError):
    """Secrets cannot be handed over as files on this machine; the message says why."""


class SecretFolders:
    """The folders of a node; every method but `holds` works on files, and is called in a thread.

    Args:
        state: the agent's state folder, by which agents of one machine are told apart.
        bases: folders that may be in memory.
        mounts: what is mounted, as in /proc/self/mounts.
    """

    def __init__(
        self,
        state: Path,
        bases: Sequence[Path] = BASES,
        mounts: Path = Path("/proc/self/mounts"),
    ) -> None:
        self._name = (
            f"shoal-secrets-{hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:16]}"
        )
        self._bases = bases
        self._mounts = mounts
        self._there: set[str] = set()
        # The folder above goes with the last of an attempt, and comes with the next one.
        self._lock = threading.Lock()

    def holds(self, ref: AttemptRef) -> bool:
        """Whether an attempt may have a folder; looks at no file."""
        return bool(self._there) and keeper_id(ref) in self._there

    def place(self, ref: AttemptRef, files: Mapping[str, bytes], user: int = -1) -> Path:
        """Make the folder of an attempt with files in it, in place of one that is there, and return it.

        Args:
            ref: which attempt.
            files: their content by their names.
            user: number of the user, and of the group, that may read them; -1 for the agent's own user.

        Raises:
            SecretFolderError: no tmpfs can be had, or something else is where the folders are to be.
            OSError: there is no room for them.
        """
        with self._lock:
            return self._place(ref, files, user)

    def _place(self, ref: AttemptRef, files: Mapping[str, bytes], user: int) -> Path:
        root = self._root()
        root.mkdir(mode=_PASSED, exist_ok=True)
        if not _is_ours(root):
            raise SecretFolderError(
                0, f"{root} was not made by this agent (user {os.geteuid()}): remove it"
            )
        root.chmod(_PASSED)  # whatever the umask is
        folder = root / keeper_id(ref)
        self._there.add(folder.name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        try:
            for name, content in files.items():
                _write(folder / name, content, user)
            folder.chmod(_PASSED)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def remove(self, ref: AttemptRef) -> None:
        """Take the folder of an attempt away, if there is one.

        Raises:
            OSError: it cannot be taken away.
        """
        with self._lock:
            for root in self._roots():
                _remove(root / keeper_id(ref))
                _remove_empty(root)
            self._there.discard(keeper_id(ref))

    def sweep(self, kept: Collection[str]) -> None:
        """Take the folders of all attempts away but of those; `kept` are keeper ids.

        Raises:
            OSError: one cannot be taken away.
        """
        with self._lock:
            for root in self._roots():
                for folder in root.iterdir():
                    if folder.name not in kept:
                        _remove(folder)
                _remove_empty(root)
            self._there = set(kept)

    def _roots(self) -> list[Path]:
        return [root for base in self._bases if _is_ours(root := base / self._name)]

    def _root(self) -> Path:
        kinds: dict[str, str] = {}
        for line in self._mounts.read_text(encoding="utf-8", errors="replace").splitlines():
            _, point, kind, *_ = line.split(" ")
            kinds[point] = kind
        for base in self._bases:
            if kinds.get(str(base)) in _IN_MEMORY and os.access(base, os.W_OK | os.X_OK):
                return base / self._name
        raise SecretFolderError(
            0,
            f"secrets as files lie in memory alone, and none of {', '.join(map(str, self._bases))} is a "
            "tmpfs in which the agent may write: mount one there, or give the secret as a variable",
        )


def _is_ours(root: Path) -> bool:
    """Whether it is a folder of this agent's user: each user may write in /dev/shm."""
    try:
        status = root.lstat()
    except OSError:
        return False
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not others


def _write(path: Path, content: bytes, user: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        if user >= 0:
            os.fchown(descriptor, user, user)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return


def _remove_empty(root: Path) -> None:
    with contextlib.suppress(OSError):
        root.rmdir()
