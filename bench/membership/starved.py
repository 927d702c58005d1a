"""M7 with real processes: six of twenty held to 5 % of a core, beside a busy loop."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from bench.membership.figure import Figure
from tests.kit.member_process import MemberProcess, member_process
from tests.kit.until import until

_MEMBERS = 20
_STARVED = 6
_PERIOD_MICROSECONDS = 1_000_000
_SHARE = 0.05
_ROOT = Path("/sys/fs/cgroup/cpu")


@contextlib.contextmanager
def starving(name: str, *processes: int) -> Iterator[None]:
    """Hold processes together to 5 % of a core.

    Raises:
        OSError: There is no version 1 CPU controller, or one may not use it.
    """
    group = _ROOT / name
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS))
        (group / "cpu.cfs_quota_us").write_text(str(int(_PERIOD_MICROSECONDS * _SHARE)))
        for process in processes:
            (group / "cgroup.procs").write_text(str(process))
        yield
    finally:
        for process in processes:
            with contextlib.suppress(OSError):
                (_ROOT / "cgroup.procs").write_text(str(process))
        with contextlib.suppress(OSError):
            group.rmdir()


async def _false_verdicts(seconds: float, *options: str) -> int:
    """Run twenty members, six of them starved, and count who was ever declared dead."""
    async with contextlib.AsyncExitStack() as stack:
        members: list[MemberProcess] = []
        for index in range(1, _MEMBERS + 1):
            seed = "127.0.77.1" if index > 1 else ""
            started = member_process([], f"n{index}", f"127.0.77.{index}", seed, *options)
            members.append(await stack.enter_async_context(started))
        await until(
            lambda: all(len(member.view) == _MEMBERS for member in members), 60, "all are known"
        )
        for member in members[-_STARVED:]:
            hog = await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass")
            stack.push_async_callback(hog.wait)
            stack.callback(hog.kill)
            pid = member.process.pid
            stack.enter_context(starving(f"shoal-starved-{pid}", pid, hog.pid))
        before = sum(len(member.died()) for member in members)
        await asyncio.sleep(seconds)
        return sum(len(member.died()) for member in members) - before


async def m7_real(seconds: float = 60.0) -> AsyncIterator[Figure]:
    """False verdicts with Lifeguard and without, in turn."""
    try:
        without = await _false_verdicts(seconds, "--plain-swim")
        with_it = await _false_verdicts(seconds)
    except OSError as error:
        print(f"skip m7_real: {error}", file=sys.stderr)
        return
    note = f"plain SWIM {without}, in {seconds:.0f} s each (6 of 20 processes at 5 % of a core)"
    yield Figure("m7_real_false_verdicts", with_it, 0, note=note)
