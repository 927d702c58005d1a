"""Coarse series of a week, for a dashboard without Prometheus, in one file of constant size.

Rule: a record is five minutes, the mean of what was read every 30 s. It lies at the place of its time in a ring of
2,016 (a week), with the number of its slot and a checksum. So nothing is ever deleted, and the file never grows.

Invariants:
1. A record is shown only if its checksum is right, its number is that of its place, and its time is within the week
   that ends now. What was half written when the power went is a gap of five minutes.
2. What lies in the future is not shown, and is overwritten when its time comes: a clock that jumps ahead and back
   loses the records of the places that it wrote to, and no others.

Example: at 12:07 the slot of 12:05 is being filled. It is written at 12:10, to place `slot % 2016`, over the record of
the same moment a week ago.

Why no database: 2,016 rows of a dozen numbers are an array, and a table of them grows and shrinks all week.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, NoReturn
from zlib import crc32

from control.front import controller_figures as known
from services.metrics.figure import Readings
from services.runtime.log import CountedLog
from services.runtime.state_folder import PRIVATE_FILE

LOG = logging.getLogger(__name__)

SLOT_SECONDS: Final = 300
SLOTS: Final = 7 * 86_400 // SLOT_SECONDS
READ_SECONDS: Final = 30.0

SERIES: Final = (
    "nodes_ready", "nodes_away", "jobs_waiting", "pipelines_open", "attempts_running", "attempts_succeeded",
    "attempts_failed", "attempts_lost", "cores_offered", "cores_claimed", "outbox_rows", "disk_free_bytes",
)  # fmt: skip
"""What is kept, in the order of a record; only ever added to at its end, or the file begins anew."""
RISING: Final = frozenset({"attempts_succeeded", "attempts_failed", "attempts_lost"})
"""Of these a record says how many there were within its five minutes."""

_RECORD: Final = struct.Struct(f"<Q{len(SERIES)}dI")
_EMPTY: Final = b"\0" * _RECORD.size


class History:
    """Keeps the series; `run` reads and writes.

    Args:
        path: the file.
        read: reads the figures of the controller.
        wall: seconds since 1970.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[], Awaitable[Readings]],
        *,
        wall: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._path = path
        self._read = read
        self._wall = wall
        self._failed = CountedLog(LOG, clock)
        self._slot = -1
        self._sums: dict[str, tuple[float, int]] = {}
        self._before: dict[str, float] = {}

    async def run(self) -> NoReturn:
        """Read every 30 s, and write what five minutes were, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(READ_SECONDS)

    async def look(self) -> None:
        """Read once; a record that is over is written first. A disk that takes none is told in the log."""
        slot = math.floor(self._wall() / SLOT_SECONDS)
        if slot != self._slot:
            ended, record = self._slot, self._mean()
            self._slot, self._sums = slot, {}
            if ended >= 0 and record:
                try:
                    await asyncio.to_thread(self._write, ended, record)
                except OSError as error:
                    self._failed.warn("the history is not written", why=error)
        for name, value in values_of(await self._read()).items():
            if name in RISING:
                before = self._before.get(name)
                self._before[name] = value
                told = _rise(before, value)
            else:
                told = value
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + told, count + 1)

    async def series(self) -> tuple[int, Mapping[str, list[float]]]:
        """Return when the first slot begins, in seconds since 1970, and of each series a number a slot; NaN for a gap.

        All of them are of the week that ends with the last slot that is over.
        """
        return await asyncio.to_thread(self._load, math.floor(self._wall() / SLOT_SECONDS))

    def _mean(self) -> dict[str, float]:
        return {
            name: total if name in RISING else total / count
            for name, (total, count) in self._sums.items()
        }

    def _write(self, slot: int, record: Mapping[str, float]) -> None:
        numbers = (record.get(name, math.nan) for name in SERIES)
        data = _RECORD.pack(slot, *numbers, 0)[:-4]
        data += struct.pack("<I", crc32(data))
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, PRIVATE_FILE)
        try:
            if os.fstat(descriptor).st_size != SLOTS * _RECORD.size:
                # Of another build with other series, or cut off: what is there cannot be told apart.
                os.ftruncate(descriptor, 0)
                os.ftruncate(descriptor, SLOTS * _RECORD.size)
            os.pwrite(descriptor, data, slot % SLOTS * _RECORD.size)
        finally:
            os.close(descriptor)

    def _load(self, now: int) -> tuple[int, Mapping[str, list[float]]]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            self._failed.warn("the history is not read", why=error)
            data = b""
        whole = len(data) == SLOTS * _RECORD.size
        found: dict[str, list[float]] = {name: [] for name in SERIES}
        for slot in range(now - SLOTS, now):
            begin = slot % SLOTS * _RECORD.size
            record = data[begin : begin + _RECORD.size] if whole else _EMPTY
            written, *numbers, checksum = _RECORD.unpack(record)
            if written != slot or checksum != crc32(record[:-4]):
                numbers = [math.nan] * len(SERIES)
            for name, number in zip(SERIES, numbers, strict=True):
                found[name].append(number)
        return (now - SLOTS) * SLOT_SECONDS, found


def _rise(before: float | None, now: float) -> float:
    """By how much a count rose; one that fell began anew, and of the first it is not known since when it rose."""
    if before is None:
        return 0.0
    return now - before if now >= before else now


def values_of(readings: Readings) -> dict[str, float]:
    """What of a collection is kept, by series; a figure that was not told is left out."""
    numbers = readings.numbers
    found: dict[str, float] = {}
    for name, figure, labels in (
        ("nodes_ready", known.NODES, ("ready",)),
        ("nodes_away", known.NODES, ("away",)),
        ("jobs_waiting", known.WAITING, ()),
        ("pipelines_open", known.OPEN, ()),
        ("attempts_running", known.ATTEMPTS, ("running",)),
        ("cores_offered", known.CORES, ("offered",)),
        ("cores_claimed", known.CORES, ("claimed",)),
        ("outbox_rows", known.OUTBOX, ()),
        ("disk_free_bytes", known.DISK_FREE, ()),
    ):
        if figure in numbers and labels in numbers[figure]:
            found[name] = numbers[figure][labels]
    ended = numbers.get(known.ATTEMPTS_ENDED, {})
    for outcome in ("succeeded", "failed", "lost"):
        counts = [count for labels, count in ended.items() if labels[0] == outcome]
        if counts:
            found[f"attempts_{outcome}"] = sum(counts)
    return found
