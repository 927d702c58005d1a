"""The processes of one board of a local cluster: agent, keeper, stream worker, programs."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from compose.local_cluster import LocalCluster
from edge_agent.keeper.strays import KEEPER_VARIABLE, environment, keeper_word


@dataclass(frozen=True, slots=True)
class BoardProcesses:
    """Process ids; 0 for one that does not run now.

    `programs` has those of jobs, by the file that Python runs.
    """

    agent: int
    keeper: int
    worker: int
    programs: dict[str, int]


def processes_of(cluster: LocalCluster, node: str) -> BoardProcesses:
    """Look at what runs on a board now."""
    socket = str(cluster.state_of(node) / "keeper.sock")
    agent = keeper = worker = 0
    with contextlib.suppress(ProcessLookupError):
        agent = cluster.agents[node].pid
    programs: dict[str, int] = {}
    for pid in _pids():
        words = _words(pid)
        if "edge_agent.keeper" in words and socket in words:
            keeper = pid
        elif environment(pid).get(KEEPER_VARIABLE) == keeper_word(socket):
            if "services.streams.worker" in words:
                worker = pid
            elif len(words) > 1 and words[1].endswith(".py"):
                programs[Path(words[1]).name] = pid
    return BoardProcesses(agent, keeper, worker, programs)


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; False if there is no such process any more."""
    if not pid:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
