"""P13, `python -m bench.streams.outage`: a node loses its power at 100 records a second.

A controller and three agents as processes, all as they are by default. A source and a sink prefer
one board, a stateless middle the others. The board of the middle is killed with everything on it,
and then that of its replacement; the cluster finds out by itself each time. The sink writes down when
each record came: the outage is its longest silence after a kill, and from its file comes what was
lost, made up and repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.streams import interruptible
from bench.streams.lanes import PROGRAMS
from compose.local_cluster import LocalCluster, LocalClusterConfig
from shoal.client import Client
from shoal.model import JobState, PipelineState
from shoal.view import PipelineView
from tests.kit.cluster import describe, job_of, submit, when

RATE = 100
BAR = 1.5  # seconds
BEFORE_SECONDS, AFTER_SECONDS = 1.0, 3.0
KILLS = 2  # as many boards as the middle may have beside that of source and sink
OUTER = "node-1"
SPEC = """
name: outage
bundle: .
jobs:
  paced:
    run: python paced.py {count} {rate}
    resources: {{cpus: 0.5}}
    place: {{prefer: [node-1], strategy: pack}}
    outputs: [out]
  square:
    run: python square.py
    recovery: resume
    resources: {{cpus: 0.5}}
    place: {{prefer: [node-2, node-3], strategy: pack}}
    inputs: {{in: paced.out}}
    outputs: [out]
  diary:
    run: python diary.py {diary}
    resources: {{cpus: 0.5}}
    place: {{prefer: [node-1], strategy: pack}}
    inputs: {{in: square.out}}
"""


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a record came, on the machine's monotonic clock, and its number; -1 if it was made up."""

    seconds: float
    number: int


@dataclass
class Outages:
    """What the sink's file says: seconds of silence for each kill, and how many records went wrong."""

    seconds: list[float] = field(default_factory=list[float])
    lost: int = 0
    made_up: int = 0
    repeated: int = 0
    out_of_order: int = 0

    @property
    def intact(self) -> bool:
        """Whether every record came once and in order."""
        return not (self.lost or self.made_up or self.repeated or self.out_of_order)


def read(path: Path, count: int, kills: Sequence[float]) -> Outages:
    """Read the sink's file.

    Args:
        path: the file.
        count: how many records the source sent.
        kills: when a board was killed, on the machine's monotonic clock.
    """
    arrivals = [
        Arrival(int(nanoseconds) / 1e9, int(number))
        for nanoseconds, number in (line.split() for line in path.read_text().splitlines())
    ]
    numbers = [one.number for one in arrivals if one.number >= 0]
    found = Outages(
        lost=len(set(range(count)) - set(numbers)),
        made_up=sum(1 for one in arrivals if not 0 <= one.number < count),
        repeated=len(numbers) - len(set(numbers)),
        out_of_order=sum(1 for one, two in itertools.pairwise(numbers) if two < one),
    )
    for kill, until in zip(kills, [*kills[1:], float("inf")], strict=True):
        gaps = [
            two.seconds - one.seconds
            for one, two in itertools.pairwise(arrivals)
            if two.seconds > kill and one.seconds < until
        ]
        found.seconds.append(max(gaps))
    return found


async def outages() -> Outages:
    """Kill the board of the middle twice in a cluster of its own, and return what the sink saw."""
    count = int(RATE * KILLS * (BEFORE_SECONDS + AFTER_SECONDS + 2.0))
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="so", dir="/tmp")))
        config = LocalClusterConfig(
            state=folder / "c", agents=1 + KILLS, mqtt="none", insecure=True
        )
        cluster = await stack.enter_async_context(LocalCluster(config))
        client = await stack.enter_async_context(Client(cluster.controller_address))
        spec = SPEC.format(count=count, rate=RATE, diary=folder / "diary")
        files = {
            name: (PROGRAMS / name).read_text() for name in ("paced.py", "square.py", "diary.py")
        }
        submitted = (await submit(client, folder / "bundle", spec, files)).pipeline
        moments: list[float] = []
        for _ in range(KILLS):
            moments.append(await _kill(cluster, client, submitted.id))
            await asyncio.sleep(AFTER_SECONDS)
        ended = await client.wait(submitted.id, deadline_seconds=count / RATE + 60)
        if ended.state is not PipelineState.SUCCEEDED:
            raise RuntimeError(describe(ended))
        return await asyncio.to_thread(read, folder / "diary.1", count, moments)


async def _kill(cluster: LocalCluster, client: Client, pipeline: str) -> float:
    """Kill the board of the middle once its records flow, and say when."""
    view = await when(client, pipeline, _flows)
    victim = job_of(view, "square").node
    if victim == OUTER:
        raise RuntimeError(
            f"the middle stands on {OUTER}, beside source and sink: {describe(view)}"
        )
    await asyncio.sleep(BEFORE_SECONDS)
    moment = time.monotonic()
    await cluster.kill_board(victim)
    sys.stderr.write(f"{victim} was killed, which took {time.monotonic() - moment:.3f} s\n")
    await when(client, pipeline, lambda now: job_of(now, "square").node not in {"", victim})
    sys.stderr.write(f"its job was placed after {time.monotonic() - moment:.3f} s\n")
    return moment


def _flows(view: PipelineView) -> bool:
    middle = job_of(view, "square")
    return (
        middle.state is JobState.RUNNING
        and bool(middle.node)
        and any(stream.records for stream in middle.streams)
    )


def main() -> int:
    """Kill several times, print what came of it; exit code 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.streams.outage")
    parser.add_argument("--rounds", type=int, default=3, help=f"clusters, {KILLS} kills each")
    found = [interruptible.run(outages()) for _ in range(parser.parse_args().rounds)]
    seconds = [one for outage in found for one in outage.seconds]
    print(
        json.dumps(
            {
                "bench": "streams-outage",
                "seconds": [round(one, 3) for one in seconds],
                "median_seconds": round(statistics.median(seconds), 3),
                "worst_seconds": round(max(seconds), 3),
                "lost": sum(one.lost for one in found),
                "made_up": sum(one.made_up for one in found),
                "repeated": sum(one.repeated for one in found),
                "out_of_order": sum(one.out_of_order for one in found),
                "load": os.getloadavg()[0],
            }
        )
    )
    return 0 if all(one.intact for one in found) and statistics.median(seconds) <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
