"""A cluster with identity, as the manuals set it up, of which each process may be of another build."""

import asyncio
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from edge_agent.keeper.client import KeeperClient, KeeperError, end_keeper
from edge_agent.keeper.record import ProcessRecord
from shoal.client import Client
from shoal.credentials import read_credentials
from shoal.view import NodeView
from tests.kit.builds import ENVIRON, Build
from tests.kit.child_process import ChildProcess
from tests.kit.until import until

LEASE_SECONDS = 60
"""Longer than any process here takes to start on a machine with other work."""


class MixedCluster:
    """Starts controller and agents of any build, again with the state of the one before."""

    def __init__(self) -> None:
        # Short enough for Unix sockets.
        self.folder = Path(tempfile.mkdtemp(prefix="shoal-mixed-"))
        self.state = self.folder / "controller"
        self.controller = ChildProcess(self.folder / "controller.log")
        self.agents: dict[str, ChildProcess] = {}
        self.lease_seconds = LEASE_SECONDS
        self._addresses: dict[str, str] = {}
        self._token = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        for child in (self.controller, *self.agents.values()):
            if child.process is not None:  # shown where the test has failed
                sys.stdout.write(child.log()[-4000:])
        for child in (*self.agents.values(), self.controller):
            child.end(signal.SIGKILL)
        for name in self.agents:
            await end_keeper(self.home(name) / "keeper.sock", 20)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def address(self) -> str:
        """Of the controller."""
        return self._addresses["grpc"]

    @property
    def identity(self) -> Path:
        """Credentials of the operator."""
        return self.state / "identity" / "operator"

    def home(self, name: str) -> Path:
        """State folder of an agent."""
        return self.folder / name

    def client(self) -> Client:
        """A client of this checkout."""
        return Client(self.address, credentials=read_credentials(self.identity))

    async def start_controller(self, build: Build) -> None:
        """Start the controller where it was before."""
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        process = self.controller.run(self._controller(build, ready), ENVIRON, self.folder)
        await until(lambda: ready.exists() or process.poll() is not None, 60, "the ready file")
        assert process.poll() is None, self.controller.log()
        self._addresses = json.loads(ready.read_text())

    async def refused_controller(self, build: Build) -> tuple[int, str]:
        """Start a controller that does not begin; returns its exit status and what it said."""
        process = self.controller.run(
            self._controller(build, self.folder / "ready.json"), ENVIRON, self.folder
        )
        code = await asyncio.to_thread(process.wait, 240)
        self.controller.process = None
        return code, self.controller.log().rstrip().splitlines()[-1]

    def _controller(self, build: Build, ready: Path) -> list[str]:
        free = "127.0.0.1:0"
        ports = [
            word
            for option in ("grpc", "objects", "newcomers")
            for word in (f"--{option}", self._addresses.get(option) or free)
        ]
        return build.command(
            *("controller", "--state", str(self.state), "--ready-file", str(ready), *ports),
            *(
                "--gossip",
                "off",
                "--lease-seconds",
                str(self.lease_seconds),
                "--heartbeat-seconds",
                "1",
            ),
        )

    async def stop_controller(self) -> None:
        """Stop it as its service does."""
        assert await asyncio.to_thread(self.controller.end, signal.SIGTERM) == 0

    async def start_agent(self, name: str, build: Build, *, wait: bool = True) -> None:
        """Start an agent, with what the one before left there; it joins with a token at its first start."""
        if not self._token:
            made = self.call(
                build, "token", "create", "--role", "node", "--name", "*", "--uses", "9"
            )
            self._token = made.split()[0]
        child = self.agents.setdefault(name, ChildProcess(self.folder / f"{name}.log"))
        child.run(
            build.command(
                *("agent", "--name", name, "--state", str(self.home(name)), "--cpus", "4"),
                *("--controller", self.address, "--newcomers", self._addresses["newcomers"]),
                *("--gossip", "off", "--streams", "127.0.0.1:0", "--label", f"board={name}"),
            ),
            # As a variable, since a build of before knows no such option.
            {**ENVIRON, "SHOAL_TOKEN": self._token, "SHOAL_AGENT_SANDBOX": "none"},
            self.folder,
        )
        if wait:
            await self.connected(name)

    async def stop_agent(self, name: str) -> None:
        """End an agent alone, as `systemctl restart` does."""
        assert await asyncio.to_thread(self.agents[name].end, signal.SIGTERM) == 0

    async def down(self, name: str, build: Build) -> None:
        """End a node with its keeper and its jobs, as `shoal agent --down` does."""
        done = await asyncio.to_thread(
            build.call, "agent", "--state", str(self.home(name)), "--down", folder=self.folder
        )
        assert done.returncode == 0, done.stderr
        self.agents[name].process = None

    async def agent_ended(self, name: str) -> int:
        """Wait for an agent that ends by itself, and return its exit status."""
        process = self.agents[name].process
        assert process is not None
        code = await asyncio.to_thread(process.wait, 120)
        self.agents[name].process = None
        return code

    async def connected(self, name: str) -> NodeView:
        """Wait until an agent has a session."""
        async with self.client() as client:

            async def found() -> list[NodeView]:
                nodes = await client.nodes()
                return [node for node in nodes if node.name == name and node.connected]

            return (await until(found, 60, f"a session of {name}"))[0]

    async def kept(self, name: str) -> list[ProcessRecord]:
        """What the keeper of a node has, helpers too; empty where there is none."""
        try:
            async with KeeperClient(self.home(name) / "keeper.sock") as keeper:
                return [one for one in await keeper.list() if one.running]
        except KeeperError:
            return []

    async def kept_processes(self, name: str) -> Mapping[str, int]:
        """Names and processes of what the keeper of a node has, the stream worker too."""
        return {one.attempt: one.pid for one in await self.kept(name)}

    def call(self, build: Build, *words: str) -> str:
        """Run a command of a build as the operator, and return what it printed."""
        done = build.call(
            *words,
            folder=self.folder,
            SHOAL_CONTROLLER=self.address,
            SHOAL_IDENTITY=str(self.identity),
        )
        assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout
