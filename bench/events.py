"""G13: how long after its commit the end of a job is heard, beside a bare message on the same broker.

JOBS pipelines of one `/bin/true` run on three agents, one after the other, and a subscriber takes down when it
hears of each end. An event has the time of the step that recorded it, so what is measured holds the commit
itself (SQLite, synchronous=FULL), the archive's manifest, which has to be there first, and the broker.
The peer is a message from one client to another over the same broker, QoS 1, as many and in the same round: what no
outbox can be below. It promises nothing.

Then the broker is away for AWAY seconds while as many pipelines run, eight at a time, and comes back. A subscriber
with a session of its own counts events that are lost, that come twice, and that come out of their order within a job.

Run it with `make bench-events`; JOBS, ROUNDS and AWAY say how much. The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import aiomqtt

from compose.local_cluster import LocalCluster, LocalClusterConfig
from shoal import spec
from shoal.client import Client
from shoal.events.consumer import EventConsumer
from shoal.events.memory import EventMemory
from shoal.events.topics import events_of

JOBS = int(os.environ.get("JOBS", "200"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
AWAY = float(os.environ.get("AWAY", "60"))
AGENTS, AT_ONCE = 3, 8
DEADLINE_SECONDS = 600.0
LOST_AFTER_SECONDS = 120.0
BARE_TOPIC = "bench/bare"
PIPELINE = spec.Pipeline(name="bench", jobs=(spec.Job(name="job", run=("/bin/true",)),))


class _ForgetfulMemory:
    """Remembers nothing, so that a repetition is seen."""

    async def handled(self, event: str) -> bool:
        del event
        return False

    async def record(self, event: str) -> None:
        del event


@dataclass(slots=True)
class Heard:
    """What a subscriber has heard: how long after its time each end came, and what was wrong."""

    ends: dict[str, float] = field(default_factory=dict[str, float])
    """Seconds after the commit, by the job's name; the first arrival."""
    events: Counter[str] = field(default_factory=Counter[str])
    newest: dict[str, int] = field(default_factory=dict[str, int])
    disordered: int = 0

    def take(self, event: str, kind: str, subject: str, sequence: int, said: str) -> None:
        """Take down one event."""
        self.events[event] += 1
        if self.events[event] == 1:
            self.disordered += sequence < self.newest.get(subject, 0)
            self.newest[subject] = sequence
            if kind == "shoal.job.succeeded":
                self.ends[subject] = time.time() - datetime.fromisoformat(said).timestamp()


@contextlib.asynccontextmanager
async def _hearing(port: int, name: str) -> AsyncIterator[Heard]:
    """Listen until the end of the block."""
    heard = Heard()
    memory: EventMemory = _ForgetfulMemory()
    consumer = EventConsumer("127.0.0.1", events_of(), name, port, memory=memory, window=1000)

    async def listen() -> None:
        async with consumer:
            async for event in consumer:
                heard.take(event.id, event.type, event.subject, event.sequence, event.time)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(listen())
        while not consumer.connected:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        yield heard
        task.cancel()


async def main() -> None:
    """Measure both in turns, then with the broker away; print a table and the result."""
    ours: list[dict[str, float]] = []
    bare: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        config = LocalClusterConfig(state=Path(folder), agents=AGENTS, cpus=8, insecure=True)
        async with (
            LocalCluster(config) as cluster,
            Client(cluster.controller_address, deadline_seconds=DEADLINE_SECONDS) as client,
        ):
            if cluster.broker is None:
                raise SystemExit("mosquitto is not installed: apt-get install mosquitto")
            port = int(cluster.broker_url.rpartition(":")[2])
            await _run(client, 2 * AGENTS, AGENTS)  # every agent makes its environment once
            for number in range(ROUNDS):
                ours.append(await _ends(client, port, f"round-{number}"))
                bare.append(await _bare(port))
                print(f"round {number + 1}: ours {ours[-1]}, bare {bare[-1]}", flush=True)
            away = await _away(cluster, client, port)
    result = {
        "bench": "events",
        "jobs": JOBS,
        "ours": _median(ours),
        "peer": _median(bare),
        "ratio": _median(ours)["p99_ms"] / _median(bare)["p99_ms"],
        "spread": [min(m["p99_ms"] for m in ours), max(m["p99_ms"] for m in ours)],
        "bar_ms": 50,
        **away,
        "load": os.getloadavg()[0],
    }
    print(f"{'':32}{'ours':>12}{'a message':>12}")
    for key in ("p50_ms", "p99_ms"):
        print(f"{key:32}{_median(ours)[key]:12.2f}{_median(bare)[key]:12.2f}")
    for key, value in away.items():
        print(f"{key:32}{value:12g}")
    print(json.dumps(result))


async def _run(client: Client, jobs: int, at_once: int) -> list[str]:
    """Run so many pipelines, some at a time; returns the names of their jobs."""
    left = iter(range(jobs))
    names: list[str] = []

    async def run_each() -> None:
        for _ in left:
            submitted = await client.submit(PIPELINE)
            ended = await client.wait(submitted.pipeline.id, deadline_seconds=DEADLINE_SECONDS)
            names.extend(f"{ended.name}/jobs/{job.id}" for job in ended.jobs)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(run_each())
    return names


async def _ends(client: Client, port: int, name: str) -> dict[str, float]:
    async with _hearing(port, name) as heard, asyncio.timeout(DEADLINE_SECONDS):
        names = await _run(client, JOBS, 1)
        while not heard.ends.keys() >= set(names):  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.01)
    return _percentiles([heard.ends[one] for one in names])


async def _bare(port: int) -> dict[str, float]:
    """Send messages from one client to another, one after the other."""
    seconds: list[float] = []
    async with (
        aiomqtt.Client("127.0.0.1", port) as hears,
        aiomqtt.Client("127.0.0.1", port) as says,
    ):
        await hears.subscribe(BARE_TOPIC, qos=1)
        async with asyncio.timeout(DEADLINE_SECONDS):
            for number in range(JOBS):
                begun = time.monotonic()
                sending = asyncio.ensure_future(says.publish(BARE_TOPIC, str(number), qos=1))
                await anext(aiter(hears.messages))
                seconds.append(time.monotonic() - begun)
                await sending
    return _percentiles(seconds)


async def _away(cluster: LocalCluster, client: Client, port: int) -> dict[str, float]:
    """Let the broker be away while pipelines run, and count what became of their events."""
    broker = cluster.broker
    if broker is None:
        raise AssertionError("there was one before")
    async with _hearing(port, "away") as heard, asyncio.timeout(AWAY + DEADLINE_SECONDS):
        begun = time.monotonic()
        await broker.stop()
        jobs = await _run(client, JOBS, AT_ONCE)
        recorded = [
            event.id
            for job in jobs
            for event in (await client.events(job.partition("/jobs/")[0])).events
        ]
        await asyncio.sleep(max(0.0, AWAY - (time.monotonic() - begun)))
        away = time.monotonic() - begun
        await broker.start()
        back = time.monotonic()
        while not heard.events.keys() >= set(recorded):
            if time.monotonic() - back > LOST_AFTER_SECONDS:
                break
            await asyncio.sleep(0.05)
        seconds = time.monotonic() - back
    return {
        "away_seconds": round(away, 1),
        "events": len(recorded),
        "lost": len(set(recorded) - heard.events.keys()),
        "repeated": sum(count - 1 for count in heard.events.values()),
        "disordered": heard.disordered,
        "caught_up_seconds": round(seconds, 2),
    }


def _percentiles(seconds: list[float]) -> dict[str, float]:
    ranked = sorted(seconds)
    return {
        "p50_ms": statistics.median(ranked) * 1e3,
        "p99_ms": ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))] * 1e3,
    }


def _median(measured: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in measured) for key in measured[0]}


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
