"""Sink that checks that every square came once and in order, and prints the longest silence."""

import json
import time

from shoal import job


@job.stream(codecs={"in": job.RAW})
def watchful() -> None:
    """Check all records."""
    expected = wrong = 0
    longest = 0.0
    last = time.monotonic()
    for record in job.inputs["in"]:
        now = time.monotonic()
        if expected:
            longest = max(longest, now - last)
        last = now
        if int.from_bytes(record[8:], "little") != expected * expected % 2**64:
            wrong += 1
        expected += 1
    print(json.dumps({"records": expected, "wrong": wrong, "longest": longest}), flush=True)
