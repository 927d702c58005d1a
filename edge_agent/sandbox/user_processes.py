"""The processes of users, which at a level with a user per attempt are those of one attempt each.

A process leaves its group, its session and its parent as it likes, and it cannot leave its user: it has no
capability and gains none. So what runs as that user is what is left of the attempt, whatever it did.

Whether there is any is asked first: the kernel counts a user's processes for itself, and says in one system call, of
a microsecond, that there are none. Only where there is one are all processes of the machine gone through, which takes
some milliseconds, for however many users.

Source: getpriority(2); `find_user` and PRIO_USER in kernel/sys.c of Linux, which look at real users, and at zombies.
"""

import contextlib
import os
import signal
from collections.abc import Collection, Mapping
from typing import Final

_ROUNDS: Final = 100
"""How often what is there is killed: a process that forks as fast as it can is bound by its limits."""
_STATUS_BYTES: Final = 4096


def has_processes(uid: int) -> bool:
    """Say whether a process has this real user; one that has ended counts until its parent has seen it.

    What may gain no rights (`SandboxPlan.no_new_privileges`) and has a user has it in all four places (proc(5), `Uid`),
    and so has all that it starts: without one by its real user nothing of it is left.
    """
    try:
        os.getpriority(os.PRIO_USER, uid)
    except ProcessLookupError:
        return False
    return True


def processes_of(uid: int) -> list[int]:
    """Return the processes that run as a user, or could become it again; zombies are none."""
    return list(processes_of_users((uid,)).get(uid, ()))


def processes_of_users(uids: Collection[int]) -> Mapping[int, list[int]]:
    """Return the processes of each of these users that has some, by one look at all that run; zombies are none."""
    wanted = {b"%d" % uid: uid for uid in uids}
    with os.scandir("/proc") as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdecimal()]
    found: dict[int, list[int]] = {}
    for pid in pids:
        for word in _users_of(pid) & wanted.keys():
            found.setdefault(wanted[word], []).append(pid)
    return found


def end_processes_of(uid: int) -> list[int]:
    """Kill every process of a user, and return those that are still there; none of another user is hit.

    Raises:
        ValueError: it is root, or the user of this process.
    """
    return list(end_processes_of_users((uid,)).get(uid, ()))


def end_processes_of_users(uids: Collection[int]) -> Mapping[int, list[int]]:
    """Kill every process of these users, and return those that are still there; none of another user is hit.

    Raises:
        ValueError: one is root, or the user of this process.
    """
    for uid in uids:
        if uid in {0, os.getuid(), os.geteuid()}:
            raise ValueError(f"the processes of user {uid} are no job's")
    for _ in range(_ROUNDS):
        some = [uid for uid in uids if has_processes(uid)]
        if not some or not (found := processes_of_users(some)):
            return {}
        for uid, pids in found.items():
            for pid in pids:
                _end(pid, uid)
    return processes_of_users(uids)


def _end(pid: int, uid: int) -> None:
    with contextlib.suppress(OSError):
        if not hasattr(os, "pidfd_open"):
            os.kill(pid, signal.SIGKILL)
            return
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            os.kill(
                pid, signal.SIGKILL
            )  # a kernel before 5.3; or it has gone, and this says so, too
            return
        try:
            # Looked at again: the number may be another process's by now, and then the descriptor is, too.
            if b"%d" % uid in _users_of(pid):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def _users_of(pid: int) -> frozenset[bytes]:
    """The four users of a live process as the kernel writes them (proc(5), `Uid`); none of one that is gone."""
    try:
        descriptor = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return frozenset()
    try:
        said = os.read(descriptor, _STATUS_BYTES)
    except OSError:
        return frozenset()
    finally:
        os.close(descriptor)
    if _field(said, b"State")[:1] in {b"Z", b"X"}:
        return frozenset()
    return frozenset(_field(said, b"Uid").split())


def _field(said: bytes, name: bytes) -> bytes:
    """Return a line of `status`; the name of a program, which stands before all of them, has no line breaks."""
    _, _, after = said.partition(b"\n" + name + b":")
    return after.partition(b"\n")[0].strip()
