"""Whose the files of a build are: given to its user before it begins, and taken over by the agent at its end.

**Rule.** The agent may have the rights of root, and what a build leaves was written by strangers. So no path of
theirs is followed: folders are entered one by one from a descriptor, never through a link, and each file is changed
by the descriptor of what was looked at. A file is taken over only if it belongs to the user of the build, and so was
made by it: a second name for the file of another user (a hard link) stays what it was, and the build has failed.

**What is taken away.** Set-user-ID and set-group-ID, and writing for others. Everything may be read by all users, as
jobs of many users run from it. A link keeps its owner, which cannot change it in a folder of the agent.

**What still writes.** A process that was given a descriptor (unix(7), SCM_RIGHTS) may write to a file that has
changed its owner. A file that is open for writing cannot get a lease for reading (fcntl(2), F_SETLEASE), so each
file is asked for one. File systems without leases do not answer, and the file counts as closed.

Example: `setup.py` leaves `os.link("/etc/shadow", "environment/lib/data")`. The file is not its user's, so the
environment is thrown away, and /etc/shadow keeps its rights.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from edge_agent.long_work import Steps
from edge_agent.tree import Descent, kind, open_plain

_READABLE: Final = 0o444
_FOLDER_MODE: Final = 0o755
_OTHERS_WRITE: Final = 0o022
_RUN: Final = 0o111
_OWNER_RUNS: Final = 0o100
_ENTRIES_MAX: Final = 1_000_000


class LeftBehindError(Exception):
    """A build left what cannot be taken over."""


def give(root: Path, uid: int, owner: int) -> Steps[bool]:
    """Give a folder and all in it that is of `owner` to a user; its group has the same number.

    Returns False, and leaves the folder itself where it was, if something in it is of another owner.

    Raises:
        OSError: it cannot be read or given.
    """
    group = -1 if uid == os.geteuid() else uid
    for descriptor, name, mode, found in _bottom_up(root):
        yield
        if found != owner and not stat.S_ISLNK(mode):
            return False
        if not name:
            os.fchown(descriptor, uid, group)
        elif stat.S_ISREG(mode):
            _with_plain(descriptor, name, owner, lambda plain: os.fchown(plain, uid, group))
    return True


def take_over(root: Path, owner: int) -> Steps[bool]:
    """Make a folder and all in it the agent's, readable by all users; say whether anything changed.

    Args:
        root: the folder.
        owner: user whose files it may hold beside the agent's.

    Raises:
        LeftBehindError: it holds something else than files, folders and links, what is of another owner, or a file
            that is still open for writing.
        OSError: it cannot be read or taken over.
    """
    owners = {owner, os.geteuid()}
    changed = _shut(root, owners)
    for descriptor, name, mode, found in _bottom_up(root):
        yield
        if found not in owners:
            raise LeftBehindError(f"the build left {name or 'a folder'!r} of user {found}")
        if not name:
            changed |= _settle(descriptor, _FOLDER_MODE)
        elif stat.S_ISREG(mode):
            changed |= _with_plain(descriptor, name, None, lambda plain: _take(plain, owners))
        elif not stat.S_ISLNK(mode):
            raise LeftBehindError(f"the build left the {kind(mode)} {name!r}")
    return changed


def _shut(root: Path, owners: set[int]) -> bool:
    """Let no process in by its name, before it is gone through."""
    descent = Descent(root)
    try:
        if os.fstat(descent.descriptor).st_uid not in owners:
            raise LeftBehindError("the build's folder is not its own any more")
        if os.fstat(descent.descriptor).st_uid == os.geteuid():
            return False
        os.fchown(descent.descriptor, os.geteuid(), os.getegid())
        os.fchmod(descent.descriptor, stat.S_IRWXU)
        return True
    finally:
        descent.close()


def _bottom_up(root: Path) -> Iterator[tuple[int, str, int, int]]:
    """Go through a folder: (descriptor of a folder, name in it, mode, owner), each folder after all in it, nameless."""
    descent = Descent(root)
    trail: list[list[str]] = []
    count = 0
    try:
        trail.append(_names(descent))
        while trail:
            if trail[-1]:
                name = trail[-1].pop()
                count += 1
                if count > _ENTRIES_MAX:
                    raise LeftBehindError(f"the build left more than {_ENTRIES_MAX} files")
                status = os.stat(name, dir_fd=descent.descriptor, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    descent.enter(name)
                    trail.append(_names(descent))
                else:
                    yield descent.descriptor, name, status.st_mode, status.st_uid
                continue
            status = os.fstat(descent.descriptor)
            yield descent.descriptor, "", status.st_mode, status.st_uid
            trail.pop()
            if trail:
                descent.leave()
    finally:
        descent.close()


def _names(descent: Descent) -> list[str]:
    with os.scandir(descent.descriptor) as entries:
        return [entry.name for entry in islice(entries, _ENTRIES_MAX + 1)]


def _with_plain(
    folder: int, name: str, owner: int | None, do: Callable[[int], bool | None]
) -> bool:
    """Open a plain file and do something to it, if it still is its owner's."""
    plain = open_plain(name, folder)
    try:
        if owner is not None and os.fstat(plain).st_uid != owner:
            raise LeftBehindError(f"{name!r} was replaced while it was looked at")
        return bool(do(plain))
    finally:
        os.close(plain)


def _take(plain: int, owners: set[int]) -> bool:
    status = os.fstat(plain)
    if status.st_uid not in owners:
        raise LeftBehindError(f"the build left a file of user {status.st_uid}")
    mode = stat.S_IMODE(status.st_mode)
    run = _RUN if mode & _OWNER_RUNS else 0
    changed = _settle(plain, (mode & 0o777 & ~_OTHERS_WRITE) | _READABLE | run)
    # Only what the agent alone may open by now: breaking a lease is a signal that ends its holder.
    if status.st_uid != os.geteuid() and _is_written(plain):
        raise LeftBehindError("the build left a file that is still open for writing")
    return changed


def _settle(descriptor: int, mode: int) -> bool:
    """Make it the agent's with these rights; say whether that changed anything."""
    status = os.fstat(descriptor)
    if (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), mode):
        return False
    # The owner first: the one before may change the rights no more.
    os.fchown(descriptor, os.geteuid(), os.getegid())
    os.fchmod(descriptor, mode)
    return True


def _is_written(plain: int) -> bool:
    try:
        fcntl.fcntl(plain, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(plain, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
