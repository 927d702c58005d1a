"""Folders of attempts that are over, for attempts to come: their directories are made once and used again.

**Rule.** Only a folder that is as it was when its program began is used again: the same directories, by their inodes,
with the same rights and without attributes of their own, and nothing in them. Every other one is removed. What a
program prints to is never used again, since another process may still have it open.

**Why.** To make and to remove the directories of one attempt costs more than everything else that is done for it, and
where many inodes were removed shortly before (ext4 does not use those again for some seconds, and looks at each of
them) it costs ten times that.

**What a job could keep.** A descriptor of a directory. It opens nothing beneath it any more where the next attempt
belongs to another user, since that one's directories are closed to others; at level `none` all jobs are one user.

Example: `true` leaves `work/results` empty. Its outputs are removed and its folder is renamed to `spare/7`; the next
attempt has it renamed to its own name.
"""

import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.environments.used import used_environment
from services.archive.artifact_key import LOG_PATHS
from shoal.sandbox import SandboxLevel

_MOST: Final = 64
"""How many are kept of each level at most."""
_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WORK: Final = "work"
_RESULTS: Final = "work/results"
_LINK: Final = "environment"
_OWN_PLACES: Final = ("home", "ports", "tmp")

_Identity = tuple[int, int, int]
"""Device, inode and rights of a directory."""


@dataclass(frozen=True, slots=True)
class MadeFolder:
    """What the folder of an attempt was as its program began: its directories, and the environment that it names."""

    directories: Mapping[str, _Identity]
    environment: str


def made_folder(path: str, level: SandboxLevel, environment: str) -> MadeFolder:
    """Look at the folder of an attempt right before its program begins.

    Raises:
        OSError: a directory of it is not there.
    """
    names = [_WORK, _RESULTS]
    if level is not SandboxLevel.NONE:
        names += _OWN_PLACES
    return MadeFolder(
        {name: _identity(os.lstat(f"{path}/{name}")) for name in names},
        environment,
    )


class SpareFolders:
    """The spare folders of a node, by level. It works on files: call it on the thread for short work.

    Args:
        folder: where they are, on the file system of the attempts and closed to all users but the agent.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._spares: dict[SandboxLevel, list[tuple[str, str]]] = {}
        self._made = 0

    def left(self) -> Sequence[Path]:
        """Return what an earlier agent left here, which is used for nothing."""
        with self._lock, contextlib.suppress(FileNotFoundError):
            mine = {path for spares in self._spares.values() for path, _ in spares}
            return [path for path in self._folder.iterdir() if str(path) not in mine]
        return []

    def take(self, path: str, level: SandboxLevel, environment: str) -> bool:
        """Make the folder of an attempt of a spare one; say whether there was one.

        It says that it uses `environment`.

        Raises:
            FileExistsError: something else has its name.
            OSError: it cannot be made.
        """
        with self._lock:
            spares = self._spares.get(level)
            if not spares:
                return False
            spare, uses = spares.pop()
        if os.path.lexists(path):
            self._keep(level, spare, uses)
            raise FileExistsError(path)
        try:
            if uses != environment:
                os.unlink(f"{spare}/{_LINK}")  # noqa: PTH108 - often, as what follows
                os.symlink(environment, f"{spare}/{_LINK}")  # noqa: PTH211
            os.rename(spare, path)  # noqa: PTH104
        except FileNotFoundError:
            return False  # the spare one is gone, or there is no folder of attempts yet
        return True

    def put(self, path: str, level: SandboxLevel, made: MadeFolder) -> bool:
        """Take the folder of an attempt that is over; say whether it is one to be used again, or stays where it is.

        No process of the attempt runs any more.
        """
        with self._lock:
            if len(self._spares.setdefault(level, [])) >= _MOST:
                return False
            self._made += 1
            number = self._made
        spare = f"{self._folder}/{os.getpid()}-{number}"
        try:
            if not _is_pristine(path, made):
                return False
            for name in LOG_PATHS:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{path}/{name}")  # noqa: PTH108 - often, as what follows
            try:
                os.rename(path, spare)  # noqa: PTH104
            except FileNotFoundError:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                os.rename(path, spare)  # noqa: PTH104
        except OSError:
            return False
        self._keep(level, spare, made.environment)
        return True

    def _keep(self, level: SandboxLevel, spare: str, environment: str) -> None:
        with self._lock:
            self._spares.setdefault(level, []).append((spare, environment))


def _is_pristine(path: str, made: MadeFolder) -> bool:
    """Whether a folder is as it was; what belongs to a user of jobs is taken back from it then."""
    folder = os.open(path, _FLAGS)
    opened = [folder]
    try:
        expected = {name for name in made.directories if "/" not in name} | {_LINK, *LOG_PATHS}
        if not expected.issuperset(os.listdir(folder)):  # noqa: PTH208 - a descriptor
            return False
        for name, identity in made.directories.items():
            parent, _, last = name.rpartition("/")
            # The job's folder is the first of them.
            here = os.open(last, _FLAGS, dir_fd=opened[1] if parent else folder)
            opened.append(here)
            inside = ["results"] if name == _WORK else []
            if _identity(os.fstat(here)) != identity or os.listdir(here) != inside:  # noqa: PTH208
                return False
            if _has_attributes(here):
                return False
        ours, group = os.geteuid(), os.getegid()
        for here in opened[1:]:
            if os.fstat(here).st_uid != ours:
                os.fchown(here, ours, group)
    finally:
        for here in opened:
            os.close(here)
    return _names(path, made.environment)


def _names(path: str, environment: str) -> bool:
    found = used_environment(Path(path))
    return found is not None and str(found) == environment


def _has_attributes(descriptor: int) -> bool:
    """Whether a job has given a directory attributes or an access list; those of the system's policy are no job's."""
    try:
        return any(not name.startswith("security.") for name in os.listxattr(descriptor))
    except OSError:
        return False  # a file system without attributes


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_mode
