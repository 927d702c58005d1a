"""The clock that leases are on: seconds since the machine started, the time in which it slept included."""

import time


def boottime() -> float:
    """CLOCK_BOOTTIME: one clock for every process of a machine, which no program can set; see clock_gettime(2)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
