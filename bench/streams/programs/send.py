"""Sends N records of B bytes as fast as it can: arguments N and B."""

import sys
import time

from shoal import job

COUNT, SIZE = int(sys.argv[1]), int(sys.argv[2])
LARGE = 64 * 1024
DIFFERENT = 8  # large records are made before, since making them is not what is measured


@job.stream(codecs={"out": job.RAW})
def send() -> None:
    """Send; each record begins with its number, large ones modulo 8."""
    put = job.outputs["out"].send
    filler = b"x" * (SIZE - 8)
    if SIZE >= LARGE:
        ready = [number.to_bytes(8, "little") + filler for number in range(DIFFERENT)]
        print(time.monotonic(), flush=True)
        for number in range(COUNT):
            put(ready[number % DIFFERENT])
    else:
        print(time.monotonic(), flush=True)
        for number in range(COUNT):
            put(number.to_bytes(8, "little") + filler)
