"""Source for chaos: sends the numbers below N as eight bytes each; arguments N and GATE.

The last thousand wait until the file GATE is there, so that whatever is done to the stream before is
done to a stream that has not ended.
"""

import sys
import time
from pathlib import Path

from shoal import job

COUNT, GATE = int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None
HELD = 1000


@job.stream(codecs={"out": job.RAW})
def count() -> None:
    """Send every number."""
    put = job.outputs["out"].send
    held = max(0, COUNT - HELD) if GATE else COUNT
    for number in range(held):
        put(number.to_bytes(8, "little"))
    while GATE and not GATE.exists():
        time.sleep(0.05)
    for number in range(held, COUNT):
        put(number.to_bytes(8, "little"))
