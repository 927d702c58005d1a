"""One control group as its folders show it: what the kernel has counted in it, and how all of it is killed.

Rule. A group is a folder in each hierarchy (`memory`, `cpu`, `pids` … of version 1), or one folder (version 2).
- `oom_kill` counts the processes of the group that the kernel killed for want of memory: in `memory.oom_control`
  (version 1) or `memory.events` (version 2). `max` of `pids.events` counts the processes and threads that it refused.
  Whether its own bound of memory was met is in `oom` of `memory.events`; in version 1 `memory.max_usage_in_bytes`
  says it (`memory.failcnt` stays 0 on Linux 6.18).
- Killing begins with `pids.max` of 0: from then on there are no more of them, so one look at `cgroup.procs` and a
  SIGKILL to each ends also what forks as fast as it can. Version 2 has `cgroup.kill`, which does it at once.

Invariant. Nothing here waits. A process that was killed may stay for a moment, so the caller looks again.

Why not by process group, session or parent: a process leaves all of these as it likes; it leaves its control group
only if it may write to another one, which no user of a job may.

Sources: Documentation/admin-guide/cgroup-v1/{memory,pids}.rst and cgroup-v2.rst of Linux; `cgroup.kill` since 5.14.
"""

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edge_agent.sandbox.group_counts import GroupCounts

_BATCH_BYTES: Final = 1 << 20
"""The kernel takes memory from a group's bound in batches, and gives the rest of one back before it kills."""


def group_counts(folders: Sequence[str]) -> GroupCounts:
    """Read what was counted in a group; what cannot be read was not counted."""
    kills: int | None = None
    refused = met = 0
    for folder in map(Path, folders):
        for name in ("memory.events", "memory.oom_control"):
            found = _count(folder / name, "oom_kill")
            kills = kills if found is None else found + (kills or 0)
        met += _count(folder / "memory.events", "oom") or 0
        limit = _count(folder / "memory.limit_in_bytes", "") or 0
        used = _count(folder / "memory.max_usage_in_bytes", "") or 0
        met += used > limit - _BATCH_BYTES > 0
        refused += _count(folder / "pids.events", "max") or 0
    return GroupCounts(kills, refused, bounded_memory=met > 0)


def kill_group(folders: Sequence[str]) -> tuple[int, ...]:
    """Kill all processes of a group; return those that are still there, and may be gone in a moment.

    A folder that is gone, or that the caller may not write to, is no error: what is left says it.
    """
    paths = [Path(folder) for folder in folders]
    for path in paths:
        _write(path / "pids.max", "0")
    left: dict[int, None] = {}
    for path in paths:
        if not _write(path / "cgroup.kill", "1"):
            for pid in processes_of(path):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
    for path in paths:
        left |= dict.fromkeys(processes_of(path))
    return tuple(left)


def processes_of(folder: Path) -> tuple[int, ...]:
    """Return the processes of a folder, without those of folders below it; none where it is gone."""
    try:
        words = (folder / "cgroup.procs").read_text("ascii").split()
    except (OSError, ValueError):
        return ()
    return tuple(int(word) for word in words if word.isdecimal() and word != "0")


def _write(path: Path, text: str) -> bool:
    """Write to a file that may not be there; a new file is never made."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(descriptor, text.encode())
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _count(path: Path, wanted: str) -> int | None:
    """Read the number behind a word, or the only number of a file that has no words; None where there is none."""
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:
        name, _, number = line.rpartition(" ")
        if name == wanted and number.isdecimal():
            return int(number)
    return None
