"""The hand of a starter: a thread that becomes a job's user to start its program, and becomes root again.

Theory. Users, groups and Landlock belong to a thread (credentials(7)), and what a thread starts inherits its own. A new
thread for each program costs as much as all that it does there, so a hand serves one program after the other. Two
things of a program stay with it:

1. **The scope of Landlock**, which cannot be left. The next one lies within it: what is within a scope is reached from
   all of it, and reaches nothing outside. So a hand with scopes is free again once nothing of its last program is left:
   no process has its user, whose processes no program that can gain no rights can leave. A kernel takes 16 of them, one
   within the other; a hand is spent after `_SCOPES_MAX`.
2. **What the program may have done to it.** From the program's first instruction until the hand is root again, some
   microseconds, it is a thread of the program's user, which may change its priority, its policy, its processors, and
   the priority of its input and output. So a hand looks at these afterwards, and one that was changed is spent.

Rule. The first thread makes all hands, and is none: what a new thread inherits is as the starter was sealed.

Sources: credentials(7), landlock(7) "Inheritance" and "Current limitations", sched_getattr(2), ioprio_get(2).
"""

import _thread
import contextlib
import ctypes
import os
import platform
import signal
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Final

from edge_agent.keeper import child
from edge_agent.keeper.execution import open_plain
from edge_agent.keeper.starter_words import Order
from edge_agent.sandbox import landlock
from edge_agent.sandbox.user_processes import has_processes

NO_GROUP: Final = -1

_SCOPES_MAX: Final = 8
_CALLS: Final = {
    "x86_64": (117, 119, 315, 204, 252),
    "aarch64": (147, 149, 275, 123, 31),
}
"""setresuid, setresgid, sched_getattr, sched_getaffinity and ioprio_get of asm/unistd_64.h and asm-generic/unistd.h:
users and groups of the C library are for all threads, and the rest is looked at as the kernel writes it."""
_ATTRIBUTES: Final = 56
_PROCESSORS: Final = 512
_OF_PROCESS: Final = 1  # IOPRIO_WHO_PROCESS, which is of a thread

_NO_CALLS: Final = (-1,) * 5
_SETRESUID, _SETRESGID, _GETATTR, _GETAFFINITY, _GETIOPRIO = _CALLS.get(
    platform.machine(), _NO_CALLS
)
_LIBC: Final = ctypes.PyDLL(None, use_errno=True)
_SYSCALL: Final = _LIBC.syscall
_SYSCALL.restype = ctypes.c_long
_SYSCALL.argtypes = [ctypes.c_long] * 5


def known_machine() -> bool:
    """Whether the numbers of its system calls are known here."""
    return platform.machine() in _CALLS


@dataclass(slots=True)
class HandOutcome:
    """What came of an order: the program, or why there is none.

    `group` is the place of the control group that could not be joined, if that is why.
    """

    pid: int = 0
    error: BaseException | None = None
    group: int = NO_GROUP


@dataclass(slots=True)
class HandSeal:
    """What the hands of a starter have in common.

    Attributes:
        homes: files by which they come back into the starter's own control groups, in the order of programs' groups.
        scopes: rules of Landlock that each program enters, -1 for none.
        nothing: what a program without an input has for one.
    """

    homes: list[int] = field(default_factory=list[int])
    scopes: int = -1
    nothing: int = -1


class Hand:
    """One thread of a starter.

    `turn` is what it waits on while another one is on duty, and `task` what it is to do first once it is.
    """

    def __init__(self, seal: HandSeal) -> None:
        self.turn = _thread.allocate_lock()
        self.turn.acquire()
        self.task: tuple[Order, Sequence[int], Sequence[int]] | None = None
        self._seal = seal
        self._scoped = 0
        self._changed = False
        self._last = 0, -1
        self._attributes = ctypes.create_string_buffer(_ATTRIBUTES)
        self._processors = ctypes.create_string_buffer(_PROCESSORS)
        self._manner: tuple[bytes, bytes, int] | None = None

    @property
    def spent(self) -> bool:
        """Whether it starts no further program."""
        return self._changed or self._scoped >= _SCOPES_MAX

    def free(self, running: Container[int]) -> bool:
        """Whether it may start a program now; `running` are the programs that have not ended yet."""
        if self.spent or not self._scoped:
            return not self.spent
        pid, uid = self._last
        return pid not in running and not has_processes(uid)

    def start(self, order: Order, groups: Sequence[int], descriptors: Sequence[int]) -> HandOutcome:
        """Start a program; only in this hand's own thread.

        Args:
            order: what is started.
            groups: files of the control groups that it joins.
            descriptors: what it gets, in the order of the order's numbers.

        Raises:
            OSError: this thread is not root any more, or is in a group of the program.
        """
        outcome = HandOutcome()
        self._last = 0, order.uid
        if self._manner is None:
            self._manner = self._look()
        try:
            self._become(order, groups, outcome)
            outcome.pid = self._spawn(order, descriptors)
        except BaseException as error:  # noqa: BLE001 - said to the keeper
            outcome.error = error
        self._last = outcome.pid, order.uid
        self._back()
        self._changed = self._look() != self._manner
        return outcome

    def _become(self, order: Order, groups: Sequence[int], outcome: HandOutcome) -> None:
        for place, group in enumerate(groups):
            outcome.group = place
            os.write(group, b"0")
        outcome.group = NO_GROUP
        if self._seal.scopes >= 0:
            landlock.enter(self._seal.scopes)
            self._scoped += 1
        _be_group(order.gid)
        _be_user(order.uid)

    def _spawn(self, order: Order, descriptors: Sequence[int]) -> int:
        os.chdir(order.cwd)
        read = open_plain(order.stdin, os.O_RDONLY) if order.stdin else self._seal.nothing
        pairs = [(read, 0), *zip(descriptors, order.numbers, strict=True)]
        files = [(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in pairs]
        try:
            return child.begin(order.argv, order.env, files)
        finally:
            if order.stdin:
                os.close(read)

    def _back(self) -> None:
        """Be root again and leave the groups: it would count as one of the user's processes."""
        _be_user(0)
        _be_group(0)
        for home in self._seal.homes:
            os.write(home, b"0")

    def _look(self) -> tuple[bytes, bytes, int]:
        """What a program might have changed of this thread."""
        _SYSCALL(_GETATTR, 0, ctypes.addressof(self._attributes), _ATTRIBUTES, 0)
        _SYSCALL(_GETAFFINITY, 0, _PROCESSORS, ctypes.addressof(self._processors), 0)
        priority = _SYSCALL(_GETIOPRIO, _OF_PROCESS, 0, 0, 0)
        return self._attributes.raw, self._processors.raw, int(priority)


def end_user(uid: int) -> None:
    """Kill all that a user runs, as that user; for a thread that does nothing else any more."""
    try:
        _be_user(uid)
        if os.getresuid() == (uid, uid, 0):
            os.kill(-1, signal.SIGKILL)
    except OSError:
        pass  # there is none
    finally:
        with contextlib.suppress(OSError):
            _be_user(0)


def _be_user(uid: int) -> None:
    """Give this thread a user, and root as the saved one, to come back by."""
    _call(_SETRESUID, uid)


def _be_group(gid: int) -> None:
    _call(_SETRESGID, gid)


def _call(number: int, one: int) -> None:
    if _SYSCALL(number, one, one, 0, 0) != 0:
        why = ctypes.get_errno()
        raise OSError(why, f"cannot become {one}: {os.strerror(why)}")
