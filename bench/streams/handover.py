"""P13 without its detection, `python -m bench.streams.handover`: a board dies at 100 records a second.

The stream worker and the program in the middle of a chain are killed with SIGKILL, and a replacement
is placed on a spare board at once: what is measured is how long the sink hears nothing, from the
start of a fresh program to the first record. How long a cluster takes to notice comes on top.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
from pathlib import Path

from bench.streams.lanes import PROGRAMS
from shoal.v1 import session_service_pb2 as session
from shoal.v1 import spec_pb2 as spec
from tests.kit.board import WORKER, boards
from tests.kit.stream_worker import assignment, lane, stream_input, stream_output

RATE, COUNT, ROUNDS = 100, 400, 5
FIRST, SECOND = ("paced.out", "square.in"), ("square.out", "watchful.in")


def program(name: str, *arguments: object) -> list[str]:
    """Return the command of one of the benchmark's programs."""
    return [sys.executable, str(PROGRAMS / f"{name}.py"), *map(str, arguments)]


def middle(address: str, epoch: int) -> session.Assignment:
    """Return the job in the middle, which is resumed."""
    return assignment(
        "square",
        epoch=epoch,
        replacement=epoch > 1,
        recovery=spec.RECOVERY_RESUME,
        inputs=[stream_input("in", "paced", "out")],
        outputs=[stream_output("out")],
        lanes=[
            lane(*FIRST, output=False, address=address, epoch=1),
            lane(*SECOND, output=True, epoch=1),
        ],
    )


async def outage() -> dict[str, float]:
    """Kill the middle once and return what the sink saw."""
    with tempfile.TemporaryDirectory(prefix="so", dir="/tmp") as folder:
        async with boards(Path(folder), 3) as (outer, victim, spare):
            source = assignment(
                "paced",
                outputs=[stream_output("out")],
                lanes=[lane(*FIRST, output=True, epoch=1)],
            )
            sink = assignment(
                "watchful",
                inputs=[stream_input("in", "square", "out")],
                lanes=[lane(*SECOND, output=False, address=victim.address, epoch=1)],
            )
            await outer.run(sink, program("watchful"))
            pid = await victim.run(middle(outer.address, 1), program("square"))
            await outer.run(source, program("paced", COUNT, RATE))
            async with outer.changed:
                await outer.changed.wait_for(
                    lambda: sum(one.records for one in outer.told(sink.ref).streams) > COUNT // 4
                )
            [worker] = [one for one in await victim.keeper.list() if one.attempt == WORKER]
            for one in (worker.pid, pid):
                os.kill(one, signal.SIGKILL)
            again = middle(outer.address, 2)
            placing = asyncio.ensure_future(spare.run(again, program("square")))
            await outer.update(source.ref, [lane(*FIRST, output=True, epoch=2)])
            await outer.update(
                sink.ref, [lane(*SECOND, output=False, address=spare.address, epoch=2)]
            )
            await placing
            for board, ref in ((outer, source.ref), (spare, again.ref), (outer, sink.ref)):
                if not await board.conclude(ref):
                    raise RuntimeError(f"{ref.attempt} failed")
            with contextlib.suppress(ValueError):
                return dict(json.loads(outer.printed("watchful")))
            raise RuntimeError("the sink printed nothing")


async def main() -> None:
    """Kill several times and print the median."""
    found = [await outage() for _ in range(ROUNDS)]
    longest = [one["longest"] for one in found]
    print(
        json.dumps(
            {
                "bench": "streams-handover",
                "seconds": round(statistics.median(longest), 3),
                "worst_seconds": round(max(longest), 3),
                "lost": sum(COUNT - one["records"] for one in found),
                "wrong": sum(one["wrong"] for one in found),
                "load": os.getloadavg()[0],
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
