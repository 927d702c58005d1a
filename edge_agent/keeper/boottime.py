"""The clock that leases are on: seconds since the machine started, the time in which it slept included."""

import functools
import time
from typing import Final

boottime: Final = functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""CLOCK_BOOTTIME: one clock for every process of a machine, which no program can set; see clock_gettime(2)."""
