"""The owners and rights in a state folder, where jobs have users of their own.

**Rule.** A job can pass the state folder and the folder of attempts, and look into neither. Beneath them it can
read environments and the SDK, and everything of its own attempt that is its own: its folder, its home, its place
for temporary files, what it prints; it can open the FIFOs of its ports and not replace them. All else is closed:
to other attempts, and what the agent keeps.

**When.** While an attempt is prepared its folder is the agent's alone, so no program can race with what is
laid out, fetched and built. Then everything is given to its user, the job's folder itself last: its owner
says that all of it was given, and it is not gone through again, when a hostile program may be in it. Then the
folder of the attempt is opened for passing. It is closed once the program has ended, with everything of its user.

What the agent reads afterwards it reads as root perhaps: see `edge_agent.tree`.
"""

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

from edge_agent.attempt_folder import AttemptFolder
from edge_agent.long_work import Steps
from edge_agent.tree import Descent, children
from services.archive.artifact_key import LOG_PATHS

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PASS: Final = 0o711
_READ: Final = 0o755
"""Python looks for what it may import, and so reads the folder of the SDK."""
_CLOSED: Final = 0o700
_FILE: Final = 0o600
_OTHERS: Final = 0o077
_OPEN_PARTS: Final = (
    *(("attempts", _PASS), ("builds", _PASS), ("environments", _PASS), ("packages", _PASS)),
    ("sdk", _READ),
)
_CLOSED_PARTS: Final = ("bundles", "inputs", "installer", "kept", "trash")
_OF_USER: Final = (*LOG_PATHS, "home", "tmp", "work/results", "work")
"""What belongs to the user of an attempt, the job's folder last."""
_OF_BUILDS: Final = "namespaces"
"""The folder of packages in which each belongs to a user of builds."""


def open_state(state: Path) -> None:
    """Let jobs pass a state folder that they are not to look into, one of an earlier version included.

    Raises:
        OSError: its rights cannot be set.
    """
    for name in _CLOSED_PARTS:
        (state / name).mkdir(mode=_CLOSED, exist_ok=True)
        _close(state / name)
    for folder in children(state / "packages"):
        if folder.name != _OF_BUILDS:
            _close(folder)
    for folder in children(state / "attempts"):
        # One of before, or of a job without a user of its own; what is in it was kept by the state folder.
        if folder.is_dir() and owner_of(folder) < 0:
            _close(folder)
    for name, mode in _OPEN_PARTS:
        (state / name).mkdir(mode=mode, exist_ok=True)
        (state / name).chmod(mode)
    mode = stat.S_IMODE(state.stat().st_mode)
    # One that others may pass already is shared, such as /tmp, and is used as it is.
    if not mode & 1:
        state.chmod(mode | _PASS)


def close_state(state: Path) -> None:
    """Let no job pass a state folder, since none of them has a user of its own; a shared one stays as it is.

    Raises:
        OSError: its rights cannot be set.
    """
    if stat.S_IMODE(state.stat().st_mode) == _PASS:
        state.chmod(_CLOSED)


def owner_of(attempt: Path) -> int:
    """Return the user that the folder of an attempt was given to; -1 where it is the agent's own."""
    try:
        owner = (attempt / "work").lstat().st_uid
    except OSError:
        return -1
    return -1 if owner == os.geteuid() else owner


def hand_over(folder: AttemptFolder, uid: int) -> Steps[None]:
    """Give an attempt to its user, whose group has the same number, right before its program starts.

    Raises:
        OSError: it cannot be given away, or was given to another user.
    """
    owner = owner_of(folder.path)
    if owner not in {-1, uid}:
        raise PermissionError(0, f"it was given to user {owner} before", str(folder.work))
    here = os.open(folder.path, _FOLDER)
    try:
        for path, mode in ((folder.home, _CLOSED), (folder.tmp, _CLOSED), (folder.ports, _PASS)):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path.name, mode, dir_fd=here)
        for path in (folder.home, folder.tmp):
            os.chown(path.name, uid, uid, dir_fd=here, follow_symlinks=False)
        os.chmod(folder.ports.name, _PASS, dir_fd=here)
        for path in (folder.stdout, folder.stderr):
            _make_file(path.name, here, uid)
        for path in (folder.spool, folder.fetched):
            _close(path.name, here)
        if owner < 0:
            yield from _give(folder.work, uid)
        os.fchmod(here, _PASS)
    finally:
        os.close(here)


def hand_over_fresh(attempt: str, uid: int) -> None:
    """Give an attempt to its user whose folder was just made with all that belongs there, and is closed.

    Raises:
        OSError: it cannot be given away.
    """
    here = os.open(attempt, _FOLDER)
    try:
        give_fresh(here, uid)
        os.fchmod(here, _PASS)
    finally:
        os.close(here)


def give_fresh(folder: int, uid: int) -> None:
    """Give what such a folder holds to a user, which cannot pass the folder itself yet.

    Raises:
        OSError: it cannot be given away.
    """
    for name in LOG_PATHS:
        os.mknod(name, stat.S_IFREG | _FILE, dir_fd=folder)
    for name in _OF_USER:
        os.chown(name, uid, uid, dir_fd=folder, follow_symlinks=False)


def open_attempt(attempt: str) -> None:
    """Let the user of an attempt pass its folder, all of which was given to it.

    Raises:
        OSError: its rights cannot be set.
    """
    os.chmod(attempt, _PASS)  # noqa: PTH101 - often


def make_places(folder: AttemptFolder) -> None:
    """Make what a confined program of the agent's own user has beside its folder.

    Raises:
        OSError: it cannot be made.
    """
    for path in (folder.home, folder.tmp, folder.ports):
        path.mkdir(mode=_CLOSED, exist_ok=True)


def close_attempt(attempt: str) -> None:
    """Let the agent alone into the folder of an attempt whose program has ended."""
    os.chmod(attempt, _CLOSED)  # noqa: PTH101 - often


def _make_file(name: str, folder: int, uid: int) -> None:
    """Make what a program prints to its own, so that it can open /dev/stdout."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, _FILE, dir_fd=folder)
    try:
        os.fchown(descriptor, uid, uid)
        os.fchmod(descriptor, _FILE)
    finally:
        os.close(descriptor)


def _give(work: Path, uid: int) -> Steps[None]:
    """Give a folder with all that is in it, itself last."""
    descent = Descent(work)
    try:
        trail = [_give_entries(descent.descriptor, uid)]
        while trail:
            yield
            if trail[-1]:
                descent.enter(trail[-1].pop())
                trail.append(_give_entries(descent.descriptor, uid))
                continue
            trail.pop()
            if trail:
                descent.leave()
        os.fchown(descent.descriptor, uid, uid)
        os.fchmod(descent.descriptor, _CLOSED)
    finally:
        descent.close()


def _give_entries(descriptor: int, uid: int) -> list[str]:
    """Give what lies in a folder, and return the folders among it."""
    folders: list[str] = []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            os.chown(entry.name, uid, uid, dir_fd=descriptor, follow_symlinks=False)
    return folders


def _close(path: Path | str, folder: int | None = None) -> None:
    """Let others at nothing of what has this name, if there is something."""
    try:
        mode = stat.S_IMODE(os.stat(path, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return
    if mode & _OTHERS:
        os.chmod(path, mode & ~_OTHERS, dir_fd=folder)
