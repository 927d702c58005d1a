"""Read shared memory of another job that every user may read (`/dev/shm`, 0666).

Refused at: confined; each job has a `/dev/shm` of its own.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    return Path("/dev/shm", world["token"] + "-open").read_text()
