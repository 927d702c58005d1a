"""Find another job's secret on a command line (`ps`).

Refused at: none; no command line has one.
"""

import contextlib
import errno
from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    wanted = f"sealed-secret-{world['token'][::-1]}".encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            if wanted in words:
                return repr(words)
    raise FileNotFoundError(errno.ENOENT, "no process has it", "/proc")
