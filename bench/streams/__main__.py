"""`make bench-streams`: our lanes and their peers in turns, a table, and one JSON object at the end."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.streams import fifo, plain_grpc
from bench.streams.lanes import pass_records

ROUNDS = int(os.environ.get("ROUNDS", "3"))
SMALL, LARGE = 64, 1024 * 1024
COUNT = int(os.environ.get("RECORDS", "2000000"))


@dataclass
class Measured:
    """One way of passing records, over all rounds."""

    name: str
    per_second: list[float] = field(default_factory=list[float])
    cpu_us: list[float] = field(default_factory=list[float])

    @property
    def median(self) -> float:
        """Records a second."""
        return statistics.median(self.per_second)

    @property
    def spread(self) -> float:
        """Largest less smallest, as a share of the median."""
        return (max(self.per_second) - min(self.per_second)) / self.median

    @property
    def cpu(self) -> float:
        """Microseconds of processor a record, over all processes."""
        return statistics.median(self.cpu_us)


async def measure(into: Measured, count: int, what: Callable[[], Awaitable[float]]) -> None:
    """Run one way once; its processes have ended when it returns."""
    before = _cpu_seconds()
    into.per_second.append(await what())
    into.cpu_us.append((_cpu_seconds() - before) / count * 1e6)


def _cpu_seconds() -> float:
    # What the boards started are our children too; a child counts once it has been waited for.
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def main() -> None:
    """Measure everything in turns and print it."""
    ours, large = Measured("ours, 64 B"), Measured("ours, 1 MiB")
    packed = Measured("ours, 64 B, program packs blocks itself")
    pickled = Measured("FIFO with pickle, 64 B, one machine")
    single, blocks = Measured("grpc.aio, 64 B a message"), Measured("grpc.aio, 1 MiB a message")
    p50: list[float] = []
    p99: list[float] = []

    async def lanes(count: int, size: int) -> float:
        return (await pass_records(count, size)).per_second

    async def blocks_of(count: int) -> float:
        passed = await pass_records(count, SMALL, program="blast.py", consumer="swallow.py")
        return passed.per_second

    few, some = max(1, COUNT // 50), max(1, COUNT // 500)
    for number in range(ROUNDS):
        await measure(ours, COUNT, lambda: lanes(COUNT, SMALL))
        await measure(packed, 4 * COUNT, lambda: blocks_of(4 * COUNT))
        await measure(pickled, COUNT // 4, lambda: fifo.pass_records(COUNT // 4, SMALL))
        await measure(single, few, lambda: plain_grpc.pass_records(few, SMALL))
        await measure(large, some, lambda: lanes(some, LARGE))
        await measure(blocks, some, lambda: plain_grpc.pass_records(some, LARGE))
        beat = await pass_records(1000, SMALL, rate=200, program="beat.py")
        p50.append(beat.p50_ms)
        p99.append(beat.p99_ms)
        sys.stderr.write(f"round {number + 1} of {ROUNDS} done\n")
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {ROUNDS} rounds")
    print(f"{'':40}{'records/s':>12}{'spread':>9}{'CPU us/record':>15}")
    for one in (ours, packed, pickled, single, large, blocks):
        print(f"{one.name:40}{one.median:>12,.0f}{one.spread:>9.0%}{one.cpu:>15,.2f}")
    print(f"one way at 200/s, 64 B: p50 {statistics.median(p50):.2f} ms, "
          f"p99 {statistics.median(p99):.2f} ms")  # fmt: skip
    print("not like for like: the FIFO and grpc.aio carry records of one program to another and "
          "forget them;\nours pass two workers, are checked, acknowledged, and kept until then")  # fmt: skip
    print(
        json.dumps(
            {
                "bench": "streams",
                "ours": round(ours.median),
                "peer": round(pickled.median),
                "ratio": round(ours.median / pickled.median, 2),
                "P1": round(ours.median / pickled.median, 2),
                "P1_packed": round(packed.median / pickled.median, 2),
                "P1_cpu_us": [round(one.cpu, 3) for one in (ours, packed, pickled)],
                "P3": round(ours.median / single.median, 1),
                "P6": round(large.median / blocks.median, 2),
                "P6_cpu_us": [round(large.cpu), round(blocks.cpu)],
                "P9_p50_ms": round(statistics.median(p50), 3),
                "P9_p99_ms": round(statistics.median(p99), 3),
                "load": os.getloadavg()[0],
            }
        )
    )


asyncio.run(main())
