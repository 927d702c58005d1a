"""Source that sends N numbers as eight bytes each, R a second; arguments N and R."""

import sys
import time

from shoal import job

COUNT, RATE = int(sys.argv[1]), float(sys.argv[2])


@job.stream(codecs={"out": job.RAW})
def paced() -> None:
    """Send every number when its time has come."""
    put = job.outputs["out"].send
    start = time.monotonic()
    for number in range(COUNT):
        wait = start + number / RATE - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        put(number.to_bytes(8, "little"))
