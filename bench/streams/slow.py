"""P15, `python -m bench.streams.slow`: memory of all our processes while a consumer is slow.

The producer sends 64 KiB records as fast as it can, the consumer takes a hundred a second. What may
grow is bounded: credit, and what is retained in memory for an attempt; the rest of what is retained
lies on disk. Resident sizes of keepers, stream workers and jobs are taken each second, from the start
on; flat is what does not grow in the second half, and is never larger than when idle by more than the
credit, 64 MiB, and what the allocator wastes of it. The ring that a job shares with its stream worker
is of one size, whatever comes: it is told apart, and may not be larger than it was made.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from bench.streams import interruptible
from bench.streams.figure import Figure
from bench.streams.lanes import PROGRAMS
from services.streams.plan import StreamLimits
from tests.kit.board import WORKER, Board, boards
from tests.kit.stream_worker import assignment, lane, stream_input, stream_output

SIZE = 64 * 1024
MIB = 1024 * 1024
STEADY_MIB = 8.0
"""What a process may grow by in the second half: a free list, not a leak of one record in a hundred."""
WASTE = 1.1
"""The allocator's own, as a factor."""

RING = "ring"

Samples = Sequence[Mapping[str, float]]
"""MiB of each process, each second."""


async def sample(seconds: int) -> Samples:
    """Let the producer run for so many seconds and return the sizes."""
    with tempfile.TemporaryDirectory(prefix="sp", dir="/tmp") as folder:
        async with boards(Path(folder), 2) as (left, right):
            sender = assignment(
                "send",
                outputs=[stream_output("out")],
                lanes=[lane("send.out", "slow.in", output=True, epoch=1)],
            )
            taker = assignment(
                "slow",
                inputs=[stream_input("in", "send", "out")],
                lanes=[lane("send.out", "slow.in", output=False, address=left.address, epoch=1)],
            )
            named = {"producer": left, "consumer": right}
            samples = [await _sizes(named)]
            await right.run(taker, [sys.executable, str(PROGRAMS / "slow.py")])
            await left.run(
                sender, [sys.executable, str(PROGRAMS / "send.py"), "100000000", str(SIZE)]
            )
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                await asyncio.sleep(1)
                samples.append(await _sizes(named))
            told = left.told(sender.ref).streams[0]
            if told.acknowledged < 10 * seconds:
                raise RuntimeError(f"only {told.acknowledged} records passed in {seconds} s")
    return samples


def figure(samples: Samples, seconds: int) -> Figure:
    """Judge the samples."""
    limits = StreamLimits()
    allowed = (limits.memory_bytes + limits.credit_bytes) / MIB * WASTE
    half = len(samples) // 2
    grown, above = 0.0, 0.0
    where = ""
    ring = limits.ring_bytes / MIB
    rings = [size for one in samples for name, size in one.items() if name.endswith(RING)]
    for name in samples[-1]:
        if name.endswith(RING):
            continue
        sizes = [one[name] for one in samples if name in one]
        late = max(one[name] for one in samples[half:]) - max(
            one[name] for one in samples[2:half] if name in one
        )
        grown = max(grown, late)
        if max(sizes) - sizes[0] > above:
            above, where = max(sizes) - sizes[0], name
    peaks = {name: round(max(one.get(name, 0.0) for one in samples)) for name in samples[-1]}
    return Figure(
        "P15",
        f"memory with a slow consumer, {seconds} s",
        f"+{above:.0f} MiB, then {grown:+.1f}, ring {max(rings, default=0.0):.0f}",
        "",
        "",
        f"+{allowed:.0f}, then +{STEADY_MIB:g}",
        above <= allowed and grown <= STEADY_MIB and max(rings, default=0.0) <= ring + 1,
        {
            "seconds": seconds,
            "above_idle_mib": round(above, 1),
            "grown_in_second_half_mib": round(grown, 1),
            "ring_mib": round(max(rings, default=0.0), 1),
            "peak_mib": peaks,
        },
        f"most in the {where}; peaks in MiB: "
        + ", ".join(f"{name} {peak}" for name, peak in peaks.items()),
    )


def _shared_mib(pid: int) -> float:
    """Shared memory of a process that is resident (proc(5): RssShmem)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssShmem"))


async def _sizes(named: Mapping[str, Board]) -> Mapping[str, float]:
    sizes: dict[str, float] = {}
    for side, board in named.items():
        for record in await board.keeper.list():
            what = "worker" if record.attempt == WORKER else "job"
            process = psutil.Process(record.pid)
            shared = _shared_mib(record.pid)
            sizes[f"{side}'s {what}"] = process.memory_info().rss / MIB - shared
            if shared:
                sizes[f"{side}'s {what}'s {RING}"] = shared
            if what == "worker":
                parent = process.parent()
                sizes[f"{side}'s keeper"] = parent.memory_info().rss / MIB if parent else 0.0
    return sizes


def main() -> int:
    """Run from the command line; exit code 1 when memory is not flat."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.streams.slow")
    parser.add_argument("--seconds", type=int, default=60)
    seconds = parser.parse_args().seconds
    samples = interruptible.run(sample(seconds))
    for number in range(0, len(samples), max(1, len(samples) // 10)):
        print(", ".join(f"{name} {size:.0f} MiB" for name, size in samples[number].items()))
    found = figure(samples, seconds)
    print(found.row())
    print(json.dumps({"bench": "streams-slow", "met": found.met, **found.values}))
    return 0 if found.met else 1


if __name__ == "__main__":
    sys.exit(main())
