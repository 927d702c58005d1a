"""Peer: a FIFO between two programs on one machine, one pickled record with its length at a time."""

from __future__ import annotations

import asyncio
import os
import pickle
import struct
import sys
import tempfile
import time
from pathlib import Path

from bench.streams.passed import Passed

LENGTH = struct.Struct("<I")


async def pass_records(count: int, size: int) -> Passed:
    """Pass records from one process to another."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fifo"
        os.mkfifo(path)
        sender, taker = [
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "bench.streams.fifo",
                role,
                str(path),
                str(count),
                str(size),
                stdout=asyncio.subprocess.PIPE,
            )
            for role in ("send", "take")
        ]
        (start, _), (end, _) = await asyncio.gather(sender.communicate(), taker.communicate())
    return Passed(count, float(end) - float(start), count)


def send(path: str, count: int, size: int) -> None:
    """Write every record by itself, as the system that Shoal replaces does."""
    filler = b"x" * (size - 8)
    with Path(path).open("wb") as fifo:
        sys.stdout.write(f"{time.monotonic()}\n")
        for number in range(count):
            data = pickle.dumps(number.to_bytes(8, "little") + filler)
            fifo.write(LENGTH.pack(len(data)) + data)
            fifo.flush()


def take(path: str, count: int) -> None:
    """Read every record and check that none is missing."""
    with Path(path).open("rb") as fifo:
        for number in range(count):
            (length,) = LENGTH.unpack(fifo.read(4))
            record = pickle.loads(fifo.read(length))  # noqa: S301 - our own, a moment ago
            if int.from_bytes(record[:8], "little") != number:
                raise SystemExit(f"record {number} is missing")
    sys.stdout.write(f"{time.monotonic()}\n")


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        take(sys.argv[2], int(sys.argv[3]))
