"""Read a temporary file of another job that every user may read (`/tmp`, 0644).

Refused at: confined; each job has a `/tmp` of its own.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    return Path("/tmp", world["token"]).read_text()
