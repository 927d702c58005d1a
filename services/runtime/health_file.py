"""A file that says that a process is well, for a probe that starts no program of ours.

Rule: while the process is well and its event loop turns, the file holds the seconds on CLOCK_BOOTTIME at
which it was written last, a whole number with a line break, at most `HEALTH_SECONDS` ago or a little more.
A probe compares it with the first number of /proc/uptime, which is the same clock: no shell needs another
program for that, and no clock that can be set matters.
A file that an earlier start of the machine has left says more seconds than have passed since, or is old.
Example: `read up _ < /proc/uptime && read at < FILE &&
[ "$at" -le "${up%%.*}" ] && [ $((${up%%.*} - at)) -lt 20 ]`.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from services.runtime.log import CountedLog

LOG = logging.getLogger(__name__)

HEALTH_SECONDS: Final = 5.0


class HealthFile:
    """Keeps the file.

    Args:
        path: the file, whose folder has to be there; best on a disk in memory.
        clock: seconds on CLOCK_BOOTTIME.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._failed = CountedLog(LOG, clock)

    async def run(self) -> NoReturn:
        """Write the file until cancelled, which removes it; what cannot be written is told in the log."""
        try:
            while True:
                try:
                    await asyncio.to_thread(self._write)
                except OSError as error:
                    self._failed.warn("the health file cannot be written", why=error)
                await asyncio.sleep(HEALTH_SECONDS)
        finally:
            self._remove()

    def _write(self) -> None:
        new = self._path.with_name(f"{self._path.name}.new")
        new.write_text(f"{math.floor(self._clock())}\n")
        new.replace(self._path)

    def _remove(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._failed.warn("the health file cannot be removed", why=error)
