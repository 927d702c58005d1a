"""G4 and G4b: one process per job, from submission to commit, beside Dask, Ray and HyperQueue in the same run.

Ours: `/bin/true` as a pipeline of one, submitted durably, placed on three agents, run in a kept environment at the
level that `shoal up` gives its jobs here (and, in the same rounds, at level none), its end committed in SQLite with
synchronous=FULL, its manifest in the archive, its events in the outbox. The peers' programs are in
`bench/job_peers.py`; nothing of theirs is durable. CPU is that of all processes, clients included, and of all that has
ended (`bench/cpu_group.py`).

Run it with `make bench-jobs`. JOBS, ROUNDS and STARTS say how much; STATE is the folder below which the cluster keeps
what it keeps (it says of which file system; ext4 without a journal walks over all inodes deleted in the last five
seconds for each that is made, which ours pays and no peer does); SLOW=0.25 runs everything, the peers too, on one
core at a quarter of its speed (a control group of version 1, as root); QUEUE=20000 does something else: so many jobs in
as many submissions, then in pipelines of as many as one may have, with time and memory by quarters. The last line is
one JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.cpu_group import cpu_group, cpu_seconds
from bench.job_peers import PEERS, SLOTS, WORKERS
from compose.local_cluster import LocalCluster, LocalClusterConfig
from compose.own_sandbox import own_sandbox
from shoal import limits, spec
from shoal.client import Client
from shoal.model import JobState, PipelineState
from shoal.sandbox import SandboxLevel
from shoal.view import PipelineView

JOBS: Final = int(os.environ.get("JOBS", "5000"))
ROUNDS: Final = int(os.environ.get("ROUNDS", "3"))
STARTS: Final = int(os.environ.get("STARTS", "100"))
STATE: Final = Path(os.environ.get("STATE", "/var/tmp"))  # noqa: S108 - users of jobs pass it
QUEUE: Final = int(os.environ.get("QUEUE", "0"))
SLOW: Final = float(os.environ.get("SLOW", "0"))
CPU_MS_MAX, PER_SECOND_MIN, DASK_MIN, START_MS_MAX = 3.0, 800.0, 1.4, 8.0
CPU_MS_STRETCH, PER_SECOND_STRETCH = 1.5, 1_200.0
TICKS: Final = os.sysconf("SC_CLK_TCK")
GROUPS: Final = Path("/sys/fs/cgroup/cpu")
PERIOD_MICROSECONDS: Final = 100_000
PIPELINE: Final = spec.Pipeline(name="bench", jobs=(spec.Job(name="job", run=("/bin/true",)),))

_SECONDS: Final = 3_600.0


@dataclass(slots=True)
class Round:
    """What was measured of one kind, a value for each round."""

    per_second: list[float] = field(default_factory=list[float])
    cpu_ms: list[float] = field(default_factory=list[float])

    def add(self, measured: Mapping[str, float]) -> None:
        """Add one round."""
        self.per_second.append(measured["per_second"])
        self.cpu_ms.append(measured["cpu_ms"])

    @property
    def rate(self) -> float:
        """Jobs a second, the median."""
        return statistics.median(self.per_second)

    @property
    def cpu(self) -> float:
        """CPU milliseconds a job, the median."""
        return statistics.median(self.cpu_ms)

    def to_json(self) -> dict[str, float | list[float]]:
        """Write medians and spread."""
        return {
            "per_second": self.rate,
            "cpu_ms": self.cpu,
            "spread": [min(self.per_second), max(self.per_second)],
        }


async def main() -> int:
    """Measure, print a table and the result; the exit code is 1 if a bar is missed."""
    folder = Path(tempfile.mkdtemp(prefix="shoal-bench-", dir=STATE))  # users of jobs pass it
    os.chmod(folder, 0o755)  # noqa: PTH101, S103 - nothing else runs here
    own = own_sandbox(folder)
    slow = _slow_group() if SLOW else None
    try:
        if QUEUE:
            return await _queues(folder, own.level, own.said)
        with cpu_group() as group:
            return await _beside_peers(folder, group, own.level, own.said)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if slow is not None:
            _leave(slow)


async def _beside_peers(folder: Path, group: Path | None, level: SandboxLevel, said: str) -> int:
    levels = dict.fromkeys((level, SandboxLevel.NONE))
    found = {name: Round() for name in (*(f"ours, {one.value}" for one in levels), *_names())}
    starts: dict[SandboxLevel, list[float]] = {one: [] for one in levels}
    print(f"default sandbox {said}; {JOBS} jobs, {ROUNDS} rounds, {_speed()}", flush=True)
    for number in range(ROUNDS):
        for one in levels:
            measured, begun = await _ours(folder / f"{number}-{one.value}", group, one)
            found[f"ours, {one.value}"].add(measured)
            starts[one] += begun
        for peer in PEERS:
            found[peer.name].add(await asyncio.to_thread(peer.measure, JOBS, group))
        last = {name: f"{one.per_second[-1]:.0f}/s" for name, one in found.items()}
        print(f"round {number + 1}: {last}, load {os.getloadavg()[0]:.1f}", flush=True)
    start = {one.value: _spread(begun) for one, begun in starts.items()}
    ours, dask = found[f"ours, {level.value}"], found["dask"].rate
    print(f"\n{'':16}{'jobs/s':>10}{'spread':>16}{'CPU ms a job':>14}{'beside dask':>14}")
    for name, kind in found.items():
        low, high = min(kind.per_second), max(kind.per_second)
        row = f"{name:16}{kind.rate:10.0f}{f'{low:.0f} to {high:.0f}':>16}{kind.cpu:14.2f}"
        print(f"{row}{kind.rate / dask:14.2f}")
    for name, (middle, high) in start.items():
        print(f"submit to running, {name}: p50 {middle:.1f} ms, p99 {high:.1f} ms")
    bars = {
        f"at most {CPU_MS_MAX:g} CPU ms": ours.cpu <= CPU_MS_MAX,
        f"at least {PER_SECOND_MIN:g} jobs/s": ours.rate >= PER_SECOND_MIN,
        f"at least {DASK_MIN:g} times dask": ours.rate >= DASK_MIN * dask,
        f"start p50 at most {START_MS_MAX:g} ms": start[level.value][0] <= START_MS_MAX,
        f"stretch: {CPU_MS_STRETCH:g} CPU ms": ours.cpu <= CPU_MS_STRETCH,
        f"stretch: {PER_SECOND_STRETCH:g} jobs/s": ours.rate >= PER_SECOND_STRETCH,
    }
    for bar, met in bars.items():
        print(f"{bar}: {'met' if met else 'not met'}")
    result = {
        "bench": "jobs",
        "jobs": JOBS,
        "level": level.value,
        "slow": SLOW,
        "found": {name: kind.to_json() for name, kind in found.items()},
        "ratio": ours.rate / dask,
        "start_ms": start,
        "load": os.getloadavg()[0],
    }
    print(json.dumps(result))
    return 0 if SLOW or all(met for bar, met in bars.items() if "stretch" not in bar) else 1


@contextlib.asynccontextmanager
async def _cluster(folder: Path, level: SandboxLevel) -> AsyncIterator[Client]:
    config = LocalClusterConfig(
        state=folder, agents=WORKERS, mqtt="none", cpus=SLOTS, insecure=True, sandbox=level
    )
    async with (
        LocalCluster(config) as cluster,
        Client(cluster.controller_address, deadline_seconds=_SECONDS) as client,
    ):
        await _run(client, 20 * WORKERS)  # every agent makes its environment once
        yield client


async def _ours(
    folder: Path, group: Path | None, level: SandboxLevel
) -> tuple[Mapping[str, float], list[float]]:
    async with _cluster(folder, level) as client:
        starts = [await _start_seconds(client) for _ in range(STARTS)]
        before, begin = _cpu_seconds(folder, group), time.monotonic()
        await _run(client, JOBS)
        seconds = time.monotonic() - begin
        cpu = _cpu_seconds(folder, group) - before
    return {"per_second": JOBS / seconds, "cpu_ms": cpu * 1e3 / JOBS}, starts


async def _run(client: Client, jobs: int, ended: Callable[[], None] = lambda: None) -> None:
    async with asyncio.timeout(_SECONDS):
        submitted = await asyncio.gather(*(client.submit(PIPELINE) for _ in range(jobs)))
        left = {one.pipeline.id for one in submitted}
        async with contextlib.aclosing(client.watch()) as changes:
            async for change in changes:
                if isinstance(change, PipelineView) and change.state.terminal:
                    if change.state is not PipelineState.SUCCEEDED:
                        raise RuntimeError(
                            f"{change.id} ended {change.state.name}: {change.reason}"
                        )
                    if change.id in left:
                        left.discard(change.id)
                        ended()
                if not left:
                    return


async def _start_seconds(client: Client) -> float:
    begin = time.monotonic()
    name = (await client.submit(PIPELINE)).pipeline.id
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


# ---- long queues


async def _queues(folder: Path, level: SandboxLevel, said: str) -> int:
    print(f"default sandbox {said}; {QUEUE} jobs, {_speed()}")
    result: dict[str, object] = {"bench": "jobs", "queue": QUEUE, "level": level.value}
    async with _cluster(folder / "many", level) as client:
        quarters = Quarters(QUEUE, folder / "many")
        await _run(client, QUEUE, quarters.ended)
        result["many"] = quarters.told(f"{QUEUE} submissions")
    wide = min(QUEUE, limits.JOBS_MAX)
    async with _cluster(folder / "wide", level) as client:
        quarters = Quarters(QUEUE, folder / "wide")
        await _wide(client, QUEUE, wide, quarters)
        result["wide"] = quarters.told(f"submissions of {wide} jobs")
    print(json.dumps(result))
    return 0


async def _wide(client: Client, jobs: int, wide: int, quarters: Quarters) -> None:
    async with asyncio.timeout(_SECONDS):
        names: set[str] = set()
        for first in range(0, jobs, wide):
            many = range(first, min(jobs, first + wide))
            each = tuple(spec.Job(name=f"job-{number}", run=("/bin/true",)) for number in many)
            names.add((await client.submit(spec.Pipeline(name="wide", jobs=each))).pipeline.id)
        done: dict[str, int] = dict.fromkeys(names, 0)
        async with contextlib.aclosing(client.watch()) as changes:
            async for change in changes:
                if not isinstance(change, PipelineView) or change.id not in names:
                    continue
                if change.state.terminal and change.state is not PipelineState.SUCCEEDED:
                    raise RuntimeError(f"{change.id} ended {change.state.name}: {change.reason}")
                over = sum(job.state.terminal for job in change.jobs)
                for _ in range(over - done[change.id]):
                    quarters.ended()
                done[change.id] = over
                if sum(done.values()) >= jobs:
                    return


class Quarters:
    """Time and memory as jobs end, a line for each quarter of them."""

    def __init__(self, jobs: int, folder: Path) -> None:
        self._jobs = jobs
        self._folder = folder
        self._ended = 0
        self._begun = time.monotonic()
        self.lines: list[tuple[float, float, float]] = []
        """Seconds of the quarter; megabytes of the controller and of an agent at its end."""

    def ended(self) -> None:
        """Count one job that has ended."""
        self._ended += 1
        if self._ended * 4 >= self._jobs * (len(self.lines) + 1):
            now = time.monotonic()
            memory = _memory(self._folder)
            agents = memory.get("agent", [0.0])
            controller = sum(memory.get("controller", []))
            self.lines.append((now - self._begun, controller, statistics.mean(agents)))
            self._begun = now

    def told(self, title: str) -> Sequence[tuple[float, float, float]]:
        """Print the lines, and return them."""
        print(f"\n{title}\n{'quarter':>8}{'jobs/s':>10}{'controller MB':>16}{'agent MB':>12}")
        for number, (seconds, controller, agent) in enumerate(self.lines, 1):
            rate = self._jobs / 4 / seconds
            print(f"{number:8}{rate:10.0f}{controller:16.1f}{agent:12.1f}")
        return self.lines


# ---- the machine


def _cpu_seconds(folder: Path, group: Path | None) -> float:
    """CPU of the cluster's processes and of all that they have reaped, ours (the client) too."""
    if group is not None:
        return cpu_seconds(group)
    total = sum(os.times()[:2])
    for entry in _processes(folder):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            total += sum(int(one) for one in fields[11:15]) / TICKS
    return total


def _memory(folder: Path) -> Mapping[str, list[float]]:
    """Resident megabytes of the cluster's processes, by what they are."""
    found: dict[str, list[float]] = {}
    for entry in _processes(folder):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            pages = int((entry / "statm").read_text().split()[1])
            kind = next((one for one in ("agent", "controller") if one in words), "other")
            found.setdefault(kind, []).append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
    return found


def _processes(folder: Path) -> Sequence[Path]:
    found: list[Path] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and os.fsencode(folder) in (entry / "cmdline").read_bytes():
                found.append(entry)
    return found


def _slow_group() -> Path:
    """Put this process, and all that it starts, on one core at a part of its speed; return where it was before."""
    if not (GROUPS / "cpu.cfs_quota_us").parent.joinpath("cgroup.procs").exists():
        raise SystemExit("SLOW needs control groups of version 1 at /sys/fs/cgroup/cpu, as root")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    group = GROUPS / f"shoal-bench-slow-{os.getpid()}"
    group.mkdir()
    (group / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
    (group / "cpu.cfs_quota_us").write_text(str(int(SLOW * PERIOD_MICROSECONDS)))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    return group


def _leave(group: Path) -> None:
    (GROUPS / "cgroup.procs").write_text(str(os.getpid()))
    with contextlib.suppress(OSError):  # something of a peer lives on
        group.rmdir()


def _speed() -> str:
    """Say what all of this runs on: cores, interpreter, file system."""
    cores = f"one core at {SLOW:g} of its speed" if SLOW else f"{os.cpu_count()} cores"
    python = f"Python {platform.python_version()} of {sys.base_prefix}"
    return f"{cores}, {python}, state on {_file_system(STATE)}"


def _file_system(folder: Path) -> str:
    """The kind of file system that a folder lies on."""
    words = ["stat", "--file-system", "--format=%T", str(folder)]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def _names() -> Sequence[str]:
    return [peer.name for peer in PEERS]


def _spread(seconds: Sequence[float]) -> tuple[float, float]:
    ranked = sorted(seconds)
    return statistics.median(ranked) * 1e3, ranked[int(len(ranked) * 0.99)] * 1e3


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
