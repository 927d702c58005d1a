"""Change a setting of the kernel (`/proc/sys/kernel/core_pattern`).

Refused at: user; rights of files.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    with Path("/proc/sys/kernel/core_pattern").open("r+") as setting:
        return f"{setting.name} is open for writing"
