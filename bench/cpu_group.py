"""The CPU that this process, and all that descends from it, has used: by a control group of its own.

**Why not /proc:** a process that its parent does not wait for takes its CPU along when it ends (Ray's workers do), and
/proc counts in ticks. A group counts nanoseconds, of what has ended as well, and nothing leaves it: children are born
in it. It needs root and the `cpuacct` hierarchy of version 1 or a writable one of version 2; elsewhere `cpu_group`
yields None, and the caller sums /proc.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FIRST: Final = Path("/sys/fs/cgroup/cpuacct")
SECOND: Final = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def cpu_group() -> Iterator[Path | None]:
    """Put this process into a group of its own until the end, and yield the file that `cpu_seconds` reads."""
    root = FIRST if (FIRST / "cpuacct.usage").exists() else SECOND
    group = root / f"shoal-bench-cpu-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        yield None
        return
    try:
        yield group / ("cpuacct.usage" if root == FIRST else "cpu.stat")
    finally:
        (root / "cgroup.procs").write_text(str(os.getpid()))
        with contextlib.suppress(OSError):  # something of a peer lives on
            group.rmdir()


def cpu_seconds(file: Path) -> float:
    """Seconds of CPU that the group of this file has used."""
    words = file.read_text().split()
    return (
        int(words[0]) / 1e9 if len(words) == 1 else int(words[words.index("usage_usec") + 1]) / 1e6
    )
