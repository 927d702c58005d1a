"""Leave one's control group, and its limits with it.

Refused at: user; rights of files.
"""

import os
from collections.abc import Mapping
from pathlib import Path

TOP = ("/sys/fs/cgroup/memory/tasks", "/sys/fs/cgroup/cgroup.procs")


def attack(world: Mapping[str, str]) -> str:
    [place] = [path for path in TOP if Path(path).exists()]
    os.close(os.open(place, os.O_WRONLY))
    return f"{place} is open for writing"
