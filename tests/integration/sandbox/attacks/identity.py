"""Read the board's private key.

Refused at: user; rights of files.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    for path in sorted(Path(world["state"], "identity").iterdir()):
        if path.is_file() and "PRIVATE KEY" in path.read_text(errors="replace"):
            return f"the private key in {path.name}"
    raise FileNotFoundError(0, "there is no private key")
