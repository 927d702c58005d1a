"""Sink for chaos: writes down which records came, and when; argument PATH.

Each line is a run of consecutive numbers: `first next nanoseconds`; a record whose content does not
fit its number is the run `-1 -1`. The last line is `end`. Each attempt writes a file of its own, PATH
and its epoch; the files belong to the benchmark, and outlive the attempt.
"""

import os
import struct
import sys
import time
from pathlib import Path

from shoal import job

RUN = 100_000
PAIR = struct.Struct("<QQ")


@job.stream(codecs={"in": job.RAW})
def ledger() -> None:
    """Write every run."""
    path = Path(f"{sys.argv[1]}.{os.environ['SHOAL_EPOCH']}")
    unpack = PAIR.unpack
    with path.open("w", buffering=1) as lines:
        first = following = 0
        full = RUN
        for record in job.inputs["in"]:
            number, square = unpack(record)
            if number != following or following == full:
                if following > first:
                    lines.write(f"{first} {following} {time.monotonic_ns()}\n")
                first = following = number
                full = number + RUN
            if square != number * number % 2**64:
                lines.write(f"-1 -1 {time.monotonic_ns()}\n")
            following += 1
        if following > first:
            lines.write(f"{first} {following} {time.monotonic_ns()}\n")
        lines.write("end\n")
