"""The folders of attempts that need nothing else: made at once, or of attempts that are over, to be used again.

**Rule.** Only a folder that is as it was when its program began is used again: the same directories, by their inodes,
with the same rights and without attributes of their own, and nothing in them. Every other one is removed. What a
program prints to is never used again, since another process may still have it open.

**Why.** To make and to remove the directories of one attempt costs more than everything else that is done for it, and
where many inodes were removed shortly before (ext4 does not use those again for some seconds, and looks at each of
them) it costs ten times that.

**What is looked at.** A directory whose times prove that nothing was changed in it (`edge_agent.directory_times`) is
looked at no further; of any other one all is looked at. Where the attempt had a user of its own, that user has no
process any more, or the folder is not used again: so nothing changes while it is looked at. The folder itself and
`ports` are the agent's, so only what lies in the directories of the user can be another. At level `none` a job may have
changed all of it.

**Given ahead.** A spare folder of a level with users is given to the user of the attempt that is to come, if one can be
spared: nothing runs as that user, so nothing changes there, and the attempt has its folder by renaming it. Else it is
the agent's again until it is given.

**What a job could keep.** A descriptor of a directory. It opens nothing beneath it any more where the next attempt
belongs to another user, since that one's directories are closed to others; at level `none` all jobs are one user.

Example: `true` leaves `work/results` empty. Its outputs are removed and its folder is renamed to `spare/7`; the next
attempt has it renamed to its own name.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edge_agent.directory_times import DirectoryTimes, directory_times
from edge_agent.sandbox.job_folders import give_fresh
from edge_agent.sandbox.user_processes import has_processes
from services.archive.artifact_key import LOG_PATHS
from shoal.sandbox import SandboxLevel

_MOST: Final = 64
"""How many are kept of each level at most."""
_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CLOSED: Final = 0o700
_PASS: Final = 0o711
_LINK: Final = "environment"
JOB_PLACES: Final = ("work", "work/results")
"""The job's folder, and that of its results."""
USER_PLACES: Final = (*JOB_PLACES, "home", "tmp")
"""The directories that belong to the user of an attempt."""
_OWN_PLACES: Final = ("home", "tmp", "ports")
_ALL: Final = (*JOB_PLACES, *_OWN_PLACES)
_TOP: Final = frozenset({_LINK, *LOG_PATHS})
_NOTHING: Final[list[str]] = []
_INSIDE: Final = {"work": ["results"]}
"""What lies in a directory."""
_THERE: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})
"""What rename(2) says of a name that something else has."""

_Identity = tuple[int, int, int]
"""Device, inode and rights of a directory."""


@dataclass(frozen=True, slots=True)
class MadeFolder:
    """What the folder of an attempt was as its program began: its directories, and the environment that it names.

    Its `user` is the one to which it was given ahead, -1 for none; what was seen of it then are its `times`.
    """

    directories: Mapping[str, _Identity]
    environment: str
    user: int = -1
    times: DirectoryTimes | None = None


def made_folder(path: str, level: SandboxLevel, environment: str) -> MadeFolder:
    """Look at the folder of an attempt before its program begins.

    Raises:
        OSError: a directory of it is not there.
    """
    names = JOB_PLACES if level is SandboxLevel.NONE else _ALL
    return MadeFolder({name: _identity(os.lstat(f"{path}/{name}")) for name in names}, environment)


class SpareFolders:
    """The spare folders of a node, by level. It works on files: call it on the thread for short work.

    Args:
        folder: where they are, on the file system of the attempts and closed to all users but the agent.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = f"{folder}/{os.getpid()}-"
        self._lock = threading.Lock()
        self._spares: dict[SandboxLevel, list[tuple[str, MadeFolder]]] = {}
        self._made = 0

    def left(self) -> Sequence[Path]:
        """Return what an earlier agent left here, which is used for nothing."""
        with self._lock, contextlib.suppress(FileNotFoundError):
            mine = {path for spares in self._spares.values() for path, _ in spares}
            return [path for path in self._folder.iterdir() if str(path) not in mine]
        return []

    def take(self, path: str, level: SandboxLevel, environment: str) -> MadeFolder:
        """Make the folder of an attempt, of a spare one if there is one; it is closed.

        It says that it uses `environment`. All of it is the agent's, unless it was given to a user ahead.

        Raises:
            FileExistsError: something else has its name.
            OSError: it cannot be made.
        """
        with self._lock:
            spares = self._spares.get(level)
            spare, made = spares.pop() if spares else ("", None)
        if made is not None:
            try:
                if made.environment != environment:
                    os.unlink(f"{spare}/{_LINK}")  # noqa: PTH108 - often, as what follows
                    os.symlink(environment, f"{spare}/{_LINK}")  # noqa: PTH211
                    made = replace(made, environment=environment)
                # It replaces nothing but an empty folder.
                os.rename(spare, path)  # noqa: PTH104
            except FileNotFoundError:
                pass  # the spare one is gone, or there is no folder of attempts yet
            except OSError as error:
                self._keep(level, spare, made)
                if error.errno in _THERE:
                    raise FileExistsError(path) from error
                raise
            else:
                return made
        return _make(path, level, environment)

    def put(
        self,
        path: str,
        level: SandboxLevel,
        made: MadeFolder,
        user: int = -1,
        empty: Sequence[str] = (),
        times: DirectoryTimes | None = None,
        following: int = -1,
    ) -> bool:
        """Take the folder of an attempt that is over; say whether it is one to be used again, or stays where it is.

        Args:
            path: the folder.
            level: at which its program ran.
            made: what it was before.
            user: as which it ran; -1 for the agent's own.
            empty: directories in which nothing was when its user had no process any more, so that nothing came since;
                none where that was not looked at.
            times: what was seen of its directories before its program began, if the same now is a proof.
            following: the user of an attempt to come, to which it is given; -1 for none.
        """
        with self._lock:
            if len(self._spares.setdefault(level, [])) >= _MOST:
                return False
            self._made += 1
            spare = f"{self._prefix}{self._made}"
        try:
            if not _is_pristine(path, made, user, empty, times, following):
                return False
            seen = None if following < 0 else directory_times(path, USER_PLACES)
            try:
                os.rename(path, spare)  # noqa: PTH104 - often
            except FileNotFoundError:
                self._folder.mkdir(mode=_CLOSED, exist_ok=True)
                os.rename(path, spare)  # noqa: PTH104
        except OSError:
            return False
        self._keep(level, spare, replace(made, user=following, times=seen))
        return True

    def _keep(self, level: SandboxLevel, spare: str, made: MadeFolder) -> None:
        with self._lock:
            self._spares.setdefault(level, []).append((spare, made))


def _make(path: str, level: SandboxLevel, environment: str) -> MadeFolder:
    """Make the folder of an attempt, which is the agent's alone until its program starts.

    Raises:
        FileExistsError: it is there.
        OSError: it cannot be made.
    """
    make_closed(path)
    for name in JOB_PLACES:
        os.mkdir(f"{path}/{name}")  # noqa: PTH102 - often, as what follows
    if level is not SandboxLevel.NONE:
        os.chmod(f"{path}/work", _CLOSED)  # noqa: PTH101
        for name in _OWN_PLACES:
            os.mkdir(f"{path}/{name}", _CLOSED)  # noqa: PTH102
        os.chmod(f"{path}/ports", _PASS)  # noqa: PTH101
    os.symlink(environment, f"{path}/{_LINK}")  # noqa: PTH211
    return made_folder(path, level, environment)


def make_closed(path: str) -> None:
    """Make a folder that is the agent's alone, and the one above it if it is missing.

    Raises:
        FileExistsError: it is there.
        OSError: it cannot be made.
    """
    try:
        os.mkdir(path, _CLOSED)  # noqa: PTH102 - often
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        os.mkdir(path, _CLOSED)  # noqa: PTH102


def _is_pristine(
    path: str,
    made: MadeFolder,
    user: int,
    empty: Sequence[str],
    times: DirectoryTimes | None,
    following: int,
) -> bool:
    """Whether a folder is as it was; what its program printed to goes then, and what is its user's is another one's.

    Raises:
        OSError: something is not there, or cannot be looked at.
    """
    if user >= 0 and not empty and has_processes(user):
        return False
    folder = os.open(path, _FLAGS)
    try:
        names = USER_PLACES if user >= 0 else tuple(made.directories)
        if user < 0:
            there = set(os.listdir(folder))  # noqa: PTH208 - a descriptor
            there -= _TOP
            if not there.issubset(names) or os.readlink(_LINK, dir_fd=folder) != made.environment:
                return False
        for name in names:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if times is not None and times.is_same(name, found):
                continue
            if _identity(found) != made.directories[name]:
                return False
            place = f"{path}/{name}"
            inside = _INSIDE.get(name, _NOTHING)
            if name not in empty and os.listdir(place) != inside:  # noqa: PTH208 - often
                return False
            if _has_attributes(place):
                return False
        for name in LOG_PATHS:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
        if following >= 0:
            give_fresh(folder, following)
        elif user >= 0:
            _take_back(folder)
    finally:
        os.close(folder)
    return True


def take_back(path: str) -> None:
    """Make what was given to a user ahead the agent's again.

    Raises:
        OSError: it cannot be had.
    """
    folder = os.open(path, _FLAGS)
    try:
        _take_back(folder)
    finally:
        os.close(folder)


def _take_back(folder: int) -> None:
    ours, group = os.geteuid(), os.getegid()
    for name in USER_PLACES:
        os.chown(name, ours, group, dir_fd=folder, follow_symlinks=False)


def _has_attributes(path: str) -> bool:
    """Whether a job has given a directory attributes or an access list; those of the system's policy are no job's."""
    try:
        found = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return False  # a file system without attributes
    return bool(found) and any(not name.startswith("security.") for name in found)


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_mode
