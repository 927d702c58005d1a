"""Takes records, checks their order, and prints when the last came and how long each was on its way.

Arguments: `counted`, `timed` (records begin with their number and the time of their sending) or
`silent` (nothing is acknowledged); and after how many records the numbers start again.
"""

import json
import sys
import time

from shoal import job
from shoal.job.input_port import InputPort

REPEATS = int(sys.argv[2])  # numbers start again after so many
TIMED = sys.argv[1] == "timed"


def _say_nothing(self: InputPort, below: int) -> None:
    """Leave out an acknowledgement."""


if sys.argv[1] == "silent":
    InputPort.queue_ack = _say_nothing  # type: ignore[method-assign]


@job.stream(codecs={"in": job.RAW})
def take() -> None:
    """Take all records; print one JSON object."""
    expected = 0
    wrong = 0
    late: list[int] = []
    for record in job.inputs["in"]:
        if int.from_bytes(record[:8], "little") != expected % REPEATS:
            wrong += 1
        if TIMED:
            late.append(time.monotonic_ns() - int.from_bytes(record[8:16], "little"))
        expected += 1
    late.sort()
    print(
        json.dumps(
            {
                "end": time.monotonic(),
                "records": expected,
                "wrong": wrong,
                "p50_ms": late[len(late) // 2] / 1e6 if late else 0,
                "p99_ms": late[len(late) * 99 // 100] / 1e6 if late else 0,
                "max_ms": late[-1] / 1e6 if late else 0,
            }
        ),
        flush=True,
    )
