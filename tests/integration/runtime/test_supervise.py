"""The script that keeps an agent running in its container, with a real agent and without a container."""

import os
import signal
import sys
from pathlib import Path

import psutil

from edge_agent.keeper.client import end_keeper
from tests.kit.child_process import ChildProcess
from tests.kit.tree import ROOT
from tests.kit.until import until


def _agents(script: int) -> list[psutil.Process]:
    """Those that wait for the script; one that was killed is none."""
    return [
        one
        for one in psutil.Process(script).children()
        if one.status() != psutil.STATUS_ZOMBIE and "--state" in one.cmdline()
    ]


async def test_an_agent_that_is_killed_is_started_again_until_the_script_is_asked_to_end(
    tmp_path: Path,
) -> None:
    supervised = ChildProcess(tmp_path / "log")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    state = tmp_path / "state"
    process = supervised.run(
        [
            "sh", str(ROOT / "edge_agent" / "supervise.sh"), "agent", "--name", "node-1", "--state", str(state),
            "--controller", "127.0.0.1:1", "--gossip", "off", "--streams", "127.0.0.1:0", "--insecure",
            "--sandbox", "none",
        ],
        {**os.environ, "PATH": path},
    )  # fmt: skip
    try:
        await until((state / "keeper.sock").exists, 30, "the agent has a keeper")
        (first,) = _agents(process.pid)
        first.kill()
        await until(lambda: "ended with status 137" in supervised.log(), 10, "its end is told")
        assert "too little memory" in supervised.log()
        await until(
            lambda: any(one.pid != first.pid for one in _agents(process.pid)), 20, "another agent"
        )
        (second,) = _agents(process.pid)
        second.kill()
        told = "ended with status 137"
        await until(lambda: supervised.log().count(told) == 2, 10, "the script waits")
        assert supervised.end(signal.SIGTERM) == 0
        assert supervised.log().count(told) == 2
    finally:
        left = _agents(process.pid) if supervised.process else []
        supervised.end(signal.SIGKILL)
        for one in left:
            one.kill()
        await end_keeper(state / "keeper.sock", 20)
