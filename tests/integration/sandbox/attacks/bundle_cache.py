"""Read the bundles of others in the agent's cache.

Refused at: user; rights of files.
"""

import os
from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    for folder, _, files in os.walk(world["state"] + "/bundles", onerror=_refused):
        for name in files:
            return f"{len(Path(folder, name).read_bytes())} bytes of {name}"
    raise FileNotFoundError(0, "there are no bundles")


def _refused(error: OSError) -> None:
    raise error
