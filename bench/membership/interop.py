"""M1: three Serf agents and three of ours on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from bench.membership.figure import Figure
from services.membership.config import GossipConfig
from services.membership.member import ChangeKind
from services.membership.message import SwimState
from services.membership.shell import GossipShell
from tests.kit.serf import SerfAgent
from tests.kit.until import until

_QUIET_SECONDS = 60.0


class _Suspects:
    """Counts suspicions."""

    def __init__(self) -> None:
        self.count = 0

    async def follow(self, gossip: GossipShell) -> None:
        """Count those of one member."""
        async with gossip.watch() as watch:
            async for change in watch:
                self.count += change.kind is ChangeKind.SUSPECTED


async def m1() -> AsyncIterator[Figure]:
    """Join, tags, a minute of quiet, a kill, a stop."""
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        agents = [await enter(SerfAgent(name="serf0", folder=folder))]
        first = agents[0].address
        agents += [
            await enter(SerfAgent(name=f"serf{index}", folder=folder, join=[first]))
            for index in (1, 2)
        ]
        tasks = await enter(asyncio.TaskGroup())
        ours: list[GossipShell] = []
        running: list[asyncio.Task[None]] = []
        start = time.monotonic()
        for index in range(3):
            config = GossipConfig(name=f"py{index}", bind_host="127.0.0.1", bind_port=0)
            gossip = await enter(GossipShell(config))
            running.append(tasks.create_task(gossip.run()))
            await gossip.join([first])
            ours.append(gossip)
        await until(lambda: all(len(g.members()) == 6 for g in ours), 20, "ours see six")
        yield Figure("m1_ours_see_six_seconds", time.monotonic() - start, 2)
        await _serf_sees(agents[1:], lambda view: len(view) == 6)
        yield Figure("m1_serf_sees_six_seconds", time.monotonic() - start, 2)

        start = time.monotonic()
        await ours[0].set_tags({"a": "b"})

        async def tagged() -> bool:
            return bool((await agents[2].rows())["py0"]["tags"] == {"a": "b"})

        await until(tagged, 10, "serf sees our tag")
        yield Figure("m1_tag_seen_by_serf_seconds", time.monotonic() - start, 2)

        suspects = _Suspects()
        running += [tasks.create_task(suspects.follow(gossip)) for gossip in ours]
        await asyncio.sleep(_QUIET_SECONDS)
        heard = sum(agent.log.count("Suspect") for agent in agents)
        note = f"in {_QUIET_SECONDS:.0f} s; serf's logs say Suspect {heard} times"
        yield Figure("m1_suspicions_when_quiet", suspects.count + heard, 0, note=note)

        agents[2].signal(signal.SIGSTOP)
        await asyncio.sleep(3.5)
        agents[2].signal(signal.SIGCONT)
        await until(
            lambda: all(_state(gossip, "serf2") is SwimState.ALIVE for gossip in ours),
            20,
            "the stopped one is well",
        )
        failed = [agent.log.count("EventMemberFailed") for agent in agents]
        yield Figure("m1_failed_after_3.5_s_stop", sum(failed), 0)

        # 4 s of suspicion at six members, after a probe of 1 s that somebody has to begin.
        start = time.monotonic()
        agents[2].signal(signal.SIGKILL)
        await until(
            lambda: all(_state(gossip, "serf2") is SwimState.DEAD for gossip in ours), 40, "dead"
        )
        mine = time.monotonic() - start
        await _serf_sees(agents[:2], lambda view: view.get("serf2") == "failed")
        theirs = time.monotonic() - start
        yield Figure("m1_kill_found_by_ours_seconds", mine, 4 + 1.58 + 1.5)
        yield Figure("m1_kill_found_by_serf_seconds", theirs, 4 + 1.58 + 1.5)
        await ours[2].leave(5)
        await _serf_sees(agents[:2], lambda view: view.get("py2") == "left")
        for task in running:
            task.cancel()


def _state(gossip: GossipShell, name: str) -> SwimState | None:
    found = [m.state for m in gossip.members(all_states=True) if m.name == name]
    return found[0] if found else None


async def _serf_sees(agents: list[SerfAgent], wanted: Callable[[dict[str, str]], bool]) -> None:
    async def seen() -> bool:
        return all([wanted(await agent.members()) for agent in agents])

    await until(seen, 40, "serf sees it")
