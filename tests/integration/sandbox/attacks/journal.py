"""Read the agent's journal.

Refused at: user; rights of files.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    with Path(world["state"], "agent.db").open("rb") as journal:
        return journal.read(15).decode()
