"""P15, `python -m bench.streams.slow`: memory of both workers while a consumer is slow.

The producer sends 64 KiB records as fast as it can, the consumer takes a hundred a second. What may
grow is bounded: credit, backlog, 64 MiB of retention; the rest of what is retained lies on disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

import psutil

from bench.streams.lanes import PROGRAMS
from tests.kit.board import WORKER, Board, boards
from tests.kit.stream_worker import assignment, lane, stream_input, stream_output

SIZE = 64 * 1024


async def main(seconds: int) -> None:
    """Run for so many seconds and print the memory at each tenth of the time."""
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
            await right.run(taker, [sys.executable, str(PROGRAMS / "slow.py")])
            await left.run(
                sender, [sys.executable, str(PROGRAMS / "send.py"), "100000000", str(SIZE)]
            )
            samples: list[list[int]] = []
            for _ in range(10):
                await asyncio.sleep(seconds / 10)
                samples.append([await _memory(board) for board in (left, right)])
                told = left.told(sender.ref).streams[0]
                print(
                    f"producer's worker {samples[-1][0]:>4} MiB, consumer's {samples[-1][1]:>4} MiB, "
                    f"{told.records} records taken from the job, {told.acknowledged} by the consumer"
                )
    peaks = [max(sample[index] for sample in samples) for index in (0, 1)]
    ends = [samples[-1][index] - samples[4][index] for index in (0, 1)]
    print(
        json.dumps(
            {
                "bench": "streams-slow",
                "seconds": seconds,
                "peak_mib": peaks,
                "growth_in_second_half_mib": ends,
            }
        )
    )


async def _memory(board: Board) -> int:
    [worker] = [one for one in await board.keeper.list() if one.attempt == WORKER]
    return int(psutil.Process(worker.pid).memory_info().rss) >> 20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.streams.slow")
    parser.add_argument("--seconds", type=int, default=60)
    asyncio.run(main(parser.parse_args().seconds))
