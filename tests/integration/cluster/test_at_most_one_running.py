"""R5: two attempts of a job that is `at_most_one_running` never run at the same time, whatever its board does.

Invariant 5 of docs/guarantees.md, with real processes.

Each attempt, and a daemon of it that left its group and its environment, appends its number and the time to one file
every few milliseconds. They ignore SIGTERM. The file tells whether two attempts overlapped.
"""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from compose.local_cluster import LocalCluster
from shoal.client import Client
from shoal.view import PipelineView
from tests.integration.keeper.programs import keeper_of
from tests.kit.cluster import describe, running_cluster, submit, when
from tests.kit.until import until

LEASE = 3.0
SPEC = """
name: once
bundle: .
jobs:
  alone: {{run: [sh, alone.sh, {ledger}], placement: at_most_one_running}}
"""
ALONE = """
trap '' TERM
beat() { while :; do read up rest < /proc/uptime; echo "$1 $up" >> $2; sleep 0.01; done; }
if [ $# = 1 ]; then
  env -i setsid sh $0 $SHOAL_ATTEMPT $1 &
  beat $SHOAL_ATTEMPT $1
fi
trap '' TERM HUP
beat $1 $2
"""
Board = tuple[LocalCluster, Client]


@pytest.fixture
async def boards(tmp_path: Path) -> AsyncIterator[Board]:
    async with running_cluster(tmp_path / "c", agents=2, lease_seconds=LEASE) as found:
        yield found


def processes(cluster: LocalCluster, name: str) -> tuple[int, int]:
    """Agent and keeper of a board."""
    return cluster.agents[name].pid, keeper_of(cluster.state_of(name))


def attempts(ledger: Path) -> dict[int, list[float]]:
    """When each attempt was seen to run; seconds since the machine started."""
    seen: dict[int, list[float]] = {}
    for line in ledger.read_text().splitlines() if ledger.exists() else []:
        number, _, at = line.partition(" ")
        seen.setdefault(int(number), []).append(float(at))
    return seen


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_r5_no_overlap_when_agent_and_keeper_are_killed_or_stand_still(
    boards: Board, tmp_path: Path, number: signal.Signals
) -> None:
    cluster, client = boards
    ledger = tmp_path / "ledger"
    files = {"alone.sh": ALONE}
    name = (await submit(client, tmp_path / "p", SPEC.format(ledger=ledger), files)).pipeline.name
    await until(lambda: len(attempts(ledger).get(1, [])) > 20, 20, "the first attempt")
    first = (await client.get(name)).jobs[0].node
    stopped = processes(cluster, first)
    for pid in stopped:
        os.kill(pid, number)
    await until(lambda: len(attempts(ledger).get(2, [])) > 50, 20, "its replacement")
    if number is signal.SIGSTOP:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        await cluster.wait_for_agents([first])

    def settled(now: PipelineView) -> bool:
        return now.jobs[0].node != first and len(now.jobs[0].attempts) == 2

    view = await when(client, name, settled)
    before = len(attempts(ledger)[2])
    await until(lambda: len(attempts(ledger)[2]) > before + 50, 20, "the replacement running on")
    seen = attempts(ledger)
    assert max(seen[1]) < min(seen[2]), describe(view)
    assert set(seen) == {1, 2}
    await client.cancel(name)
    await client.wait(name, deadline_seconds=30)
    await cluster.kill_board(first)  # its stream worker outlived its keeper
