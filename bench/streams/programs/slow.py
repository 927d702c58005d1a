"""Takes a hundred records a second, for ever."""

import time

from shoal import job


@job.stream(codecs={"in": job.RAW})
def slow() -> None:
    """Take, and wait."""
    for _ in job.inputs["in"]:
        time.sleep(0.01)
