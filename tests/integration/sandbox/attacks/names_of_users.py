"""See the accounts of the node (`/etc/passwd`), and its programs.

Refused at: never; programs look at this.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    return Path("/etc/passwd").read_text().splitlines()[0]
