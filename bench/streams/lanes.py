"""Ours: program, worker, gRPC, worker, program; every record acknowledged and retained."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from shoal.v1 import spec_pb2 as spec
from tests.kit.board import Board, boards
from tests.kit.stream_worker import assignment, lane, stream_input, stream_output

PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True, slots=True)
class Passed:
    """What came through: records, seconds from the first sending to the last arrival, milliseconds."""

    records: int
    seconds: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0

    @property
    def per_second(self) -> float:
        """Records a second."""
        return self.records / self.seconds


async def pass_records(
    count: int,
    size: int,
    *,
    rate: float = 0.0,
    program: str = "send.py",
    consumer: str = "take.py",
    nodes: int = 2,
) -> Passed:
    """Pass records between two boards on this machine, or on one board."""
    # A short folder, since Unix sockets lie in it.
    with tempfile.TemporaryDirectory(prefix="sb", dir="/tmp") as folder:
        async with boards(Path(folder), nodes) as found:
            return await _between(found[0], found[-1], count, size, rate, (program, consumer))


async def _between(
    left: Board, right: Board, count: int, size: int, rate: float, programs: tuple[str, str]
) -> Passed:
    sender = assignment(
        "send",
        outputs=[stream_output("out")],
        lanes=[lane("send.out", "take.in", output=True, epoch=1)],
    )
    taker = assignment(
        "take",
        inputs=[stream_input("in", "send", "out")],
        lanes=[lane("send.out", "take.in", output=False, address=left.address, epoch=1)],
        # A consumer without state: what it acknowledged is let go, so nothing is spooled.
        recovery=spec.RECOVERY_RESUME,
    )
    how = "timed" if rate else "counted"
    repeats = str(8 if size >= 64 * 1024 else count)
    await right.run(taker, [sys.executable, str(PROGRAMS / programs[1]), how, repeats])
    await left.run(
        sender, [sys.executable, str(PROGRAMS / programs[0]), str(count), str(size), str(rate)]
    )
    if not await left.conclude(sender.ref) or not await right.conclude(taker.ref):
        raise RuntimeError(f"a program failed: {left.folder} {right.folder}")
    start = float(left.printed("send"))
    told = json.loads(right.printed("take"))
    if told["records"] != count:
        raise RuntimeError(f"{told['records']} of {count} records came")
    if told["wrong"]:
        raise RuntimeError(f"{told['wrong']} records came out of order")
    return Passed(count, told["end"] - start, told["p50_ms"], told["p99_ms"])
