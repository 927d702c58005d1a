"""An agent as a real process, with whatever it left behind ended at the end."""

import asyncio
import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from edge_agent.attempts.phase import Phase
from edge_agent.keeper.client import end_keeper
from edge_agent.keeper.strays import KEEPER_VARIABLE, environment, keeper_word
from shoal.names import AttemptRef
from tests.kit.child_process import ChildProcess


class AgentProcess(ChildProcess):
    """One agent with a state folder of its own, whose path is short enough for Unix sockets.

    Args:
        controller: address of its controller; empty for one that it has to find.
        extra: further words of its command line.
        environ: its variables; None for those of the test.
    """

    def __init__(
        self,
        controller: str,
        *extra: str,
        name: str = "node-1",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.state = Path(tempfile.mkdtemp(prefix="shoal-agent-"))
        self.name = name
        super().__init__(self.state / "agent.log")
        self._controller = controller
        self._extra = extra
        self._environ = environ

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.kill()
        await end_keeper(self.state / "keeper.sock", 20)
        shutil.rmtree(self.state, ignore_errors=True)

    def start(self, *extra: str) -> None:
        """Start it, again with the same state if it ran before."""
        self.run([*self.argv(), *self._extra, *extra], self._environ)

    def argv(self) -> list[str]:
        """The command without the words of one test."""
        return [
            sys.executable, "-c", "from edge_agent.main import agent; agent()",
            "--name", self.name, "--state", str(self.state),
            *(("--controller", self._controller) if self._controller else ()),
            "--gossip", "off", "--streams", "127.0.0.1:0", "--cpus", "4", "--log-level", "DEBUG",
            "--insecure", "--sandbox", "none",
        ]  # fmt: skip

    def kill(self) -> None:
        """End it without warning; keeper, stream worker and jobs go on."""
        self.end(signal.SIGKILL)

    async def terminate(self) -> int:
        """Ask it to end, and return its exit code."""
        return await asyncio.to_thread(self.end, signal.SIGTERM)

    async def call(self, *extra: str) -> tuple[int, str]:
        """Run the command beside the agent to its end; returns its exit code and what it said."""
        words = [*self.argv(), *extra]
        done = await asyncio.to_thread(
            subprocess.run,
            words,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def journal(self, ref: AttemptRef) -> dict[str, Any]:
        """What the agent has recorded of an attempt that is not as in a new one, and its phase."""
        with contextlib.closing(sqlite3.connect(self.state / "agent.db", timeout=5)) as database:
            row = database.execute("SELECT record FROM attempt WHERE key = ?", (ref.prefix,))
            found = row.fetchone()
        return {"phase": Phase.BUNDLE.value, **json.loads(found[0])} if found else {}

    def processes(self) -> list[int]:
        """Every process of this node: its keeper's, and its own."""
        socket = str(self.state / "keeper.sock")
        named = {socket, keeper_word(socket)}  # a keeper of 0.1 gives the path
        return [pid for pid in _pids() if environment(pid).get(KEEPER_VARIABLE) in named] + [
            pid for pid in _pids() if str(self.state) in _command(pid)
        ]

    def attempts(self) -> list[str]:
        """Folders of attempts that are left."""
        folder = self.state / "attempts"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


async def ended(pid: int) -> bool:
    """Say whether a process is gone, a zombie counting as gone."""
    await asyncio.to_thread(lambda: None)
    return not environment(pid) and not _command(pid)
