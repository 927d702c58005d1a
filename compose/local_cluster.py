"""A whole cluster as processes of this machine: broker, controller, agents."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from compose import broker
from compose.child import Child, ChildEndedError
from compose.processes import running
from services.runtime.process import StartRefusedError
from services.runtime.state_folder import PRIVATE_FILE, PRIVATE_FOLDER, prepare_state_folder
from shoal.identity import Role
from shoal.sandbox import SandboxLevel

if TYPE_CHECKING:
    from shoal.client import Client

_READY_SECONDS: Final = 60.0
_EARLIER_SECONDS: Final = 45.0
"""How long the processes of a killed cluster have: an agent ends its jobs first."""
_JOIN_SECONDS: Final = 600.0
"""How long the agents' token is good."""
_NO_BROKER: Final = "none"
_PASSED_FOLDER: Final = 0o711
LOCK_NAME: Final = "cluster.lock"
"""File in the state folder that a running cluster holds locked."""


@dataclass(frozen=True, slots=True)
class LocalClusterConfig:
    """What to start, and where its files go.

    `mqtt` is a broker's address, "auto" (mosquitto, if the program is at hand) or "none".
    `archive` is an object store's address; empty means a folder below `state`.
    `node_prefix` and a number from 1 are the name of each agent.
    `cpus` is what each agent says it has, so that a pipeline fits a small machine.
    `controller_environ`: further variables of the controller, such as SHOAL_CONTROLLER_SOURCE_BUCKETS.
    `insecure`: every process believes every other. Else the controller makes an identity for the cluster,
    and lets the agents join.
    `stop_jobs`: agents end their jobs when they are asked to end, which is also when this process
    ends, however it does.
    `sandbox`: the level of the agents' jobs, as `shoal agent --sandbox` takes it.
    """

    state: Path
    agents: int = 3
    mqtt: str = "auto"
    archive: str = ""
    grpc_port: int = 0
    cpus: float = 0.0
    lease_seconds: float = 6.0
    labels: Mapping[str, str] | None = None
    stop_jobs: bool = False
    insecure: bool = False
    controller_environ: Mapping[str, str] | None = None
    node_prefix: str = "node-"
    sandbox: SandboxLevel = SandboxLevel.NONE


class LocalCluster:
    """Starts everything on entry, waits until every agent has its session, ends everything on exit.

    The agents' jobs end with it too, but what is archived and recorded stays in `state`.

    Raises:
        StartRefusedError: Another cluster runs in the same state folder, or it cannot be written.
        ChildEndedError: A process did not come up; holds the end of its log.
    """

    def __init__(self, config: LocalClusterConfig) -> None:
        self.config = config
        self.controller_address = ""
        self.gossip_address = ""
        self.broker_url = "" if config.mqtt in {"auto", _NO_BROKER} else config.mqtt
        self.broker: Child | None = None
        self._environ = {**os.environ, **(config.controller_environ or {})}
        # Boards hold no keys of the object store; only the controller signs.
        agent_environ = {
            key: value for key, value in os.environ.items() if not key.startswith("AWS_")
        }
        # Nodes of one machine share what is fetched, with each other and with the uv of its user.
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        agent_environ.setdefault("UV_CACHE_DIR", str(cache / "uv"))
        self.controller = Child(
            "controller",
            self._controller_argv,
            self._path("controller.log"),
            environ=self._environ,
        )
        names = [f"{config.node_prefix}{number}" for number in range(1, config.agents + 1)]
        self._agent_environs = {name: {**agent_environ} for name in names}
        self.agents: dict[str, Child] = {name: self._agent(name) for name in names}
        self._objects_address = ""
        self._newcomers_address = ""
        self._lock: int | None = None

    async def __aenter__(self) -> Self:
        """Start everything."""
        # Before anything else: what is cleaned up below would be the other cluster's.
        self._lock = await asyncio.to_thread(_lock, self.config.state)
        try:
            await self._await_earlier()
            await self._start()
        except BaseException as error:
            await self.__aexit__()
            if isinstance(error, OSError) and error.filename is not None:  # it is about a file
                raise _unwritable(self.config.state, error) from error
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End everything, jobs first."""
        await asyncio.gather(*(agent.stop() for agent in self.agents.values()))
        await asyncio.gather(*(self._end_jobs(name) for name in self.agents))
        await self.controller.stop()
        if self.broker is not None:
            await self.broker.stop()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def run(self) -> None:
        """Start again whatever ends unexpectedly; until cancelled."""
        children = [self.controller, *self.agents.values()]
        if self.broker is not None:
            children.append(self.broker)
        async with asyncio.TaskGroup() as group:
            for child in children:
                group.create_task(child.supervise())

    @property
    def newcomers_address(self) -> str:
        """Where boards and people join with a token, host:port; empty where there are no identities."""
        return self._newcomers_address

    @property
    def identity(self) -> Path | None:
        """Folder of the operator's credentials; None where the cluster has no identity."""
        from services.identity.local_operator import FOLDER  # noqa: PLC0415 - for a quick --help

        return None if self.config.insecure else self._path("controller") / "identity" / FOLDER

    def client(self, *, deadline_seconds: float = 30.0) -> "Client":
        """Make a client of its controller, as an operator.

        Raises:
            CredentialsError: what the controller keeps for the operator cannot be read.
        """
        from shoal.client import Client  # noqa: PLC0415 - for a quick --help
        from shoal.credentials import read_credentials  # noqa: PLC0415 - for a quick --help

        proved = None if self.identity is None else read_credentials(self.identity)
        return Client(
            self.controller_address, credentials=proved, deadline_seconds=deadline_seconds
        )

    def state_of(self, name: str) -> Path:
        """State folder of one agent."""
        return self.config.state / name

    async def kill_board(self, name: str) -> None:
        """Do to one node what a power cut does: agent, keeper, stream worker and jobs die at once."""
        from edge_agent.keeper.strays import end, end_everything_of  # noqa: PLC0415 - for a quick --help

        agent = self.agents[name]
        await agent.kill()
        socket = str(self.state_of(name) / "keeper.sock")
        keepers = running(b"edge_agent.keeper")
        end(pid for pid, words in keepers if os.fsencode(socket) in words)
        await asyncio.to_thread(end_everything_of, socket)

    async def wait_for_agents(self, names: Sequence[str], deadline_seconds: float = 60.0) -> None:
        """Return once all of `names` have a session.

        Raises:
            ChildEndedError: The process of one has ended before; holds the end of its log.
            TimeoutError: They had none in time; names those that are missing.
        """
        missing = set(names)
        try:
            async with asyncio.timeout(deadline_seconds), self.client() as client:
                while missing:
                    nodes = await client.nodes()
                    missing = set(names) - {node.name for node in nodes if node.connected}
                    for name in sorted(missing):
                        if not self.agents[name].running:
                            raise ChildEndedError(
                                f"{name} ended before it had a session:\n{self.agents[name].tail()}"
                            )
                    if missing:
                        await asyncio.sleep(0.05)
        except TimeoutError:
            tails = "\n".join(f"{name}:\n{self.agents[name].tail()}" for name in sorted(missing))
            raise TimeoutError(
                f"no session within {deadline_seconds:g} s from {', '.join(sorted(missing))}\n{tails}"
            ) from None

    async def _await_earlier(self) -> None:
        """Let what an earlier cluster with these files started come to its end.

        Where that one was killed, its processes hear of it from the kernel and end in their own time.

        Raises:
            StartRefusedError: One does not end; names it.
        """
        try:
            async with asyncio.timeout(_EARLIER_SECONDS):
                while await asyncio.to_thread(self._earlier):  # noqa: ASYNC110 - other processes
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise StartRefusedError(
                f"{self._earlier()} of an earlier cluster with its files in {self.config.state} does "
                f"not end within {_EARLIER_SECONDS:g} s: end it with `kill`, or name another folder "
                "with --state"
            ) from None

    def _earlier(self) -> str:
        """Name a process that still holds a folder of this cluster; empty if there is none."""
        from edge_agent.shutdown import agent_pid  # noqa: PLC0415 - for a quick --help

        for name in self.agents:
            if pid := agent_pid(self.state_of(name)):
                return f"the agent {name} (process {pid})"
        locks = self._path("controller").glob("*.lock")  # beside its store
        return "the controller" if any(_is_locked(lock) for lock in locks) else ""

    async def _start(self) -> None:
        await asyncio.to_thread(self._open_folder)
        await self._start_broker()
        if self.broker_url:
            # Not on its command line: it may hold a password, and every user of the machine reads those.
            self._environ["SHOAL_CONTROLLER_MQTT"] = self.broker_url
        ready = self._path("controller.ready")
        await asyncio.to_thread(ready.unlink, missing_ok=True)
        await self.controller.start()
        await asyncio.to_thread(_load_client)  # while the controller starts, on another core
        await self.controller.ready(ready, _READY_SECONDS)
        addresses = json.loads(await asyncio.to_thread(ready.read_text))
        self.controller_address = addresses["grpc"]
        self.gossip_address = addresses["gossip"]
        self._objects_address = addresses.get("objects") or ""
        self._newcomers_address = addresses.get("newcomers") or ""
        await self._make_token()
        for agent in self.agents.values():
            await agent.start()
        await self.wait_for_agents(list(self.agents), _READY_SECONDS)

    def _open_folder(self) -> None:
        """Let users of jobs through to the folders of agents, and into no other."""
        if not self.config.archive:
            self._path("archive").mkdir(exist_ok=True)
            self._path("archive").chmod(PRIVATE_FOLDER)
        if self.config.sandbox is not SandboxLevel.NONE:
            self.config.state.chmod(_PASSED_FOLDER)

    async def _make_token(self) -> None:
        """Let those agents join that have not joined yet; a token is no word of a command line."""
        from shoal.credentials import IDENTITY_FILE  # noqa: PLC0415 - for a quick --help

        new = [
            name
            for name in self.agents
            if not (self.state_of(name) / "identity" / IDENTITY_FILE).exists()
        ]
        if self.config.insecure or not new:
            return
        async with self.client() as client:
            word, _ = await client.create_token(
                Role.NODE,
                name_pattern=f"{self.config.node_prefix}*",
                ttl_seconds=_JOIN_SECONDS,
                uses=len(new),
            )
        # An agent that has joined would join anew with it, and use it up.
        for name in new:
            self._agent_environs[name]["SHOAL_TOKEN"] = word

    async def _start_broker(self) -> None:
        program = broker.find_mosquitto()
        if self.config.mqtt != "auto" or program is None:
            return
        port = await asyncio.to_thread(broker.kept_port, self._path("mosquitto"))
        config = broker.write_config(self._path("mosquitto"), port)
        self.broker = Child(
            "mosquitto",
            lambda: broker.command(program, config),
            self._path("mosquitto.log"),
            orphaned=signal.SIGTERM,  # SIGHUP lets it read its configuration again
        )
        await self.broker.start()
        self.broker_url = f"mqtt://127.0.0.1:{port}"

    async def _end_jobs(self, name: str) -> None:
        from edge_agent.keeper.client import KeeperClient, KeeperGoneError  # noqa: PLC0415 - for a quick --help

        with contextlib.suppress(KeeperGoneError, TimeoutError):
            async with (
                asyncio.timeout(10),
                KeeperClient(self.state_of(name) / "keeper.sock") as keeper,
            ):
                await keeper.shutdown()
                await keeper.watch()
                async for _ in keeper.exits():
                    pass

    def _agent(self, name: str) -> Child:
        log = self._path(f"{name}.log")
        return Child(name, lambda: self._agent_argv(name), log, environ=self._agent_environs[name])

    def _controller_argv(self) -> Sequence[str]:
        archive = self.config.archive or f"file://{self._path('archive')}"
        return (
            *_shoal("controller"),
            *("--state", str(self._path("controller"))),
            *("--grpc", self.controller_address or f"127.0.0.1:{self.config.grpc_port}"),
            *("--gossip", self.gossip_address or "127.0.0.1:0"),
            *("--objects", self._objects_address or "127.0.0.1:0"),
            *("--archive", archive),
            *("--lease-seconds", f"{self.config.lease_seconds:g}"),
            *self._security(),
            *("--ready-file", str(self._path("controller.ready"))),
        )

    def _agent_argv(self, name: str) -> Sequence[str]:
        labels = {"local": "true", **(self.config.labels or {})}
        return (
            *_shoal("agent"),
            *("--name", name),
            *("--state", str(self.state_of(name))),
            *("--controller", self.controller_address),
            *self._security(),
            *("--join", self.gossip_address),
            *("--gossip", "127.0.0.1:0"),
            *("--streams", "127.0.0.1:0"),
            *("--cpus", f"{self.config.cpus or max(2, os.cpu_count() or 1):g}"),
            *("--sandbox", self.config.sandbox.value),
            *(("--stop-jobs",) if self.config.stop_jobs else ()),
            *(word for key, value in labels.items() for word in ("--label", f"{key}={value}")),
        )

    def _security(self) -> Sequence[str]:
        """What controller and agents are told alike; the first start of a controller finds a free port."""
        if self.config.insecure:
            return ("--insecure",)
        return ("--no-insecure", "--newcomers", self._newcomers_address or "127.0.0.1:0")

    def _path(self, name: str) -> Path:
        return self.config.state / name


def _load_client() -> None:
    """Import what is needed once the controller answers: it takes a good part of a second."""
    import_module("shoal.client")
    import_module("shoal.credentials")


def _lock(state: Path) -> int:
    """Take the state folder, for as long as the descriptor that is returned is open."""
    prepare_state_folder(state, LOCK_NAME)
    try:
        descriptor = os.open(state / LOCK_NAME, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
    except OSError as error:
        raise _unwritable(state, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StartRefusedError(
            f"a cluster runs already with its files in {state}: use that one, end it, or name "
            "another folder with --state"
        ) from None
    return descriptor


def _unwritable(state: Path, error: OSError) -> StartRefusedError:
    return StartRefusedError(
        f"the cluster's files in {state} cannot be written: {error.strerror}: "
        f"{error.filename or state}; let this user write there, or choose another --state"
    )


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _shoal(command: str) -> Sequence[str]:
    return (sys.executable, "-m", "shoal.cli", command)
