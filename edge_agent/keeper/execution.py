"""One program that is about to be started, with everything open that it gets."""

import contextlib
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.keeper import strays

# The interpreter ignores some of these, and a child would inherit that: `yes | head` would never end.
_DEFAULT_SIGNALS: Final = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGXFSZ)


@dataclass(frozen=True, slots=True)
class Execution:
    """What is executed.

    `descriptors` are (ours, the program's number), in the order in which they are put there. `limits` are (which, hard
    limit), `mark` is what its processes are known by.
    """

    attempt: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    descriptors: Sequence[tuple[int, int]]
    limits: Sequence[tuple[int, int]]
    mark: int


def spawn(execution: Execution) -> int:
    """Start it as the leader of a session and process group of its own; its limits are not set yet.

    `posix_spawn` and not fork: it does not copy the page tables of its parent, whatever the parent's size.

    Raises:
        OSError: The folder or the program cannot be had, or no process.
        ValueError: A word or a path cannot be told to the kernel.
    """
    try:
        # One thread, so the working folder and the mark belong to no other start while the child is made.
        os.chdir(execution.cwd)
        with strays.worn(execution.mark):
            return os.posix_spawn(
                execution.argv[0],
                list(execution.argv),
                dict(execution.env),
                file_actions=[(os.POSIX_SPAWN_DUP2, *pair) for pair in execution.descriptors],
                setsid=True,
                setsigmask=(),
                setsigdef=_DEFAULT_SIGNALS,
            )
    finally:
        os.chdir("/")


def limit(pid: int, execution: Execution, log: Callable[[str], None]) -> None:
    """Set the limits from outside, a moment after the start: posix_spawn knows none of its own."""
    for which, amount in execution.limits:
        try:
            resource.prlimit(pid, which, (amount, amount))
        except ProcessLookupError:
            return
        except (OSError, ValueError, OverflowError) as error:
            # A program that changed its user is not ours to limit.
            log(f"{execution.attempt}: process {pid} runs without limit {which}: {error}")


def become(execution: Execution) -> None:
    """Turn this process, which was forked to that end, into the program; returns only by raising.

    Raises:
        OSError: The folder or the program cannot be had.
        ValueError: A word or a path cannot be told to the kernel.
    """
    os.setsid()
    for number in _DEFAULT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.chdir(execution.cwd)
    for ours, theirs in execution.descriptors:
        os.dup2(ours, theirs)
    for which, amount in execution.limits:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(which, (amount, amount))
    with strays.worn(execution.mark):
        os.execve(execution.argv[0], list(execution.argv), dict(execution.env))  # noqa: S606 - what a keeper is for
