"""Peer: ZeroMQ, a PUSH and a PULL socket over TCP between two processes, nothing acknowledged."""

from __future__ import annotations

import asyncio
import json

from bench.streams.lanes import PROGRAMS
from bench.streams.passed import Passed
from bench.streams.peer_python import peer_folder

HIGH_WATER_BYTES = 4 * 1024 * 1024
"""As much as we let be in flight on a lane; ZeroMQ counts messages."""


async def pass_records(count: int, size: int, rate: float = 0.0) -> Passed:
    """Pass records from one process to another.

    Raises:
        PeerMissingError: It is not installed, and cannot be.
    """
    python = str((await asyncio.to_thread(peer_folder)) / "python")
    high_water = str(max(4, min(1000, HIGH_WATER_BYTES // size)))
    sender = await asyncio.create_subprocess_exec(
        python, str(PROGRAMS / "zeromq_send.py"), str(count), str(size), str(rate), high_water,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    if sender.stdout is None:
        raise RuntimeError("the sender has no output")
    address = (await sender.stdout.readline()).decode().strip()
    taker = await asyncio.create_subprocess_exec(
        python, str(PROGRAMS / "zeromq_take.py"), str(count), address, high_water,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    if taker.stdout is None:
        raise RuntimeError("the taker has no output")
    await taker.stdout.readline()
    (start, _), (told, _) = await asyncio.gather(sender.communicate(b"go\n"), taker.communicate())
    return Passed.told(float(start), json.loads(told), count)
