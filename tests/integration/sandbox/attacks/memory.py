"""Read the memory of another job.

Refused at: user; it is another user's.
"""

from collections.abc import Mapping
from pathlib import Path

MARK = b"in-memory-of-"


def attack(world: Mapping[str, str]) -> str:
    process = Path("/proc", world["victim_pid"])
    wanted = MARK + world["token"].encode()
    with (process / "mem").open("rb", buffering=0) as memory:
        for line in (process / "maps").read_text().splitlines():
            place, rights = line.split()[:2]
            first, last = (int(number, 16) for number in place.split("-"))
            if rights.startswith("rw"):
                memory.seek(first)
                if wanted in memory.read(last - first):
                    return wanted.decode()
    raise OSError(0, "it could be read, and the secret is not in it")
