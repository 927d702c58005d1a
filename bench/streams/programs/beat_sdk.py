"""Sends N records of B bytes at R a second through the library, as a job that measures something does."""

import struct
import sys
import time

from shoal import job

COUNT, SIZE, RATE = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])


@job.stream(codecs={"out": job.RAW})
def beat() -> None:
    """Send every record when its time has come."""
    put = job.outputs["out"].send
    filler = b"x" * (SIZE - 16)
    start = time.monotonic()
    print(start, flush=True)
    for number in range(COUNT):
        wait = start + number / RATE - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        put(struct.pack("<QQ", number, time.monotonic_ns()) + filler)
