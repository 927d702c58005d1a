"""What a fork of the keeper that stays one has to do to itself."""

import contextlib
import ctypes
import os
from collections.abc import Collection
from pathlib import Path


def close_all_but(kept: Collection[int]) -> None:
    """Let go of what is the keeper's: its lock above all, or no other keeper could follow it."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(entry.name))


def call_this_process(name: str) -> None:
    """Say in the list of processes what this one is: a copy of the keeper would be taken for it."""
    with contextlib.suppress(OSError, ValueError):
        first, last = (
            int(word)
            for word in Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47]
        )
        room = last - first
        words = name.encode()[: room - 1]
        ctypes.memset(first, 0, room)
        ctypes.memmove(first, words, len(words))
