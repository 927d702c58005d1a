"""A child of this process that leads a group of its own: how it begins by posix_spawn(3), and how its end is seen.

Rule 1. It leads a session and a process group, blocks no signal, and handles none: each that is not ignored on purpose
is reset, one call of the kernel for each, where glibc would ask for its handler first.

Rule 2. An end is looked at before the child is reaped. While it is a zombie, no other process can have its number, so
a signal to its group hits nothing else; and what this process does not live to tell, its parent still sees.

Source: posix_spawn(3), waitid(2); `__spawni_child` of glibc.
"""

import functools
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from edge_agent.keeper.execution import DEFAULT_SIGNALS

_NOT_SET: Final = frozenset({signal.SIGKILL, signal.SIGSTOP})
_LOOK: Final = os.WEXITED | os.WNOHANG | os.WNOWAIT

FileAction = tuple[int, int, int] | tuple[int, int, str, int, int]
"""What is done with its descriptors: `os.POSIX_SPAWN_DUP2` or `os.POSIX_SPAWN_OPEN`, and what they need."""


class ChildEnd(NamedTuple):
    """How a child ended: `status` is its exit code if it `exited`, and the signal that ended it if not."""

    pid: int
    exited: bool
    status: int


def begin(argv: Sequence[str], env: Mapping[str, str], files: Sequence[FileAction]) -> int:
    """Start a program by its absolute path, in the folder of this process; return its process id.

    Raises:
        OSError: the program cannot be had, or no process.
        ValueError: a word or variable cannot be passed.
    """
    return os.posix_spawn(
        argv[0],
        argv if isinstance(argv, list) else list(argv),
        env,
        file_actions=files,
        setsid=True,
        setsigmask=(),
        setsigdef=_reset(),
    )


def next_end() -> ChildEnd | None:
    """Look at a child that has ended and is not reaped; None where none has."""
    try:
        found = os.waitid(os.P_ALL, 0, _LOOK)
    except ChildProcessError:
        return None
    if found is None:
        return None
    return ChildEnd(found.si_pid, found.si_code == os.CLD_EXITED, found.si_status)


def signal_group(leader: int, number: int) -> bool:
    """Send a signal to the group of a child that is not reaped yet; returns whether the kernel took it."""
    try:
        os.killpg(leader, number)
    except OSError:
        return False
    return True


def reap(pid: int) -> None:
    """Let go of a child that has ended: its number may be another's from now on."""
    os.waitpid(pid, 0)


@functools.cache
def _reset() -> Sequence[int]:
    """The signals that a program gets as they are by nature: none that this process was told to ignore (nohup(1))."""
    ours = signal.valid_signals() - _NOT_SET
    return tuple(
        number
        for number in ours
        if number in DEFAULT_SIGNALS or signal.getsignal(number) is not signal.SIG_IGN
    )
