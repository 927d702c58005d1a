"""Find another job's secret in a file of the agent.

Refused at: none; it is sealed there, and files with secrets are in memory.
"""

import errno
import os
from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    wanted = f"sealed-secret-{world['token'][::-1]}".encode()
    for folder, folders, names in os.walk(world["state"]):
        if "attempts" in folders:
            folders.remove("attempts")  # what jobs print, this one's own words among them
        for name in names:
            path = Path(folder, name)
            if path.is_file() and wanted in path.read_bytes():
                return str(path)
    raise FileNotFoundError(errno.ENOENT, "no file has it", world["state"])
