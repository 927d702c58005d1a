"""Where the time of a short job goes: CPU by process, CPU by step of an attempt's way, system calls by process.

A whole cluster of this machine runs JOBS pipelines of one `/bin/true` three times:

1. Alone. What each process has used is read from /proc: of itself, and of the children that it has reaped.
2. Under py-spy, which looks at the stack of each thread RATE times a second. A sample belongs to the step of the
   innermost function of ours on its stack (STEPS), and the samples of a thread share the CPU time of that thread. What
   no thread of Python's did (gRPC's own threads) stands as such. The second run is slower than the first, so the first
   one's CPU is shared out by the second one's samples.
3. Under strace, which counts system calls: forks, fsyncs, messages, files, wake-ups. Its own time says nothing.

Run it with `make profile-jobs`; JOBS, RATE and SANDBOX (none, user) say how. strace has to be installed; without it the
last table is left out. What it prints is Markdown: docs/profile.md holds such pages of before and after.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from compose.local_cluster import LocalCluster, LocalClusterConfig
from compose.own_sandbox import own_sandbox
from shoal import spec
from shoal.client import Client
from shoal.model import PipelineState
from shoal.sandbox import SandboxLevel
from shoal.view import PipelineView

JOBS: Final = int(os.environ.get("JOBS", "1000"))
RATE: Final = int(os.environ.get("RATE", "100"))
SANDBOX: Final = os.environ.get("SANDBOX", "")
AGENTS, SLOTS = 3, 8
SPY: Final = Path("build") / "bench-py-spy"
TICKS: Final = os.sysconf("SC_CLK_TCK")
PIPELINE: Final = spec.Pipeline(name="profile", jobs=(spec.Job(name="job", run=("/bin/true",)),))

STEPS: Final[Sequence[tuple[str, Sequence[str]]]] = (
    ("submission: client", ("shoal/submitter", "shoal/calls", "shoal/connection", "shoal/client")),
    (
        "submission: read, check, answer",
        ("control/front/api", "control/core/submissions", "control/core/admission", "shoal/check"),
    ),
    ("placement", ("control/core/placement", "control/core/scheduler")),
    ("lifecycle: the other decisions", ("control/core",)),
    ("leader: batches", ("control/leader/leader", "control/leader/inbox", "control/leader/calls")),
    ("store: rows and commits", ("control/store",)),
    ("manifest and archive", ("services/archive", "control/leader/publishing")),
    ("events", ("services/events", "control/leader")),
    ("watch", ("control/front/watch", "control/front/read_model")),
    ("session: controller", ("control/front",)),
    ("session: agent", ("edge_agent/session", "edge_agent/address_requests")),
    ("attempt: decisions", ("edge_agent/attempts/machine", "edge_agent/attempts")),
    ("attempt: journal", ("edge_agent/journal",)),
    ("attempt: user, groups, plan", ("edge_agent/sandbox",)),
    ("attempt: environment", ("edge_agent/environments", "edge_agent/sdk_copy")),
    ("attempt: outputs and logs", ("edge_agent/uploads", "edge_agent/logs")),
    ("attempt: keeper asked", ("edge_agent/keeper_link", "edge_agent/keeper/client")),
    ("keeper: start and end", ("edge_agent/keeper",)),
    ("attempt: folder", ("edge_agent",)),
    ("messages: written and read", ("shoal/wire", "shoal/session", "google/protobuf")),
    ("log lines", ("services/runtime/log", "logging/")),
    ("drivers and group commit", ("services/runtime",)),
    ("gossip", ("services/membership",)),
    ("gRPC for Python", ("grpc/",)),
)
"""The steps, with what the paths of their modules begin with; the first that fits counts."""

CALLS: Final[Mapping[str, Sequence[str]]] = {
    "forks": ("fork", "vfork", "clone", "clone3"),
    "fsyncs": ("fsync", "fdatasync", "syncfs", "sync_file_range"),
    "messages out": ("sendmsg", "sendto", "sendmmsg"),
    "messages in": ("recvmsg", "recvfrom", "recvmmsg"),
    "waits": ("epoll_wait", "epoll_pwait", "poll", "ppoll", "select", "pselect6"),
    "thread wake-ups": ("futex",),
    "files opened": ("open", "openat", "openat2"),
    "files changed": (
        *("mkdir", "mkdirat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir"),
        *("symlink", "symlinkat", "link", "linkat", "chmod", "fchmodat", "chown", "fchownat"),
    ),
}

_ROOT: Final = "services/runtime/process"
_SECONDS: Final = 900.0


Shares = defaultdict[str, float]
"""CPU seconds by step."""


@dataclass(slots=True)
class Usage:
    """CPU seconds of a process, and of the children that it has reaped, since it began."""

    own: float
    children: float
    threads: dict[int, float] = field(default_factory=dict[int, float])


async def main() -> int:
    """Measure, and print the page."""
    # Users of jobs pass it.
    folder = Path(tempfile.mkdtemp(prefix="shoal-profile-", dir="/var/tmp"))
    try:
        os.chmod(folder, 0o755)  # noqa: PTH101, S103 - nothing else runs here
        own = own_sandbox(folder, SandboxLevel(SANDBOX) if SANDBOX else None)
        config = LocalClusterConfig(
            state=folder / "state",
            agents=AGENTS,
            mqtt="none",
            cpus=SLOTS,
            insecure=True,
            sandbox=own.level,
        )
        async with (
            LocalCluster(config) as cluster,
            Client(cluster.controller_address, deadline_seconds=_SECONDS) as client,
        ):
            await _run(client, 10 * AGENTS)  # every agent makes its environment once
            print(f"{JOBS} pipelines of one `/bin/true`, {AGENTS} agents of {SLOTS} slots,")
            print(f"{os.cpu_count()} cores; sandbox {own.said}; load {os.getloadavg()[0]:.1f}.\n")
            alone = await _alone(client, folder)
            await _spied(client, folder, alone)
            if shutil.which("strace") is None:
                print(
                    "strace is not installed, so no system calls were counted: apt install strace"
                )
            else:
                await _counted(client, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


async def _alone(client: Client, folder: Path) -> Mapping[str, float]:
    """CPU ms a job of each kind of process, as it runs with nothing that looks at it."""
    before = _usages(folder)
    began = time.monotonic()
    await _run(client, JOBS)
    seconds = time.monotonic() - began
    own, reaped = defaultdict[str, float](float), defaultdict[str, float](float)
    for pid, (kind, usage) in _usages(folder).items():
        _, first = before.get(pid, (kind, Usage(0.0, 0.0)))
        own[kind] += (usage.own - first.own) * 1e3 / JOBS
        reaped[kind] += (usage.children - first.children) * 1e3 / JOBS
    print(f"## CPU by process: {JOBS / seconds:.0f} jobs a second\n")
    print("| process | itself, ms a job | children that ended, ms a job |\n|---|---:|---:|")
    for kind in sorted(own, key=lambda one: -own[one] - reaped[one]):
        print(f"| {kind} | {own[kind]:.2f} | {reaped[kind]:.2f} |")
    whole, ended = sum(own.values()), sum(reaped.values())
    print(f"| **all: {whole + ended:.2f}** | {whole:.2f} | {ended:.2f} |\n")
    return own


async def _spied(client: Client, folder: Path, alone: Mapping[str, float]) -> None:
    spy = await asyncio.to_thread(_spy)
    before = _usages(folder)
    watched: list[tuple[int, Path, asyncio.subprocess.Process]] = []
    for pid in before:
        output = folder / f"stacks-{pid}"
        words: list[str | Path] = [spy, "record", "--pid", str(pid), "--rate", str(RATE)]
        words += ["--format", "raw", "--threads", "--output", output]
        words += ["--duration", str(int(_SECONDS))]
        watched.append((pid, output, await _quiet(words)))
    await asyncio.sleep(2.0)  # py-spy says nothing once it has found its process
    before = _usages(folder)
    await _run(client, JOBS)
    after = _usages(folder)
    steps = defaultdict[str, Shares](_no_shares)
    for pid, output, process in watched:
        process.send_signal(signal.SIGINT)
        await process.wait()
        if pid in before and pid in after:
            kind, first = before[pid]
            for step, share in _shared(output, first, after[pid][1]).items():
                steps[kind][step] += share
    print("## CPU by step, ms a job\n\n| process | step | ms a job |\n|---|---|---:|")
    for kind, shares in steps.items():
        whole = sum(shares.values())
        for step, share in sorted(shares.items(), key=lambda one: -one[1]):
            part = alone.get(kind, 0.0) * share / whole if whole else 0.0
            if part >= 0.005:
                print(f"| {kind} | {step} | {part:.2f} |")
    print()


def _shared(output: Path, first: Usage, last: Usage) -> Shares:
    """CPU seconds of a process by step: each thread's, by the samples of that thread."""
    samples: dict[int, Counter[str]] = {}
    for line in output.read_text(errors="replace").splitlines() if output.exists() else ():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        number = thread.partition("(")[2].partition(")")[0]
        if number.isdecimal() and count.isdecimal():
            step = _step(frames)
            samples.setdefault(int(number), Counter())[step] += int(count)
    shares = _no_shares()
    for task, seconds in last.threads.items():
        used = seconds - first.threads.get(task, 0.0)
        found = samples.get(task)
        if found is None:
            shares["gRPC's own threads, and short ones"] += used
            continue
        whole = sum(found.values())
        for step, times in found.items():
            shares[step] += used * times / whole
    return shares


def _no_shares() -> Shares:
    return defaultdict(float)


def _step(frames: Sequence[str]) -> str:
    for frame in reversed(frames):
        path = frame.rpartition("(")[2]
        if path.startswith(_ROOT):
            break  # below it is the event loop
        for step, beginnings in STEPS:
            if path.startswith(tuple(beginnings)):
                return step
    return "event loop, threads, the rest"


async def _counted(client: Client, folder: Path) -> None:
    jobs = max(1, JOBS // 4)
    found: dict[str, Counter[str]] = {}
    watched: list[tuple[str, Path, asyncio.subprocess.Process]] = []
    for pid, (kind, _) in _usages(folder).items():
        output = folder / f"calls-{pid}"
        words: list[str | Path] = [
            "strace",
            "-f",
            "-qq",
            "-c",
            "-U",
            "calls,name",
            "-o",
            output,
            "-p",
            str(pid),
        ]
        if kind != "client":  # which would stop itself
            watched.append((kind, output, await _quiet(words)))
    await asyncio.sleep(2.0)
    await _run(client, jobs)
    for kind, output, process in watched:
        process.send_signal(signal.SIGINT)
        await process.wait()
        counts = found.setdefault(kind, Counter())
        for line in output.read_text(errors="replace").splitlines():
            count, _, name = line.strip().partition(" ")
            if count.isdecimal():
                counts[name.strip()] += int(count)
    print("## System calls a job, those of the programs themselves with their keeper\n")
    print("| process | " + " | ".join(CALLS) + " | all |\n|---|" + "---:|" * (len(CALLS) + 1))
    for kind, counts in found.items():
        whole = counts.pop("total", 0) or sum(counts.values())
        each = [sum(counts[name] for name in names) for names in CALLS.values()]
        print(f"| {kind} | " + " | ".join(f"{one / jobs:.2f}" for one in (*each, whole)) + " |")


async def _quiet(words: Sequence[str | Path]) -> asyncio.subprocess.Process:
    quiet = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(*words, stdout=quiet, stderr=quiet)


async def _run(client: Client, jobs: int) -> None:
    async with asyncio.timeout(_SECONDS):
        submitted = await asyncio.gather(*(client.submit(PIPELINE) for _ in range(jobs)))
        left = {one.pipeline.id for one in submitted}
        async with contextlib.aclosing(client.watch()) as changes:
            async for change in _pipelines(changes):
                if change.state.terminal:
                    if change.state is not PipelineState.SUCCEEDED:
                        raise RuntimeError(
                            f"{change.id} ended {change.state.name}: {change.reason}"
                        )
                    left.discard(change.id)
                if not left:
                    return


async def _pipelines(changes: AsyncIterator[object]) -> AsyncIterator[PipelineView]:
    async for change in changes:
        if isinstance(change, PipelineView):
            yield change


def _usages(folder: Path) -> Mapping[int, tuple[str, Usage]]:
    """Every process of the cluster, and this one, which is the client."""
    own = os.times()
    found = {os.getpid(): ("client", Usage(own.user + own.system, 0.0, _threads(os.getpid())))}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if not entry.name.isdecimal():
                continue
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
            if str(folder) not in line or "py-spy" in line or "strace" in line:
                continue
            pid = int(entry.name)
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            itself, reaped = (sum(map(int, fields[at : at + 2])) for at in (11, 13))
            found[pid] = _kind(line), Usage(itself / TICKS, reaped / TICKS, _threads(pid))
    return found


def _kind(line: str) -> str:
    words = line.split("\0")
    if words[0].startswith("shoal-starter"):
        return "starter"
    for kind, word in (
        ("keeper", "edge_agent.keeper"),
        ("stream worker", "services.streams.worker"),
    ):
        if word in words:
            return kind
    return next((kind for kind in ("agent", "controller") if kind in words), words[0])


def _threads(pid: int) -> dict[int, float]:
    found: dict[int, float] = {}
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                found[int(task.name)] = sum(map(int, fields[11:13])) / TICKS
    return found


def _spy() -> Path:
    """Make py-spy's own environment, once, and return the program."""
    program = SPY / "bin" / "py-spy"
    if not program.exists():
        venv.create(SPY, with_pip=True)
        python = SPY / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "py-spy"], check=True)
    return program.absolute()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
