"""Read the key under which the journal has the secrets of jobs.

Refused at: user; rights of files.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    return Path(world["state"], "secrets.key").read_bytes().hex()
