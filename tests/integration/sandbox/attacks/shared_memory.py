"""Read shared memory of another job that is its own (`/dev/shm`, 0600).

Refused at: user; rights of files.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    return Path("/dev/shm", world["token"] + "-own").read_text()
