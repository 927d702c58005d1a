"""P7 from inside, `python -m bench.streams.rings`: two jobs on one node, with rings and without.

Bytes are copied out for the job by the library, arrays are handed over where they lie. ROUNDS (3).
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from bench.streams.lanes import PROGRAMS, between
from shoal.v1 import session_service_pb2 as session
from shoal.v1 import spec_pb2 as spec
from tests.kit.board import Board, boards
from tests.kit.stream_worker import assignment, lane, stream_input, stream_output
from tests.kit.until import until

ROUNDS = int(os.environ.get("ROUNDS", "3"))
MIB = 1024 * 1024
WAYS = {"socket": ["--ring-bytes", "0"], "ring": []}
SIZES = {64 * 1024: 20_000, MIB: 3_000, 4 * MIB: 1_000}
TRIPS = 60  # what a restarting job sends is kept; more than that would be written to the spool


async def main() -> None:
    """Measure everything in turns and print it."""
    rates: dict[tuple[str, str, int], list[float]] = {}
    trips: dict[str, list[tuple[float, float]]] = {}
    for number in range(ROUNDS):
        for way, arguments in WAYS.items():
            for size, count in SIZES.items():
                for what in ("bytes", "arrays"):
                    rate = await _rate(arguments, what, count, size)
                    rates.setdefault((what, way, size), []).append(rate)
            trips.setdefault(way, []).append(await _trip(arguments))
        sys.stderr.write(f"round {number + 1} of {ROUNDS} done\n")
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {ROUNDS} rounds")
    print(f"{'one node':24}{'socket':>12}{'ring':>12}{'ratio':>8}")
    told: dict[str, object] = {"bench": "streams-rings", "load": os.getloadavg()[0]}
    for size in SIZES:
        for what in ("bytes", "arrays"):
            before, after = (statistics.median(rates[what, way, size]) for way in WAYS)
            name = f"{what}, {size // 1024} KiB"
            print(f"{name:24}{before:>10,.0f}/s{after:>10,.0f}/s{after / before:>8.2f}")
            told[name] = [round(before), round(after), round(after / before, 2)]
    for index, name in enumerate(("p50", "p99")):
        before, after = (statistics.median(trip[index] for trip in trips[way]) for way in WAYS)
        print(f"{f'there and back, {name}':24}{before:>9.2f} ms{after:>9.2f} ms  (1 MiB arrays)")
        told[f"trip_{name}_ms"] = [round(before, 3), round(after, 3)]
    print(json.dumps(told))


async def _rate(arguments: list[str], what: str, count: int, size: int) -> float:
    with tempfile.TemporaryDirectory(prefix="sb", dir="/tmp") as folder:
        async with boards(Path(folder), 1, arguments=arguments) as (board,):
            if what == "bytes":
                return (await between(board, board, count, size)).per_second
            send = _job("send", [], [("send", "take")], "")
            take = _job("take", [("send", "take")], [], board.address)
            await board.run(take, _program("take"))
            await board.run(send, _program("send", count, size))
            if not await board.conclude(send.ref) or not await board.conclude(take.ref):
                raise RuntimeError(board.printed("send") + board.printed("take"))
            told = json.loads(board.printed("take"))
            if told["records"] != count or told["wrong"]:
                raise RuntimeError(f"{told} of {count}")
            return float(count / (told["end"] - float(board.printed("send"))))


async def _trip(arguments: list[str]) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="sb", dir="/tmp") as folder:
        async with boards(Path(folder), 1, arguments=arguments) as (board,):
            ping = _job("ping", [("echo", "ping")], [("ping", "echo")], board.address)
            echo = _job("echo", [("ping", "echo")], [("echo", "ping")], board.address)
            await board.run(echo, _program("echo"))
            await board.run(ping, _program("ping", TRIPS, MIB))
            return await _told(board)


async def _told(board: Board) -> tuple[float, float]:
    # It prints when it is done and then waits for the end of its own echo, which does not come.
    path = board.folder / "ping.1" / "stdout"
    await until(lambda: path.read_text().endswith("\n"), 60, "all trips")
    told = json.loads(path.read_text())
    return told["p50_ms"], told["p99_ms"]


def _program(*arguments: object) -> list[str]:
    return [sys.executable, str(PROGRAMS / "frames.py"), *map(str, arguments)]


def _job(
    name: str, ins: list[tuple[str, str]], outs: list[tuple[str, str]], address: str
) -> session.Assignment:
    lanes = [
        lane(f"{one}.out", f"{two}.in", output=False, address=address, epoch=1) for one, two in ins
    ]
    lanes += [lane(f"{one}.out", f"{two}.in", output=True, epoch=1) for one, two in outs]
    return assignment(
        name,
        inputs=[stream_input("in", one, "out") for one, _ in ins],
        outputs=[stream_output("out") for _ in outs],
        lanes=lanes,
        recovery=spec.RECOVERY_RESUME if not outs else spec.RECOVERY_RESTART,
    )


asyncio.run(main())
