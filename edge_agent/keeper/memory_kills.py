"""Whether the kernel ended a program because memory ran out: its OOM killer sends SIGKILL, as a person may.

Rule. The kernel says how many processes it has ended for want of memory. A program that ended by SIGKILL
ran out of memory if that number has grown since it began, and by more than is known of other programs.
- With control groups the number is that of this process's own group, in which its programs are, too:
  `oom_kill` of `memory.events` (version 2) or `memory.oom_control` (version 1). It is the victim's group that
  counts, whatever ran out: its own limit, one above it, or the machine.
- Where the group does not say (kernels before 4.13, the root group of version 2) the kernel's log names the
  process that it has ended. It can be read by root; in a container its numbers are others, and fit nothing.
- Where that cannot be read, `oom_kill` of /proc/vmstat counts for the whole machine.

The number is read at most every `fresh_seconds`: reading it for each of a thousand starts a second would cost more than
the starts. So what was ended that shortly before a program began may count for it, too.

Why since it began, and one at a time: a child of another program may have been ended before, and its leader
may have gone on. What remains possible: it was ended while this program ran, and a person killed this one.

Example: a container of 256 MiB. A job takes 300, the kernel ends it, and `oom_kill` goes from 0 to 1.

Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of Linux; `__oom_kill_process` in
mm/oom_kill.c, which counts, kills, and then writes to the log; dev-kmsg in Documentation/ABI/testing.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_agent.cgroup_limits import memory_groups
from edge_agent.keeper.boottime import boottime
from edge_agent.keeper.kernel_file import read_kernel_file

_KILLED: Final = re.compile(rb"[Kk]illed process ([0-9]{1,10})\b")
_COUNTED: Final = re.compile(rb"^oom_kill ([0-9]{1,20})$", re.MULTILINE)
_COUNTER_BYTES: Final = 65_536
_RECORD_BYTES: Final = 8192
_RECORDS_MAX: Final = 100_000
_NEWEST_KEPT: Final = 1000


class MemoryKills:
    """Tells programs that the kernel ended for want of memory.

    Args:
        root: the folder that stands for `/`.
        clock: seconds.
        fresh_seconds: how old what was read may be at a start.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        clock: Callable[[], float] = boottime,
        fresh_seconds: float = 0.0,
    ) -> None:
        self._root = root
        self._clock = clock
        self._fresh_seconds = fresh_seconds
        self._read_at = -math.inf
        self._read = 0
        self._counter = next(
            (
                path
                for path in (*_counters_of_group(root), root / "proc/vmstat")
                if _count(path) is not None
            ),
            None,
        )
        # Kept open: it is read about as often as programs start.
        self._counting = -1
        if self._counter is not None:
            self._counting = os.open(self._counter, os.O_RDONLY | os.O_CLOEXEC)
        self._log = -1
        if self._counter is None or self._counter.name == "vmstat":
            with contextlib.suppress(OSError):
                self._log = os.open(root / "dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                os.lseek(self._log, 0, os.SEEK_END)
        self._named: dict[int, None] = {}
        self._begun: dict[str, int] = {}
        self._known = self._now()

    def begin(self, attempt: str) -> None:
        """A program is about to start."""
        if self._log >= 0:
            return  # which names the process
        now = self._clock()
        if now - self._read_at >= self._fresh_seconds:
            self._read_at, self._read = now, self._now()
        self._begun[attempt] = self._read

    def ended(self, attempt: str, pid: int, *, killed: bool) -> bool:
        """Say whether a program, which has ended, was ended for want of memory; `killed` by SIGKILL."""
        before = max(self._begun.pop(attempt, 0), self._known)
        if not killed:
            return False
        if self._log >= 0:
            self._read_log()
            named = pid in self._named
            self._named.pop(pid, None)  # its number may be that of another later
            return named
        if self._now() <= before:
            return False
        self._known = before + 1
        return True

    def _now(self) -> int:
        if self._counting < 0:
            return 0
        try:
            found = _COUNTED.search(os.pread(self._counting, _COUNTER_BYTES, 0))
        except OSError:
            return 0
        return int(found[1]) if found else 0

    def _read_log(self) -> None:
        for _ in range(_RECORDS_MAX):
            try:
                record = os.read(self._log, _RECORD_BYTES)
            except BrokenPipeError:
                continue  # what was not read in time is gone, and what follows it can be read
            except OSError:
                return
            if not record:
                return
            for found in _KILLED.finditer(record):
                self._named[int(found[1])] = None
        for pid in list(self._named)[:-_NEWEST_KEPT]:
            del self._named[pid]


def _counters_of_group(root: Path) -> list[Path]:
    return [
        group / name
        for group in memory_groups(root)
        for name in ("memory.events", "memory.oom_control")
    ]


def _count(path: Path) -> int | None:
    """Read how many processes were ended; None where the kernel does not say."""
    try:
        found = _COUNTED.search(read_kernel_file(str(path)))
    except OSError:
        return None
    return int(found[1]) if found else None
