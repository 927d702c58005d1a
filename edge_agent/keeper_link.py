"""The agent's hold on its keeper: connected again when it broke, started again when it is gone."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from edge_agent.attempt_folder import parse_keeper_id
from edge_agent.attempts.local_attempt import ProgramExit
from edge_agent.keeper.client import KeeperError, KeeperGoneError, StartRequest
from edge_agent.keeper.record import ProcessRecord
from edge_agent.links.keeper import KeeperConnection, KeeperDoor
from edge_agent.sandbox.group_counts import GroupCounts
from services.runtime.log import fields
from services.runtime.process import OtherVersionError
from shoal.names import AttemptRef
from shoal.protocol_version import (
    KEEPER,
    SANDBOXES,
    LinkEnd,
    NoCommonProtocolError,
    Protocols,
    agreed,
)

LOG = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 0.5


class KeeperLink:
    """One keeper, whichever process it is at the moment.

    Args:
        door: where the keeper is found, or started.
        agent_version: of the agent, for people.
    """

    def __init__(self, door: KeeperDoor, agent_version: str) -> None:
        self._door = door
        self._agent_version = agent_version
        self.path = door.path
        """Where the keeper listens."""
        self.version = ""
        """Of the keeper that was connected to last; empty where an earlier one does not say."""
        self.instance = ""
        """Which keeper was connected to last."""
        self.knows_sandboxes = True
        """Whether the keeper that was connected to last does what the plan of a sandbox says."""
        self._client: KeeperConnection | None = None
        self._ready = asyncio.Event()

    async def run(
        self,
        listed: Callable[[str, list[ProcessRecord]], Awaitable[None]],
        exited: Callable[[ProcessRecord], Awaitable[None]],
        ended: Callable[[ProcessRecord], bool],
    ) -> None:
        """Stay connected until cancelled.

        Args:
            listed: hears which keeper it is, and everything that it remembers, after each connect,
                before any other task may use the connection.
            exited: hears each end that `ended` did not take.
            ended: takes an end at once, and says whether it did; it raises nothing.

        Raises:
            OtherVersionError: the keeper that is there is of a build that this agent cannot work with.
        """
        while True:
            try:
                await self._door.ensure()
                async with self._door.connect() as client:
                    try:
                        self.instance = await client.watch()
                        self.version = client.version
                        self.knows_sandboxes = (
                            client.protocols is not None and client.protocols.highest >= SANDBOXES
                        )
                        self._agree(client.protocols)
                        await listed(self.instance, list(await client.list()))
                        self._client = client
                        self._ready.set()
                        client.listen(ended)
                        async for record in client.exits():
                            await exited(record)
                    finally:
                        self._ready.clear()
                        self._client = None
                LOG.warning("the keeper hung up", extra=fields(socket=self.path))
            except KeeperError as error:
                LOG.warning("the keeper is away", extra=fields(error=error))
            await asyncio.sleep(_PAUSE_SECONDS)

    def _agree(self, said: Protocols | None) -> None:
        """Find that this agent and the keeper can work together.

        Raises:
            OtherVersionError: they cannot; what the keeper keeps goes on.
        """
        agent = LinkEnd("this agent", KEEPER.said_by(self._agent_version), other_build("keeper"))
        keeper = LinkEnd("the keeper of this node", said, other_build("keeper"))
        try:
            agreed(KEEPER, agent, keeper)
        except NoCommonProtocolError as error:
            raise OtherVersionError(str(error)) from error

    async def client(self, deadline_seconds: float = 15.0) -> KeeperConnection:
        """The connection, once there is one.

        Raises:
            KeeperGoneError: there was none within the deadline.
        """
        found = self._client
        if found is not None:
            return found
        try:
            async with asyncio.timeout(deadline_seconds):
                while (found := self._client) is None:
                    await self._ready.wait()
        except TimeoutError:
            raise KeeperGoneError(
                f"no keeper answered at {self.path} for {deadline_seconds:g} s"
            ) from None
        return found

    async def start(self, request: StartRequest, instance: str) -> None:
        """Have one keeper, and no other, start a program, or find it started.

        Raises:
            KeeperGoneError: that one does not answer, or is gone.
        """
        client = self._client or await self.client()
        if self.instance != instance:
            raise KeeperGoneError(
                "the keeper that was to start the program is gone, and another one is there"
            )
        await client.start(request)

    def begin(self, request: StartRequest, instance: str) -> asyncio.Future[Any] | None:
        """Have that keeper start a program without waiting; None where it is not connected, and `start` waits.

        Raises:
            KeeperError: the request is too long.
        """
        client = self._client
        return None if client is None or self.instance != instance else client.begin(request)

    async def renew_lease(self, attempt: str, until: float) -> None:
        """Let a program run until a moment of the machine's clock of leases."""
        await (await self.client()).renew_lease(attempt, until)

    async def stop(self, attempt: str, grace_seconds: float) -> None:
        """Ask for the end of a program."""
        await (await self.client()).stop(attempt, grace_seconds)

    async def dismiss(self, instance: str) -> None:
        """Let one keeper, and no other, end with the stream worker that it keeps.

        Raises:
            KeeperError: it did not take it.
        """
        if self._client is not None and self.instance == instance:
            await self._client.shutdown()

    def drop(self, attempt: str) -> bool:
        """Leave nothing of a program without waiting; say whether that could be asked for."""
        if self._client is None:
            return False
        try:
            self._client.drop(attempt)
        except KeeperGoneError:
            return False
        return True

    async def forget(self, attempt: str) -> None:
        """Leave nothing of a program."""
        await (self._client or await self.client()).forget(attempt)


def other_build(part: str) -> str:
    """What to do where a keeper or stream worker is there that an agent cannot work with."""
    return (
        f"its jobs go on: start the version again that started this {part}, `shoal drain` the node, and once it "
        "is idle end it with `shoal agent --down`; then start this version"
    )


def attempt_of(record: ProcessRecord) -> AttemptRef | None:
    """The attempt whose program a process is; None for a helper."""
    return None if record.helper else parse_keeper_id(record.attempt)


def program_exit(record: ProcessRecord, stderr_tail: str, disk_full: str) -> ProgramExit:
    """How a program ended, with what it complained about last, and how full the disk was."""
    return ProgramExit(
        exit_code=-1 if record.exit_code is None else record.exit_code,
        signal=record.signal or 0,
        timed_out=record.timed_out,
        lease_ended=record.lease_ended,
        problem=record.problem,
        left=record.left,
        end_time=record.end_time,
        stderr_tail=stderr_tail,
        disk_full=disk_full,
        out_of_memory=record.out_of_memory,
        not_begun=record.not_begun,
        counts=GroupCounts(
            record.memory_kills, record.refused_processes, bounded_memory=record.bounded_memory
        ),
    )
