"""Read what root alone may read (`/etc/shadow`).

Refused at: user; rights of files.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    return Path("/etc/shadow").read_text()[:4]
