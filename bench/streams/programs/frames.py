"""Sends, takes or echoes numpy arrays of B bytes: `send N B`, `take`, `ping N B`, `echo`."""

import json
import sys
import time

import numpy as np

from shoal import job

DIFFERENT = 8  # made before, since making them is not what is measured


def _frame(number: int) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    frame = np.zeros(int(sys.argv[3]), "u1")
    frame[:] = number
    return frame


def _take() -> None:
    records = wrong = 0
    for frame in job.inputs["in"]:
        wrong += int(frame[-1]) != records % DIFFERENT
        records += 1
    told = {"end": time.monotonic(), "records": records, "wrong": wrong, "p50_ms": 0, "p99_ms": 0}
    print(json.dumps(told), flush=True)


def _ping() -> None:
    frame = _frame(1)
    late: list[float] = []
    back = iter(job.inputs["in"])
    for _ in range(int(sys.argv[2])):
        start = time.perf_counter()
        job.outputs["out"].send(frame)
        if next(back)[-1] != 1:
            raise ValueError("another frame came back")
        late.append(time.perf_counter() - start)
    late.sort()
    told = {"p50_ms": late[len(late) // 2] * 1e3, "p99_ms": late[len(late) * 99 // 100] * 1e3}
    print(json.dumps(told), flush=True)


@job.stream
def frames() -> None:
    """Do as the first argument says."""
    if sys.argv[1] == "send":
        ready = [_frame(number) for number in range(DIFFERENT)]
        put = job.outputs["out"].send
        print(time.monotonic(), flush=True)
        for number in range(int(sys.argv[2])):
            put(ready[number % DIFFERENT])
    elif sys.argv[1] == "take":
        _take()
    elif sys.argv[1] == "ping":
        _ping()
    else:
        for frame in job.inputs["in"]:
            job.outputs["out"].send(frame)
