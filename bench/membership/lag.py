"""M11: the event loop's lag while ten thousand members are exchanged, at 20 % of a core.

The member under test runs in a process of its own, held to a fifth of a core by a CPU quota where
cgroups allow one; otherwise the lag on a whole core is multiplied by five.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from bench.membership.figure import Figure
from services.membership.config import GossipConfig
from services.membership.events import RecordsReceived
from services.membership.message import SERF_VERSIONS, PushNodeState, SwimState
from services.membership.shell import GossipShell

_MEMBERS = 10_000
_PERIOD_MICROSECONDS = 10_000
_SHARE = 0.2
_CGROUPS = (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/cpu,cpuacct"))


def _strangers(prefix: str) -> list[PushNodeState]:
    return [
        PushNodeState(
            f"{prefix}{index}",
            f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}",
            7946,
            b"\xff\x81\xa4role\xa4edge",
            1,
            SwimState.ALIVE,
            SERF_VERSIONS,
        )
        for index in range(_MEMBERS)
    ]


@contextlib.contextmanager
def _quota(pid: int) -> Iterator[bool]:
    """Hold a process to a fifth of a core; False where that is not possible."""
    for root in _CGROUPS:
        group = root / f"shoal-bench-{pid}"
        try:
            group.mkdir()
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS))
            (group / "cpu.cfs_quota_us").write_text(str(int(_PERIOD_MICROSECONDS * _SHARE)))
            (group / "cgroup.procs").write_text(str(pid))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        try:
            yield True
        finally:
            with contextlib.suppress(OSError):
                (root / "cgroup.procs").write_text(str(pid))
            with contextlib.suppress(OSError):
                group.rmdir()
        return
    yield False


async def _subject() -> None:
    """Be the member under test: print the port, then the worst lag of every half second."""
    # What a long-lived process does when it has imported everything: the collector need not walk
    # modules again and again, which alone takes 15 ms of a whole core.
    gc.collect()
    gc.freeze()
    config = GossipConfig(name="subject", bind_host="127.0.0.1", bind_port=0)
    async with GossipShell(config) as gossip, asyncio.TaskGroup() as tasks:
        gossip._handle(RecordsReceived(_strangers("a")))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        tasks.create_task(gossip.run())
        print(gossip.address.port, flush=True)
        while True:
            worst = 0.0
            end = time.perf_counter() + 0.5
            while (start := time.perf_counter()) < end:
                await asyncio.sleep(0.002)
                worst = max(worst, time.perf_counter() - start - 0.002)
            print(f"{worst:.4f} {len(gossip.members())}", flush=True)


async def m11() -> AsyncIterator[Figure]:
    """Exchange ten thousand members with a member at a fifth of a core."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.membership.lag", stdout=asyncio.subprocess.PIPE
    )
    lines = process.stdout
    if lines is None:
        raise RuntimeError("the subject's output is no pipe")
    try:
        port = int(await lines.readline())
        config = GossipConfig(name="other", bind_host="127.0.0.1", bind_port=0, preset="wan")
        async with GossipShell(config) as gossip:
            gossip._handle(RecordsReceived(_strangers("b")))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            with _quota(process.pid) as held:
                idle = [await _lag(lines) for _ in range(4)][1:]
                joined = asyncio.create_task(gossip.join([f"127.0.0.1:{port}"]))
                lags: list[float] = []
                while not joined.done() or len(lags) < 4:
                    lags.append(await _lag(lines))
                lags += [await _lag(lines) for _ in range(4)]
            scale = 1.0 if held else 1 / _SHARE
            note = (
                f"worst of {len(lags) / 2:.0f} s, idle {1000 * max(idle) * scale:.0f} ms, "
                f"{'CPU quota' if held else 'whole core times five'}, "
                f"joined {joined.result()}, {os.cpu_count()} cores"
            )
            yield Figure("m11_loop_lag_ms", 1000 * max(lags) * scale, 50, note=note)
    finally:
        process.kill()
        await process.wait()


async def _lag(lines: asyncio.StreamReader) -> float:
    async with asyncio.timeout(30):
        return float((await lines.readline()).split()[0])


if __name__ == "__main__":
    asyncio.run(_subject())
