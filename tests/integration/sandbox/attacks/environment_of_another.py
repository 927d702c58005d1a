"""Read the variables of another job's process.

Refused at: user; it is another user's.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    found = Path("/proc", world["victim_pid"], "environ").read_bytes()
    return next(item for item in found.decode().split("\0") if item.startswith("VICTIM_TOKEN="))
