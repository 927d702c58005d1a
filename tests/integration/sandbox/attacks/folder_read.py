"""Read a file in another job's folder.

Refused at: user; rights of files: the folder is another user's, 0700.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    return Path(world["victim_work"], "secret").read_text()
