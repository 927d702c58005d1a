"""Figures on the real clock, against Go's memberlist in the same run: M4, M5, M11."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bench.membership.figure import Figure
from services.membership.config import GossipConfig
from services.membership.member import ChangeKind
from services.membership.shell import GossipShell
from tests.kit.memberlist import GoMembers
from tests.kit.until import until

_TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def cluster(count: int, seed: str = "") -> AsyncIterator[list[GossipShell]]:
    """Run plain members in this process."""
    async with contextlib.AsyncExitStack() as stack:
        members: list[GossipShell] = []
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        for index in range(count):
            config = GossipConfig(
                name=f"py{index}",
                bind_host="127.0.0.1",
                bind_port=0,
                serf=False,
                seeds=(seed or (str(members[0].address) if members else ""),)
                if seed or members
                else (),
            )
            gossip = await stack.enter_async_context(GossipShell(config))
            members.append(gossip)
        running = [tasks.create_task(gossip.run()) for gossip in members]
        try:
            yield members
        finally:
            for task in running:
                task.cancel()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def m5(count: int = 100, seconds: float = 20.0) -> AsyncIterator[Figure]:
    """Idle traffic and CPU of a member, ours and Go's in turn."""
    theirs = await _go_idle(count, seconds)
    async with cluster(count) as members:
        await until(
            lambda: all(len(gossip.members()) == count for gossip in members), 60, "converged"
        )
        await asyncio.sleep(10)  # the eager exchanges of the start are over
        sent = sum(gossip.counters["bytes_sent"] for gossip in members)
        packets = sum(gossip.counters["packets_sent"] for gossip in members)
        cpu, start = time.process_time(), time.perf_counter()
        await asyncio.sleep(seconds)
        taken = time.perf_counter() - start
        cpu = time.process_time() - cpu
        sent = sum(gossip.counters["bytes_sent"] for gossip in members) - sent
        packets = sum(gossip.counters["packets_sent"] for gossip in members) - packets
        note = f"{packets / taken / count:.2f} packets; memberlist 151 B"
        yield Figure("m5_bytes_per_member_and_second", sent / taken / count, 90, note=note)
        mine = 1000 * cpu / taken / count
        note = f"memberlist in the same run {theirs:.3f} ms"
        yield Figure("m5_cpu_ms_per_member_and_second", mine, theirs, note=note)


async def _go_idle(count: int, seconds: float) -> float:
    async with GoMembers(count=count) as go:
        for index in range(1, count):
            go.tell("join", index, go.address(0))

        async def converged() -> bool:
            return len(await go.members(count - 1)) == count

        await until(converged, 60, "Go members converge")
        await asyncio.sleep(5)
        cpu, start = _cpu_seconds(go.pid), time.perf_counter()
        await asyncio.sleep(seconds)
        return 1000 * (_cpu_seconds(go.pid) - cpu) / (time.perf_counter() - start) / count


async def m4(each: int = 20, kills: int = 30) -> AsyncIterator[Figure]:
    """Detection by ours against theirs, in one cluster: `kills` victims, one every two seconds."""
    async with contextlib.AsyncExitStack() as stack:
        go = await stack.enter_async_context(GoMembers(count=each + kills))
        ours = await stack.enter_async_context(cluster(each, go.address(0)))
        for index in range(1, each + kills):
            go.tell("join", index, go.address(0))
        everybody = 2 * each + kills
        await until(
            lambda: all(len(gossip.members()) == everybody for gossip in ours), 60, "converged"
        )
        await asyncio.sleep(5)
        killed: dict[str, float] = {}
        found: dict[str, list[float]] = {}
        async with asyncio.TaskGroup() as tasks:
            watching = [tasks.create_task(_deaths(gossip, found)) for gossip in ours]
            for index in range(each, each + kills):
                killed[f"go{index}"] = time.time()
                go.tell("kill", index)
                await asyncio.sleep(2)
            await until(
                lambda: all(len(found.get(name, [])) >= each for name in killed),
                60,
                "ours find every death",
            )
            await asyncio.sleep(3)
            for task in watching:
                task.cancel()
        mine = sorted(when - killed[name] for name in killed for when in found[name])
        theirs = sorted(
            seen.when - killed[name]
            for name in killed
            for seen in go.saw("leave", name)
            if int(seen.observer[2:]) < each
        )
        note = f"ours {_quantiles(mine)}, Go {_quantiles(theirs)}"
        ratio = statistics.median(mine) / statistics.median(theirs)
        yield Figure("m4_median_against_go", ratio, 1.05, note=note)
        ratio = mine[int(0.99 * len(mine))] / theirs[int(0.99 * len(theirs))]
        yield Figure("m4_p99_against_go", ratio, 1.05)


async def _deaths(gossip: GossipShell, found: dict[str, list[float]]) -> None:
    async with gossip.watch() as watch:
        async for change in watch:
            if change.kind is ChangeKind.DIED:
                found.setdefault(change.member.name, []).append(time.time())


def _quantiles(values: list[float]) -> str:
    return f"p50 {statistics.median(values):.2f} s p99 {values[int(0.99 * len(values))]:.2f} s"
