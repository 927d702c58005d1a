"""Change the library that later jobs import.

Refused at: user; rights of files: it is the agent's, and readable.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    with Path(world["sdk"], "shoal", "__init__.py").open("r+b") as library:
        return f"{library.name} is open for writing"
