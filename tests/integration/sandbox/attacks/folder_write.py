"""Change a file in another job's folder.

Refused at: user; rights of files.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    with Path(world["victim_work"], "changed").open("a") as file:
        file.write("by another job")
    return "a file of another job was changed"
