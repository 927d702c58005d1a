"""Read what another job prints.

Refused at: user; rights of files.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    return (Path(world["victim_work"]).parent / "stdout").read_text()
