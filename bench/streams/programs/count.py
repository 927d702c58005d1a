"""Source for chaos: sends the numbers below N as eight bytes each; argument N."""

import sys

from shoal import job

COUNT = int(sys.argv[1])


@job.stream(codecs={"out": job.RAW})
def count() -> None:
    """Send every number."""
    put = job.outputs["out"].send
    for number in range(COUNT):
        put(number.to_bytes(8, "little"))
