"""A user namespace for an agent that is an ordinary user: its subordinate users become the users of jobs.

**Rule.** A process that makes a user namespace has all capabilities in it. Inside, the agent's user is 0, and the
subordinate users of /etc/subuid are 1 and up; outside it stays what it was. So what an agent does as root to start a
job as another user works there as it is, and reaches nothing outside that its user and its subordinate users could
not reach.

**Why at the start, and in this process.** A process enters a namespace only while it has one thread, and what it
starts later (keeper, stream worker, jobs) is inside with it. The next agent makes a namespace of its own over the same
users, so it may signal the keeper of this one, and owns its files.

**Why a child.** Only newuidmap and newgidmap (setuid programs) may map users that are not one's own, and they have to
run outside of the namespace that they write the map of. A unit with NoNewPrivileges keeps them from that.

Example: ada is 1000, /etc/subuid says `ada:100000:65536`. Inside, files of ada are root's, the user 1 is 100000
outside, and a job as 1 can neither read what is ada's alone nor signal her processes.

Sources: user_namespaces(7), newuidmap(1), subuid(5); rootless containers do the same.
"""

import ctypes
import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CLONE_NEWUSER: Final = 0x10000000  # linux/sched.h
_SECONDS: Final = 10.0


class RootlessError(OSError):
    """A namespace with subordinate users cannot be had; the message says why."""


@dataclass(frozen=True, slots=True)
class SubordinateIds:
    """Numbers that a user may give to others: `count` of them from `first` on."""

    first: int
    count: int


def subordinate_ids(path: Path, user: str, uid: int) -> SubordinateIds:
    """Return the first range of a user in a file like /etc/subuid.

    Raises:
        RootlessError: the file cannot be read, or has none for the user.
    """
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise RootlessError(f"{path} cannot be read: {error.strerror}") from error
    for line in lines:
        match line.split(":"):
            case [name, first, count] if name in {user, str(uid)}:
                if first.isdecimal() and count.isdecimal() and int(count):
                    return SubordinateIds(int(first), int(count))
            case _:
                continue
    raise RootlessError(
        f"{path} has no subordinate users for {user}: an administrator gives them with "
        f"`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}`"
    )


def enter_namespace() -> int:
    """Make a namespace in which this process is root; return how many users jobs can have there, from 1 on.

    Raises:
        RootlessError: the user has no subordinate users, newuidmap is missing or may not gain rights, or the
            kernel gives no namespace. Ask `why_not` before: where mapping fails, this process has no user any more.
    """
    uid, gid = os.getuid(), os.getgid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        raise RootlessError(f"the user {uid} has no name, so it has no subordinate users") from None
    users = subordinate_ids(Path("/etc/subuid"), user, uid)
    groups = subordinate_ids(Path("/etc/subgid"), user, uid)
    own = os.getpid()
    maps = (
        ("newuidmap", str(own), "0", str(uid), "1", "1", str(users.first), str(users.count)),
        ("newgidmap", str(own), "0", str(gid), "1", "1", str(groups.first), str(groups.count)),
    )
    go, ready = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(_map(go, ready, maps))
    os.close(go)
    libc = ctypes.CDLL(None, use_errno=True)
    refused = libc.unshare(_CLONE_NEWUSER)
    number = ctypes.get_errno()
    if refused:
        os.close(ready)
        os.waitpid(child, 0)
        raise RootlessError(f"the kernel gives this user no user namespace: {os.strerror(number)}")
    os.write(ready, b"1")
    os.close(ready)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise RootlessError(
            f"{maps[status - 1][0] if status <= len(maps) else 'newuidmap'} cannot map subordinate users: it is "
            "missing (package uidmap), or may not gain rights (NoNewPrivileges); start the agent again with "
            "`--sandbox confined` or `none`"
        )
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    return min(users.count, groups.count)


def why_not() -> str:
    """Try it in a child, and return why a namespace cannot be had; empty if it can."""
    said, say = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(said)
        words = b""
        try:
            enter_namespace()
        except RootlessError as error:
            words = str(error).encode()
        except Exception as error:  # noqa: BLE001 - the child of a try tells all and ends
            words = repr(error).encode()
        os.write(say, words)
        os._exit(0)
    os.close(say)
    with os.fdopen(said, "rb") as words_of_child:
        words = words_of_child.read()
    os.waitpid(child, 0)
    return words.decode("utf-8", "replace")


def _map(go: int, ready: int, maps: tuple[tuple[str, ...], ...]) -> int:
    """In the child, outside of the namespace: map once it is there; return which program failed, from 1 on."""
    os.close(ready)
    if os.read(go, 1) != b"1":
        return 0
    for place, words in enumerate(maps, 1):
        try:
            done = subprocess.run(words, check=False, timeout=_SECONDS, capture_output=True)
        except (OSError, subprocess.SubprocessError):
            return place
        if done.returncode:
            return place
    return 0
