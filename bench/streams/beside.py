"""`python -m bench.streams.beside`: small records beside large ones, between the same two workers.

Records of 64 B at 200 a second, each with the time of its sending, while another pair of programs
on the same two boards passes records of 4 MiB at RATE a second (default 8). The boards' workers are in
network namespaces, and `tbf` holds the link to 400 Mbit/s (root is needed). In turns: every lane on
one connection, as if there were no second one, and large records on a connection of their own.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from bench.streams import interruptible
from bench.streams.lanes import PROGRAMS
from bench.streams.shaped import shaped_link
from shoal.v1 import session_service_pb2 as session
from shoal.v1 import spec_pb2 as spec
from tests.kit.board import Board
from tests.kit.namespaces import Lab
from tests.kit.stream_worker import assignment, lane, stream_input, stream_output

ROUNDS = int(os.environ.get("ROUNDS", "3"))
RATE = float(os.environ.get("RATE", "8"))
SECONDS = 5
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
            shaped_link() as link,
            placed(link, 1, Path(folder), arguments) as left,
            placed(link, 2, Path(folder), arguments) as right,
        ):
            large = await begin(left, right, "large", int(rate * SECONDS), LARGE, rate)
            small = await begin(left, right, "small", 200 * SECONDS, SMALL, 200.0)
            for sender, taker in (*small, *large):
                if not await left.conclude(sender.ref) or not await right.conclude(taker.ref):
                    raise RuntimeError(f"a program failed: {left.folder} {right.folder}")
            told = json.loads(right.printed("small-take"))
            return told["p50_ms"], told["p99_ms"]


def placed(link: Lab, host: int, folder: Path, arguments: tuple[str, ...]) -> Board:
    """Return a board whose worker is in a namespace of its own; everything else is beside it."""
    return Board(
        folder / str(host),
        arguments=arguments,
        listen=f"{link.address(host)}:0",
        prefix=link.inside(host),
    )


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
    interruptible.run(main())
