"""Sends N records of B bytes as fast as it can, or at a rate: arguments N, B, records a second or 0."""

import sys
import time

from shoal import job

COUNT, SIZE, RATE = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])


@job.stream(codecs={"out": job.RAW})
def send() -> None:
    """Send; each record begins with its number, and with a rate the time of its sending."""
    out = job.outputs["out"]
    filler = b"x" * (SIZE - 16)
    print(time.monotonic(), flush=True)
    start = time.monotonic()
    put = out.send
    for number in range(COUNT):
        stamp = 0
        if RATE:
            wait = start + number / RATE - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            stamp = time.monotonic_ns()
        put(number.to_bytes(8, "little") + stamp.to_bytes(8, "little") + filler)
