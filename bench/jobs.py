"""G4 and G4b: one process per job, from submission to commit, beside Dask in the same run.

Ours: `/bin/true` as a pipeline of one, submitted durably, placed on three agents, run in a cached
environment, its end committed in SQLite with synchronous=FULL, its events in the outbox.
Dask's: `subprocess.run(["/bin/true"])` on three worker processes; nothing is durable.

Run it with `make bench-jobs`; JOBS and ROUNDS say how much. The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path

from compose.local_cluster import LocalCluster, LocalClusterConfig
from shoal import spec
from shoal.client import Client
from shoal.model import JobState, PipelineState
from shoal.view import PipelineView

JOBS = int(os.environ.get("JOBS", "1000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
STARTS = int(os.environ.get("STARTS", "100"))
PEER = Path("build") / "bench-dask"
AGENTS, SLOTS = 3, 8
TICKS = os.sysconf("SC_CLK_TCK")

PEER_PROGRAM = f"""
import json, os, subprocess, sys, time
from dask.distributed import Client, LocalCluster

def job(number):
    return subprocess.run(["/bin/true"]).returncode

def cpu(pids):
    total = 0
    for pid in pids:
        fields = open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11:15])
    return total / {TICKS}

if __name__ == "__main__":
    jobs = int(sys.argv[1])
    cluster = LocalCluster(
        n_workers={AGENTS}, threads_per_worker={SLOTS}, processes=True, dashboard_address=None
    )
    client = Client(cluster)
    pids = [os.getpid(), *client.run(os.getpid).values()]
    client.gather([client.submit(job, -n - 1) for n in range(20)])
    before, begin = cpu(pids), time.monotonic()
    client.gather([client.submit(job, n) for n in range(jobs)])
    seconds = time.monotonic() - begin
    print(json.dumps({{"per_second": jobs / seconds, "cpu_ms": (cpu(pids) - before) * 1e3 / jobs}}))
    client.close()
    cluster.close()
"""


async def main() -> None:
    """Measure both in turns, and print a table and the result."""
    peer = _peer_python()
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    starts: list[float] = []
    for number in range(ROUNDS):
        measured, round_starts = await _ours()
        ours.append(measured)
        starts += round_starts
        theirs.append(await asyncio.to_thread(_theirs, peer))
        print(f"round {number + 1}: ours {ours[-1]}, dask {theirs[-1]}", flush=True)
    ranked = sorted(starts)
    result = {
        "bench": "jobs",
        "jobs": JOBS,
        "ours": _median(ours),
        "peer": _median(theirs),
        "ratio": _median(ours)["per_second"] / _median(theirs)["per_second"],
        "spread": [min(m["per_second"] for m in ours), max(m["per_second"] for m in ours)],
        "start_ms_p50": statistics.median(ranked) * 1e3,
        "start_ms_p99": ranked[int(len(ranked) * 0.99)] * 1e3,
        "load": os.getloadavg()[0],
    }
    print(f"{'':28}{'ours, durable':>16}{'dask':>12}")
    for key, name in (("per_second", "jobs a second"), ("cpu_ms", "CPU ms a job")):
        print(f"{name:28}{_median(ours)[key]:16.1f}{_median(theirs)[key]:12.1f}")
    print(f"{'submit to running, p50 ms':28}{result['start_ms_p50']:16.1f}")
    print(f"{'submit to running, p99 ms':28}{result['start_ms_p99']:16.1f}")
    print(json.dumps(result))


async def _ours() -> tuple[dict[str, float], list[float]]:
    pipeline = spec.Pipeline(name="bench", jobs=(spec.Job(name="job", run=("/bin/true",)),))
    with tempfile.TemporaryDirectory() as folder:
        config = LocalClusterConfig(
            state=Path(folder), agents=AGENTS, mqtt="none", cpus=SLOTS, insecure=True
        )
        async with (
            LocalCluster(config) as cluster,
            Client(cluster.controller_address, deadline_seconds=300) as client,
        ):
            for _ in range(2 * AGENTS):  # every agent makes its environment once
                await _ended(client, {(await client.submit(pipeline)).pipeline.id})
            starts = [await _start_seconds(client, pipeline) for _ in range(STARTS)]
            before, begin = _cpu_seconds(folder), time.monotonic()
            submitted = await asyncio.gather(*(client.submit(pipeline) for _ in range(JOBS)))
            await _ended(client, {one.pipeline.id for one in submitted})
            seconds = time.monotonic() - begin
            cpu = _cpu_seconds(folder) - before
    return {"per_second": JOBS / seconds, "cpu_ms": cpu * 1e3 / JOBS}, starts


async def _ended(client: Client, left: set[str]) -> None:
    async with contextlib.aclosing(client.watch()) as changes:
        async for change in changes:
            if isinstance(change, PipelineView) and change.state.terminal:
                if change.state is not PipelineState.SUCCEEDED:
                    raise RuntimeError(f"{change.id} ended {change.state.name}: {change.reason}")
                left.discard(change.id)
            if not left:
                return


async def _start_seconds(client: Client, pipeline: spec.Pipeline) -> float:
    begin = time.monotonic()
    name = (await client.submit(pipeline)).pipeline.id
    started = 0.0
    async with contextlib.aclosing(client.watch(name)) as changes:
        async for change in changes:
            if not isinstance(change, PipelineView):
                continue
            [job] = change.jobs
            if not started and job.state >= JobState.RUNNING:
                started = time.monotonic() - begin
            if change.state.terminal:
                break
    return started


def _cpu_seconds(folder: str) -> float:
    """CPU of the cluster's processes and of all that they have reaped, ours (the client) too."""
    total = sum(os.times()[:2])
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and os.fsencode(folder) in (entry / "cmdline").read_bytes():
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                total += sum(int(field) for field in fields[11:15]) / TICKS
    return total


def _theirs(python: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peer.py"
        program.write_text(PEER_PROGRAM)
        done = subprocess.run(
            [python, program, str(JOBS)], check=True, capture_output=True, text=True, timeout=600
        )
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _peer_python() -> Path:
    """Make the peer's own environment, once."""
    python = PEER / "bin" / "python"
    if not (PEER / "done").exists():
        venv.create(PEER, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "distributed"], check=True)
        (PEER / "done").touch()
    return python.absolute()


def _median(measured: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in measured) for key in measured[0]}


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
