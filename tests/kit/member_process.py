"""One member of ours as a process, for labs: `python -m tests.kit.member_process NAME HOST …`.

It prints a line of JSON with its view for each change of a member.
"""

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from services.membership.config import GossipConfig
from services.membership.preset import LAN
from services.membership.shell import GossipShell
from tests.kit.until import until

PORT = 7946


@dataclass(slots=True)
class MemberProcess:
    """A running member, as its test sees it."""

    name: str
    process: asyncio.subprocess.Process
    view: dict[str, str] = field(default_factory=dict[str, str])
    changes: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    awareness: int = 0

    def died(self) -> list[str]:
        """Whom it has ever declared dead."""
        return [name for kind, name in self.changes if kind == "died"]

    async def follow(self) -> None:
        """Read what it prints."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            said: dict[str, Any] = json.loads(line)
            self.view = said["view"]
            self.awareness = said["awareness"]
            if "kind" in said:
                self.changes.append((said["kind"], said["name"]))


@contextlib.asynccontextmanager
async def member_process(
    prefix: list[str], name: str, host: str, seed: str = "", *options: str
) -> AsyncIterator[MemberProcess]:
    """Run a member behind `prefix` (such as `ip netns exec …`) and follow it."""
    process = await asyncio.create_subprocess_exec(
        *prefix,
        sys.executable,
        "-m",
        "tests.kit.member_process",
        name,
        host,
        f"--seed={seed}",
        *options,
        stdout=asyncio.subprocess.PIPE,
    )
    member = MemberProcess(name, process)
    following = asyncio.create_task(member.follow())
    try:
        await until(lambda: member.view, 20, f"{name} runs")
        yield member
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("host")
    parser.add_argument("--seed", default="", help="host of a member to join")
    parser.add_argument("--reap-seconds", type=float, default=30.0, help="dead are kept so long")
    parser.add_argument("--heal-seconds", type=float, default=10.0, help="lost are tried so often")
    parser.add_argument("--plain-swim", action="store_true", help="without Lifeguard")
    arguments = parser.parse_args()
    config = GossipConfig(
        name=arguments.name,
        bind_host=arguments.host,
        bind_port=PORT,
        serf=False,
        preset=replace(LAN, gossip_to_the_dead_seconds=arguments.reap_seconds),
        heal_interval_seconds=arguments.heal_seconds,
        lifeguard=not arguments.plain_swim,
        seeds=(arguments.seed,) if arguments.seed else (),
    )

    async with GossipShell(config) as gossip, asyncio.TaskGroup() as tasks, gossip.watch() as watch:
        tasks.create_task(gossip.run())
        _say(gossip)
        async for change in watch:
            _say(gossip, kind=str(change.kind), name=change.member.name)


def _say(gossip: GossipShell, **more: str) -> None:
    view = {m.name: m.state.name.lower() for m in gossip.members(all_states=True)}
    said = {"view": view, "awareness": gossip.awareness, **more}
    print(json.dumps(said), flush=True)  # noqa: T201 the protocol with the test


if __name__ == "__main__":
    asyncio.run(_main())
