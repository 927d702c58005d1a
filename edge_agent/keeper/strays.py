"""Processes that left their group, and those of a keeper that died: found by what stands in their environment."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

KEEPER_VARIABLE: Final = "SHOAL_KEEPER"
"""Variable that names the keeper's socket in every process that it starts."""
ATTEMPT_VARIABLE: Final = "SHOAL_KEEPER_ATTEMPT"
"""Variable that names the attempt at the keeper."""

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


def adopt_orphans() -> bool:
    """Become the parent of every orphan below this process; see prctl(2), PR_SET_CHILD_SUBREAPER.

    Returns whether the kernel agreed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0


def children() -> list[int]:
    """Process ids of this process's children, zombies included."""
    me = os.getpid()
    try:
        return [int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()]
    except OSError:
        # A kernel without CONFIG_PROC_CHILDREN: look at everybody's parent instead.
        return [pid for pid in _everybody() if _parent(pid) == me]


def kill_stray_children(attempt: str) -> int:
    """Kill the children of this process that belong to `attempt` and left its process group.

    Returns how many there were.
    """
    killed = 0
    for pid in children():
        if environment(pid).get(ATTEMPT_VARIABLE) == attempt:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed


def kill_children_without(attempts: Collection[str]) -> int:
    """Kill the children of this process that belong to an attempt that is none of `attempts`.

    They are what a stray had started, and are found once it is dead itself.
    Returns how many there were.
    """
    killed = 0
    for pid in children():
        attempt = environment(pid).get(ATTEMPT_VARIABLE)
        if attempt is not None and attempt not in attempts:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed


def kill_everything_of(keeper_socket: str) -> int:
    """Kill every process that a keeper on this socket has started, for when that keeper is dead.

    Returns how many there were.
    """
    killed = 0
    for pid in _everybody():
        if environment(pid).get(KEEPER_VARIABLE) == keeper_socket and pid != os.getpid():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed


def environment(pid: int) -> dict[str, str]:
    """Environment that a process was started with; empty when it is gone, a zombie, or not ours to see."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition(b"=") for item in raw.split(b"\0") if item)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def _everybody() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    # The name stands in parentheses and may hold anything; the parent is the second field after it.
    return int(stat.rpartition(")")[2].split()[1])
