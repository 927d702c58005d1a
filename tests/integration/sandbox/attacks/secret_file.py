"""Read the file of another job's secret.

Refused at: user; it is another user's.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    return Path(world["victim_key"]).read_text()
