"""The link from an agent to its keeper: a connection, and how one is had."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edge_agent.keeper.client import KeeperClient, StartRequest, ensure_keeper
from edge_agent.keeper.record import ProcessRecord
from shoal.protocol_version import Protocols


class KeeperConnection(Protocol):
    """What is used of a connection.

    Every request raises `KeeperError` when it is refused and `KeeperGoneError` when no keeper answers.
    """

    async def start(self, request: StartRequest) -> int:
        """Start a job's program and return its process id; the same attempt is never started twice."""
        ...

    def begin(self, request: StartRequest) -> asyncio.Future[Any]:
        """Ask for what `start` does; the future is done once the program has begun, and has the errors of a request."""
        ...

    async def spawn(self, request: StartRequest) -> int:
        """Start a helper process that outlives the agent, and return its process id."""
        ...

    async def stop(self, attempt: str, grace_seconds: float | None = None) -> None:
        """Ask for the end of a program; returns at once."""
        ...

    async def renew_lease(self, attempt: str, until: float) -> None:
        """Let a program run until a moment of the machine's clock of leases."""
        ...

    async def forget(self, attempt: str) -> None:
        """Drop an attempt and kill what is left of it."""
        ...

    def drop(self, attempt: str) -> None:
        """Ask for what `forget` does, and wait for no answer."""
        ...

    async def list(self) -> Sequence[ProcessRecord]:
        """Everything that the keeper remembers, helpers too, oldest first."""
        ...

    @property
    def version(self) -> str:
        """Of the keeper, once it is watched; empty where an earlier version does not say."""
        ...

    @property
    def protocols(self) -> Protocols | None:
        """What the keeper speaks, once it is watched; None from a build that does not say."""
        ...

    async def shutdown(self) -> None:
        """End every process, then the keeper; returns at once."""
        ...

    async def watch(self) -> str:
        """Begin to hear ends; ask for `list` afterwards to learn of those before.

        Returns which keeper this is: no two processes of it are called the same. Empty where an
        earlier version does not say.
        """
        ...

    def listen(self, taker: Callable[[ProcessRecord], bool]) -> None:
        """Hand each end from now on to a taker first; it says whether it took it, and raises nothing."""
        ...

    def exits(self) -> AsyncIterator[ProcessRecord]:
        """Every end since `watch` that no taker took, in order, until the keeper is gone."""
        ...


class KeeperDoor(Protocol):
    """Where a node's keeper is found, or started.

    `path` names it to people and to the stream worker.
    """

    @property
    def path(self) -> Path:
        """Where it listens."""
        ...

    async def ensure(self) -> None:
        """Make sure that a keeper answers.

        Raises:
            KeeperGoneError: none does.
        """
        ...

    def connect(self) -> contextlib.AbstractAsyncContextManager[KeeperConnection]:
        """Open a connection; entering raises `KeeperGoneError` where no keeper listens."""
        ...


@dataclass(frozen=True, slots=True)
class KeeperSocket:
    """A keeper behind a Unix socket.

    `log_path` takes the log of one that is started here, and `environ` is all that one gets of
    variables, and `version` what it says of itself.
    """

    path: Path
    log_path: Path
    environ: Mapping[str, str]
    version: str

    async def ensure(self) -> None:
        """Start a keeper in a session of its own if none answers."""
        await ensure_keeper(self.path, self.log_path, self.environ, self.version)

    def connect(self) -> KeeperClient:
        """Open a connection with `async with`."""
        return KeeperClient(self.path)
