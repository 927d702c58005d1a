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
import functools
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from edge_agent.sandbox.group_counts import GroupCounts

_LIMIT: Final = "memory.limit_in_bytes"
_COUNTERS: Final = {
    "memory.events": (b"oom_kill", b"oom"),
    "memory.oom_control": (b"oom_kill",),
    _LIMIT: (b"",),
    "memory.max_usage_in_bytes": (b"",),
    "pids.events": (b"max",),
}
"""Files in which something is counted, and the words before the numbers."""
_COUNTED: Final = tuple(_COUNTERS)
_COUNTED_UNBOUNDED: Final = tuple(name for name in _COUNTED if b"" not in _COUNTERS[name])
_PIDS: Final = ("pids.current",)
_PIDS_MAX: Final = "pids.max"
_BOUNDS: Final = (_PIDS_MAX, "memory.usage_in_bytes", "memory.current")
_BOUNDS_UNBOUNDED: Final = (_PIDS_MAX,)
Read: TypeAlias = Callable[[str], bytes | None]
"""Reads a file of a group from its beginning; None where it cannot be read."""

_CHARGED_PART: Final = 16
READ_BYTES: Final = 4096
"""The longest file of a group that is read."""
_BATCH_BYTES: Final = 1 << 20
"""The kernel takes memory from a group's bound in batches, and gives the rest of one back before it kills."""


def group_counts(
    folders: Sequence[str], *, bounded: bool = True, read: Read | None = None
) -> GroupCounts:
    """Read what was counted in a group; what cannot be read was not counted.

    Args:
        folders: of the group.
        bounded: whether it may have a bound of memory of its own.
        read: reads a file of a group, if not as usual.
    """
    read = read or _read
    kills: int | None = None
    refused = met = 0
    limit = used = 0
    for path, name in _there(folders, _COUNTED if bounded else _COUNTED_UNBOUNDED):
        for word in _COUNTERS[name]:
            found = _count(path, word, read)
            if found is None:
                continue
            match word:
                case b"oom_kill":
                    kills = found + (kills or 0)
                case b"oom":
                    met += found
                case b"max":
                    refused += found
                case _ if name == _LIMIT:
                    limit = found
                case _:
                    used = found
    met += used > limit - _BATCH_BYTES > 0
    return GroupCounts(kills, refused, bounded_memory=met > 0)


def as_new(
    folders: Sequence[str], memory_bytes: int, processes: int, read: Read | None = None
) -> bool:
    """Say whether an attempt can have a group that another one had: nothing tells it from one that was just made.

    It holds no process, and not one that has ended and is not reaped; it has counted nothing, so what is counted from
    now on is the next attempt's; its bound of processes was not lowered to kill it; and no more than a sixteenth of its
    bound of memory is charged: mostly files that were read or written, which the kernel drops when the next attempt
    needs the room.

    Args:
        folders: of the group.
        memory_bytes: its bound of memory; 0 where it has none.
        processes: its bound of processes; 0 where it has none.
        read: reads a file of a group, if not as usual.
    """
    read = read or _read
    if not is_empty(folders, read):
        return False
    bounded = memory_bytes > 0
    counts = group_counts(folders, bounded=bounded, read=read)
    if counts.memory_kills or counts.refused_processes or counts.bounded_memory:
        return False
    for path, name in _there(folders, _BOUNDS if bounded else _BOUNDS_UNBOUNDED):
        found = _count(path, b"", read)
        if name == _PIDS_MAX:
            if found != (processes or None):
                return False
        elif found is None or found * _CHARGED_PART > memory_bytes:
            return False
    return True


def is_empty(folders: Sequence[str], read: Read | None = None) -> bool:
    """Say whether the kernel counts no process in a group, and none that has ended and is not reaped.

    Processes join all folders of a group, so the one that counts them speaks for the others. False where none does.
    """
    read = read or _read
    return any(_count(path, b"", read) == 0 for path, _ in _there(folders, _PIDS))


def kill_group(folders: Sequence[str]) -> tuple[int, ...]:
    """Kill all processes of a group; return those that are still there, and may be gone in a moment.

    A folder that is gone, or that the caller may not write to, is no error: what is left says it.
    """
    if is_empty(folders):
        return ()  # what is not there forks nothing, and a bound that is not lowered need not be raised again
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


def _there(folders: Sequence[str], names: tuple[str, ...]) -> Sequence[tuple[str, str]]:
    """Return those of the files with these names that are in the folders of a group, as path and name."""
    found: list[tuple[str, str]] = []
    for folder in folders:
        try:
            found += _names_in(folder, names)
        except OSError:
            continue
    return found


@functools.lru_cache(1024)
def _names_in(folder: str, names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The files of a folder; looked for once, as the kernel adds none later.

    Raises:
        OSError: there is no such folder, which may come yet.
    """
    os.stat(folder)  # noqa: PTH116 - often
    paths = [(f"{folder}/{name}", name) for name in names]
    return tuple(one for one in paths if os.path.exists(one[0]))  # noqa: PTH110 - often


def _read(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, READ_BYTES)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _count(path: str, wanted: bytes, read: Read) -> int | None:
    """Read the number behind a word, or the only number of a file that has no words; None where there is none."""
    said = read(path)
    for line in () if said is None else said.splitlines():
        name, _, number = line.rpartition(b" ")
        if name == wanted and number.isdigit():
            return int(number)
    return None
