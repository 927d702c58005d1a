"""See the command lines of other jobs (`ps`).

Refused at: confined; a namespace of its own for processes.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    return Path("/proc", world["victim_pid"], "cmdline").read_text()
