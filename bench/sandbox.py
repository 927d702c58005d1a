"""What a sandbox costs: from the decision to start `true` to the news of its end, for each level.

A real keeper in a process of its own starts the program with the plan that an agent of this machine makes, its user
and its control groups included, and tells the end. Beside it, in the same rounds and in turn, the same program is
started by posix_spawn(3) alone, and by bubblewrap with a namespace of each kind, filters and limits left out. The
machine may be busy with other work, so the ratios count, and not the milliseconds:

- `user` and `confined` beside `none`: what a level adds to a start of ours.
- `confined` beside bubblewrap: what all that is around it adds.

Run it as root with `make bench-sandbox`; ROUNDS says how often each is started. The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

from edge_agent.attempt_folder import AttemptFolder, keeper_id
from edge_agent.keeper.client import KeeperClient, StartRequest, end_keeper, ensure_keeper
from edge_agent.keeper.record import ProcessRecord
from edge_agent.sandbox.control_groups import ControlGroups
from edge_agent.sandbox.job_limits import JobLimits, node_claims
from edge_agent.sandbox.job_users import REGISTRY, JobUsers
from edge_agent.sandbox.narrowing import Narrowing
from edge_agent.sandbox.planning import SandboxPlanning
from edge_agent.sandbox.probe import decide, ground_here, try_levels
from edge_agent.sandbox.user_leavings import UserLeavings
from edge_agent.sandbox.user_range import USERS_OF_JOBS
from shoal.names import AttemptRef
from shoal.sandbox import Sandbox, SandboxLevel
from shoal.spec import Job, Resources

ROUNDS: Final = int(os.environ.get("ROUNDS", "100"))
WARM: Final = 5
"""Starts of each kind that do not count."""
TRUE: Final = shutil.which("true") or "/bin/true"
CLAIMS: Final = Resources(1.0, 256 << 20, processes=64, disk_bytes=256 << 20)
PLAIN: Final = "posix_spawn"
BARE: Final = "bubblewrap"
BARE_WORDS: Final = (
    *("--unshare-all", "--new-session", "--die-with-parent", "--ro-bind", "/", "/"),
    *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--"),  # noqa: S108 - inside of it
)
_SECONDS: Final = 60.0


@dataclass(slots=True)
class Starts:
    """Starts programs at all levels, one after the other."""

    client: KeeperClient
    planning: SandboxPlanning
    state: Path
    number: int = 0

    async def start(self, level: SandboxLevel) -> float:
        """Start one, and return how many seconds it took until its end was told."""
        self.number += 1
        ref = AttemptRef("bench", "p", level.value, self.number, 1)
        name = keeper_id(ref)
        folder = AttemptFolder(self.state / "attempts" / name)
        for path in (folder.path, folder.work, folder.ports, folder.home, folder.tmp):
            path.mkdir()
        job = Job("j", (TRUE,), resources=CLAIMS, sandbox=Sandbox(level))
        begin = time.perf_counter()
        door = self.planning.door(ref, job)
        if door.uid >= 0:
            folder.path.chmod(0o711)
            for path in (folder.work, folder.home, folder.tmp):
                os.chown(path, door.uid, door.uid)
        outline = self.planning.outline(door, job, folder.path.parent, ())
        plan = self.planning.plan(door, outline, folder)
        request = StartRequest(
            name, [TRUE], dict[str, str](), folder.work, folder.stdout, folder.stderr, sandbox=plan
        )
        async with asyncio.timeout(_SECONDS):
            await self.client.start(request)
            ended = await self._ended(name)
        passed = time.perf_counter() - begin
        if ended.exit_code != 0:
            raise SystemExit(f"{level.value}: {ended}")
        await self.client.forget(name)
        self.planning.let_go(name)
        shutil.rmtree(folder.path)
        return passed

    async def _ended(self, name: str) -> ProcessRecord:
        async for record in self.client.exits():
            if record.attempt == name:
                return record
        raise SystemExit("the keeper is gone")


def spawned(words: Sequence[str]) -> float:
    """Start a program by posix_spawn alone, and return how many seconds it took until it was gone."""
    begin = time.perf_counter()
    pid = os.posix_spawn(words[0], list(words), {})
    _, status = os.waitpid(pid, 0)
    passed = time.perf_counter() - begin
    if status:
        raise SystemExit(f"{words}: status {status}")
    return passed


async def main() -> None:
    """Measure, and print a table and the result."""
    if os.geteuid() != 0:
        raise SystemExit("run it as root: others give jobs no users of their own")
    # Users of jobs pass it.
    state = Path(tempfile.mkdtemp(prefix="shoal-bench-", dir="/var/tmp"))
    os.chmod(state, 0o755)  # noqa: PTH101, S103 - nothing else runs here
    groups = ControlGroups.open(f"bench-{os.getpid()}")
    try:
        times = await _measured(state, groups)
    finally:
        await end_keeper(state / "keeper.sock", _SECONDS)
        groups.sweep(())
        groups.close()
        shutil.rmtree(state)
    medians = {name: statistics.median(found) * 1000 for name, found in times.items()}
    base, bare = medians["none"], medians.get(BARE)
    print(f"{'':14}{'median ms':>12}{'p95 ms':>12}{'beside none':>14}{'beside bwrap':>14}")
    for name, found in times.items():
        high = statistics.quantiles(found, n=20)[-1] * 1000
        row = f"{name:14}{medians[name]:12.2f}{high:12.2f}{medians[name] / base:14.2f}"
        print(row + (f"{medians[name] / bare:14.2f}" if bare else ""))
    print(json.dumps({"bench": "sandbox", "rounds": ROUNDS, "median_ms": medians}))


async def _measured(state: Path, groups: ControlGroups) -> dict[str, list[float]]:
    search = os.environ.get("PATH", os.defpath)
    ground = ground_here(state, USERS_OF_JOBS.last, platform.machine(), search)
    node = decide(SandboxLevel.NONE, try_levels(ground))
    node = replace(node, enforces=node_claims(groups.enforces, own_users=True))
    print(
        f"levels {sorted(level.value for level in node.levels)}, claims bind by "
        f"{ {claim.value: by for claim, by in node.enforces.items()} }, filters {node.filters}"
    )
    if SandboxLevel.USER not in node.levels:
        raise SystemExit(f"no users of jobs can be had here: {node.refused}")
    (state / "attempts").mkdir()
    users = JobUsers(
        *(USERS_OF_JOBS, REGISTRY, state, Random(1).random, time.monotonic),
        UserLeavings(USERS_OF_JOBS, time.time),
    )
    narrowing = Narrowing([str(state)], node.filters, platform.machine(), ground.wrapper)
    planning = SandboxPlanning(state, node, users, narrowing, JobLimits(groups))
    planning.open()
    await ensure_keeper(state / "keeper.sock", state / "keeper.log", dict(os.environ))
    async with KeeperClient(state / "keeper.sock") as client:
        await client.watch()
        starts = Starts(client, planning, state)
        kinds: dict[str, Callable[[], Awaitable[float]]] = {}

        async def plain() -> float:
            return spawned((TRUE,))

        async def bare() -> float:
            return spawned((ground.wrapper, *BARE_WORDS, TRUE))

        kinds[PLAIN] = plain
        if ground.wrapper:
            kinds[BARE] = bare
        for level in sorted(node.levels, key=list(SandboxLevel).index):
            kinds[level.value] = lambda level=level: starts.start(level)  # type: ignore[misc]
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(WARM + ROUNDS):
            for name, start in kinds.items():
                passed = await start()
                if number >= WARM:
                    times[name].append(passed)
        return times


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
