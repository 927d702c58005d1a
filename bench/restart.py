"""G6: a controller with a long queue is killed; how soon it places again, and what waits meanwhile.

A controller has QUEUED jobs that wait and RUNNING jobs on ten nodes. It is killed with SIGKILL and
started again at once. Measured from the signal: until it serves, and until a node that has room is
given the first job. From when it serves, a process of its own pings its gossip and its API a hundred
times a second, and the longest answer is told. Nothing may be lost and nothing placed twice.

Then the same store is loaded within a process whose event loop counts how late it is, as after a
commit that failed, where sessions and gossip go on.

Run it with `make bench-restart`; QUEUED, RUNNING and ROUNDS say how much. The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, cast

import grpc

from control.controller import STORE_NAME
from control.core.answers import Submission
from control.front.control_plane import ControlPlane
from control.leader.plane_config import PlaneConfig
from control.store.sqlite import SqliteStore
from services.membership.codec import MessageCodec
from services.membership.message import Ping
from shoal.client import Client
from shoal.model import Capacity, JobState, PipelineState
from shoal.names import AttemptRef
from shoal.session.messages import Desired, Hello
from shoal.session.observation import Observation
from shoal.spec import Job, Pipeline, Resources
from tests.kit.controller_process import ControllerProcess
from tests.kit.scripted_agent import ScriptedAgent

QUEUED = int(os.environ.get("QUEUED", "100000"))
RUNNING = int(os.environ.get("RUNNING", "1000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
NODES = 10
TICK_SECONDS = 0.002
PING_SECONDS = 0.01
PING_TIMEOUT_SECONDS = 5.0
WATCH_SECONDS = 5.0
"""How long the controller is watched once it serves."""


async def main() -> None:
    """Measure, and print a table and the result."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        state.mkdir(mode=0o700)
        begin = time.monotonic()
        running = await _fill(state / STORE_NAME)
        print(
            f"{QUEUED} queued, {len(running)} running, in {time.monotonic() - begin:.1f} s",
            flush=True,
        )
        rounds = [await _restart(Path(folder), running) for _ in range(ROUNDS)]
        lags = [await _load(state / STORE_NAME) for _ in range(ROUNDS)]
    print(f"{'':42}{'median':>10}{'worst':>10}")
    names = {
        "serves_seconds": "SIGKILL to serving, s",
        "placed_seconds": "SIGKILL to first placement, s (bar 1.5)",
        "cpu_seconds": "CPU until serving, s",
        "gossip_ms": "longest answer of gossip, ms",
        "api_ms": "longest answer of the API, ms",
    }
    for key, name in names.items():
        values = [one[key] for one in rounds]
        print(f"{name:42}{statistics.median(values):10.2f}{max(values):10.2f}")
    loading = ("load from the store, s", "longest hold-up of the loop, ms (bar 100)")
    for index, name in enumerate(loading):
        values = [one[index] for one in lags]
        print(f"{name:42}{statistics.median(values):10.2f}{max(values):10.2f}")
    result = {
        "bench": "restart",
        "queued": QUEUED,
        "running": RUNNING,
        **{key: statistics.median([one[key] for one in rounds]) for key in names},
        "lost": sum(one["lost"] for one in rounds),
        "twice": sum(one["twice"] for one in rounds),
        "load_seconds": statistics.median([one[0] for one in lags]),
        "hold_up_ms": max(one[1] for one in lags),
        "load_average": os.getloadavg()[0],
    }
    print(json.dumps(result))


@contextlib.asynccontextmanager
async def _plane(path: Path) -> AsyncIterator[ControlPlane]:
    numbers = count(time.time_ns())
    async with SqliteStore(path) as store:
        plane = ControlPlane(
            store=store,
            config=PlaneConfig(lease_seconds=600.0),
            clock=time.monotonic,
            wall=lambda: datetime.now(UTC),
            ids=lambda width: f"{next(numbers):0{width}x}"[-width:],
        )
        async with plane:
            yield plane


async def _fill(path: Path) -> list[AttemptRef]:
    """Submit everything to a control plane, and let its first jobs run; returns those attempts."""
    pipeline = Pipeline("bench", (Job("job", ("/bin/true",), resources=Resources(cpus=1.0)),))
    async with _plane(path) as plane, asyncio.TaskGroup() as tasks:
        driving = tasks.create_task(plane.run())
        for node in range(NODES):
            await plane.open_session(_hello(node), f"session-{node}")

        async def submit(first: int, several: int) -> None:
            for begin in range(first, first + several, 1000):
                numbers = range(begin, min(begin + 1000, first + several))
                await plane.submit(
                    [Submission("default", f"key-{number}", pipeline) for number in numbers]
                )

        await submit(0, RUNNING)
        found: list[AttemptRef] = []
        for node in range(NODES):
            async for update in plane.feeds.follow(f"node-{node}", f"session-{node}"):
                if isinstance(update, Desired):
                    found += [one.ref for one in update.assignments]
                if len(found) >= (node + 1) * RUNNING // NODES:
                    break
            theirs = [ref for ref in found if plane.is_current(f"node-{node}", ref)]
            await plane.observe(
                f"node-{node}",
                f"session-{node}",
                [Observation(ref, JobState.RUNNING) for ref in theirs],
            )
        await submit(RUNNING, QUEUED)
        driving.cancel()
    return found


def _hello(node: int) -> Hello:
    return Hello(
        node=f"node-{node}",
        agent_id=f"agent-{node}",
        capacity=Capacity(cpus=RUNNING / NODES),
        stream_address="127.0.0.1:1",
    )


async def _restart(folder: Path, running: list[AttemptRef]) -> dict[str, float]:
    """Kill a controller and start it again."""
    port = _free_port()
    async with ControllerProcess(
        folder, "--lease-seconds", "600", "--grpc", f"127.0.0.1:{port}"
    ) as controller:
        begin = time.monotonic()
        controller.end(signal.SIGKILL)
        placing = asyncio.create_task(_first_placement(f"127.0.0.1:{port}"))
        await controller.start()
        serves = time.monotonic() - begin
        cpu = _cpu_seconds(controller)
        pinging = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.restart", "ping", controller.grpc, controller.gossip,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        placed = await placing - begin
        said, _ = await pinging.communicate()
        gossip_ms, api_ms = json.loads(said)
        async with Client(controller.grpc) as client:
            jobs = [
                (one.id, job)
                async for one in client.list([PipelineState.RUNNING], page_size=1000)
                for job in one.jobs
            ]
    kept = {(pipeline, job.epoch) for pipeline, job in jobs}
    lost = len({(ref.pipeline, ref.epoch) for ref in running} - kept)
    return {
        "serves_seconds": serves,
        "placed_seconds": placed,
        "cpu_seconds": cpu,
        "gossip_ms": gossip_ms,
        "api_ms": api_ms,
        "lost": lost,
        "twice": sum(len(job.attempts) > 1 for _, job in jobs),
    }


async def _first_placement(address: str) -> float:
    """Dial as a node with room until a job is assigned; returns when."""
    while True:
        async with ScriptedAgent(address, f"new-{time.time_ns()}", cpus=1) as agent:
            try:
                await agent.hello()
                while not agent.ended:
                    if agent.assignments:
                        return time.monotonic()
                    await asyncio.sleep(0.002)
            except grpc.aio.AioRpcError:
                pass
        await asyncio.sleep(0.02)


def _ping(api: str, gossip: str) -> None:
    """Ping a controller for a while, and print the longest answers of its gossip and of its API."""
    host, _, port = gossip.rpartition(":")
    worst_gossip = worst_api = 0.0
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member,
        grpc.insecure_channel(api) as channel,
    ):
        member.settimeout(PING_TIMEOUT_SECONDS)
        check = cast("Any", channel).unary_unary("/grpc.health.v1.Health/Check")
        check(b"", timeout=PING_TIMEOUT_SECONDS)
        end = time.monotonic() + WATCH_SECONDS
        while time.monotonic() < end:
            begin = time.monotonic()
            member.sendto(MessageCodec().encode(Ping(1, "controller")), (host, int(port)))
            member.recv(1500)
            between = time.monotonic()
            check(b"", timeout=PING_TIMEOUT_SECONDS)
            after = time.monotonic()
            worst_gossip = max(worst_gossip, between - begin)
            worst_api = max(worst_api, after - between)
            time.sleep(PING_SECONDS)
    print(json.dumps([worst_gossip * 1e3, worst_api * 1e3]))


async def _load(path: Path) -> tuple[float, float]:
    """Load the store on a loop that counts how late it is; returns seconds and the longest hold-up in ms."""
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            begin = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)
            worst = max(worst, time.monotonic() - begin - TICK_SECONDS)

    ticking = asyncio.create_task(tick())
    begin = time.monotonic()
    async with _plane(path) as plane:
        seconds = time.monotonic() - begin
        driving = asyncio.create_task(plane.run())
        await plane.open_session(
            Hello(node="late", agent_id="late", capacity=Capacity(cpus=1.0)), "session"
        )
        await asyncio.sleep(0.5)
        driving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await driving
    ticking.cancel()
    return seconds, worst * 1e3


def _cpu_seconds(controller: ControllerProcess) -> float:
    """What a controller has taken of the processors so far."""
    if controller.process is None:
        return 0.0
    fields = Path(f"/proc/{controller.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    if sys.argv[1:2] == ["ping"]:
        _ping(*sys.argv[2:])
    else:
        asyncio.run(main())
