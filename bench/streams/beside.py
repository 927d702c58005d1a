"""`python -m bench.streams.beside`: small records beside large ones, between the same two workers.

Records of 64 B at 200 a second, each with the time of its sending, while another pair of programs
on the same two boards passes records of 4 MiB at RATE a second (default 8). The boards' workers are in
network namespaces, and `tbf` holds the link to 400 Mbit/s (root is needed). In turns: every lane on
one connection, as if there were no second one, and large records on a connection of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from bench.streams.lanes import PROGRAMS
from shoal.v1 import session_service_pb2 as session
from shoal.v1 import spec_pb2 as spec
from tests.kit.board import Board
from tests.kit.namespaces import Lab, lab
from tests.kit.stream_worker import assignment, lane, stream_input, stream_output

ROUNDS = int(os.environ.get("ROUNDS", "3"))
RATE = float(os.environ.get("RATE", "8"))
SECONDS = 5
SHAPE = ("rate", "400mbit", "burst", "128kb", "latency", "20ms")
SMALL, LARGE = 64, 4 * 1024 * 1024
NEVER = 1 << 40

WAYS = {
    "small records alone": (0.0, ()),
    "one connection": (RATE, ("--bulk-bytes", str(NEVER))),
    "large ones on their own": (RATE, ()),
}


async def measure(rate: float, arguments: tuple[str, ...]) -> tuple[float, float]:
    """Return p50 and p99 of the small records, in milliseconds."""
    with tempfile.TemporaryDirectory(prefix="sb", dir="/tmp") as folder:
        async with (
            lab(2) as link,
            Placed(link, 1, Path(folder), arguments) as left,
            Placed(link, 2, Path(folder), arguments) as right,
        ):
            large = await begin(left, right, "large", int(rate * SECONDS), LARGE, rate)
            small = await begin(left, right, "small", 200 * SECONDS, SMALL, 200.0)
            for sender, taker in (*small, *large):
                if not await left.conclude(sender.ref) or not await right.conclude(taker.ref):
                    raise RuntimeError(f"a program failed: {left.folder} {right.folder}")
            told = json.loads(right.printed("small-take"))
            return told["p50_ms"], told["p99_ms"]


class Placed(Board):
    """A board whose worker is in a namespace of its own; everything else is beside it."""

    def __init__(self, link: Lab, host: int, folder: Path, arguments: tuple[str, ...]) -> None:
        super().__init__(
            folder / str(host),
            arguments=arguments,
            listen=f"{link.address(host)}:0",
            prefix=link.inside(host),
        )
        self._link = link
        self._host = host

    async def start_worker(self) -> int:
        """Start the stream worker behind a shaped device, and return its process id."""
        tc = self._link.inside(
            self._host, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *SHAPE
        )
        shaping = await asyncio.create_subprocess_exec(*tc)
        if await shaping.wait():
            raise RuntimeError(f"no shaped link here: {' '.join(tc)}")
        return await super().start_worker()


async def begin(
    left: Board, right: Board, name: str, count: int, size: int, rate: float
) -> list[tuple[session.Assignment, session.Assignment]]:
    """Let a pair of programs pass records; none at all if there are none to pass."""
    if not count:
        return []
    out, into = f"{name}-send.out", f"{name}-take.in"
    sender = assignment(
        f"{name}-send",
        outputs=[stream_output("out")],
        lanes=[lane(out, into, output=True, epoch=1)],
    )
    taker = assignment(
        f"{name}-take",
        inputs=[stream_input("in", f"{name}-send", "out")],
        lanes=[lane(out, into, output=False, address=left.address, epoch=1)],
        recovery=spec.RECOVERY_RESUME,
    )
    await right.run(taker, [sys.executable, str(PROGRAMS / "take.py"), "timed", str(count)])
    await left.run(
        sender, [sys.executable, str(PROGRAMS / "beat.py"), str(count), str(size), str(rate)]
    )
    return [(sender, taker)]


async def main() -> None:
    """Measure in turns, print a table, and one JSON object at the end."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(ROUNDS):
        for name, (rate, arguments) in WAYS.items():
            found[name].append(await measure(rate, arguments))
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {ROUNDS} rounds")
    print(f"one way, 64 B at 200/s, beside 4 MiB at {RATE:.0f}/s{'':11}p50 ms{'':4}p99 ms")
    medians: dict[str, tuple[float, float]] = {}
    for name, pairs in found.items():
        p50 = statistics.median(pair[0] for pair in pairs)
        p99 = statistics.median(pair[1] for pair in pairs)
        medians[name] = (round(p50, 3), round(p99, 3))
        print(f"{name:50}{p50:>12.2f}{p99:>10.2f}")
    print(json.dumps({"bench": "streams-beside", **medians, "load": os.getloadavg()[0]}))


if __name__ == "__main__":
    asyncio.run(main())
