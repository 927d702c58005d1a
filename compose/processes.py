"""The processes of this machine, by what their command lines say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path


def running(word: bytes) -> Iterator[tuple[int, Sequence[bytes]]]:
    """The id and the command line of each process that has this word there, such as its module."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if word in words:
            yield int(entry.name), words
