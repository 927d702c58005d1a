"""Sink that writes down when each record came, and which: `nanoseconds number` a line; argument PATH.

The file belongs to the benchmark: it outlives the attempt, and a later attempt begins a new one.
"""

import os
import sys
import time
from pathlib import Path

from shoal import job


@job.stream(codecs={"in": job.RAW})
def diary() -> None:
    """Write a line for each record as soon as it comes."""
    path = Path(f"{sys.argv[1]}.{os.environ['SHOAL_EPOCH']}")
    with path.open("w", buffering=1) as lines:
        for record in job.inputs["in"]:
            now = time.monotonic_ns()
            number = int.from_bytes(record[:8], "little")
            good = int.from_bytes(record[8:], "little") == number * number % 2**64
            lines.write(f"{now} {number if good else -1}\n")
