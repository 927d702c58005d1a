"""Sink for chaos: checks that every square came once and in order, and prints what it found."""

import json

from shoal import job


@job.stream(codecs={"in": job.RAW})
def verify() -> None:
    """Check all records."""
    expected = 0
    wrong = 0
    for record in job.inputs["in"]:
        if int.from_bytes(record[8:], "little") != expected * expected % 2**64:
            wrong += 1
        expected += 1
    print(json.dumps({"records": expected, "wrong": wrong}), flush=True)
