"""Reads the terminal: each line is a record, and Ctrl-D ends the stream."""

import sys
from collections.abc import Iterator

from shoal import job


@job.source
def prompt(first_round: int) -> Iterator[str]:
    """Yield what is typed; a prompt is shown on a terminal."""
    del first_round  # a person goes on typing, whatever was sent before
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line.rstrip("\n")
