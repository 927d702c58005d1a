"""The agent's hold on its keeper: connected again when it broke, started again when it is gone."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from edge_agent.attempt_folder import AttemptFolder, parse_keeper_id
from edge_agent.attempts.local_attempt import ProgramExit, ProgramStatus
from edge_agent.keeper.client import KeeperError, KeeperGoneError, StartRequest
from edge_agent.keeper.record import ProcessRecord
from edge_agent.links.keeper import KeeperConnection, KeeperDoor
from edge_agent.links.logs import AttemptLogs
from services.runtime.log import fields
from shoal.names import AttemptRef

LOG = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 0.5


class KeeperLink:
    """One keeper, whichever process it is at the moment.

    Args:
        door: where the keeper is found, or started.
    """

    def __init__(self, door: KeeperDoor) -> None:
        self._door = door
        self.path = door.path
        """Where the keeper listens."""
        self.version = ""
        """Of the keeper that was connected to last; empty where an earlier one does not say."""
        self.instance = ""
        """Which keeper was connected to last."""
        self._client: KeeperConnection | None = None
        self._ready = asyncio.Event()

    async def run(
        self,
        listed: Callable[[str, list[ProcessRecord]], Awaitable[None]],
        exited: Callable[[ProcessRecord], Awaitable[None]],
    ) -> None:
        """Stay connected until cancelled.

        Args:
            listed: hears which keeper it is, and everything that it remembers, after each connect,
                before any other task may use the connection.
            exited: hears each end.
        """
        while True:
            try:
                await self._door.ensure()
                async with self._door.connect() as client:
                    try:
                        self.instance = await client.watch()
                        self.version = client.version
                        await listed(self.instance, list(await client.list()))
                        self._client = client
                        self._ready.set()
                        async for record in client.exits():
                            await exited(record)
                    finally:
                        self._ready.clear()
                        self._client = None
                LOG.warning("the keeper hung up", extra=fields(socket=self.path))
            except KeeperError as error:
                LOG.warning("the keeper is away", extra=fields(error=error))
            await asyncio.sleep(_PAUSE_SECONDS)

    async def client(self, deadline_seconds: float = 15.0) -> KeeperConnection:
        """The connection, once there is one.

        Raises:
            KeeperGoneError: there was none within the deadline.
        """
        try:
            async with asyncio.timeout(deadline_seconds):
                while self._client is None:
                    await self._ready.wait()
        except TimeoutError:
            raise KeeperGoneError(
                f"no keeper answered at {self.path} for {deadline_seconds:g} s"
            ) from None
        return self._client

    async def start(self, request: StartRequest, instance: str) -> None:
        """Have one keeper, and no other, start a program, or find it started.

        Raises:
            KeeperGoneError: that one does not answer, or is gone.
        """
        client = await self.client()
        if self.instance != instance:
            raise KeeperGoneError(
                "the keeper that was to start the program is gone, and another one is there"
            )
        await client.start(request)

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

    async def forget(self, attempt: str) -> None:
        """Leave nothing of a program."""
        await (await self.client()).forget(attempt)


def program_exit(
    record: ProcessRecord, folder: AttemptFolder, logs: AttemptLogs, disk_full: str
) -> ProgramExit:
    """How a program ended, with its last words from its folder, and how full the disk was."""
    return ProgramExit(
        exit_code=-1 if record.exit_code is None else record.exit_code,
        signal=record.signal or 0,
        timed_out=record.timed_out,
        lease_ended=record.lease_ended,
        problem=record.problem,
        left=record.left,
        end_time=record.end_time,
        stderr_tail="" if record.exit_code == 0 else logs.last_words(folder.path),
        disk_full=disk_full,
    )


def programs(
    records: list[ProcessRecord],
    folder: Callable[[AttemptRef], AttemptFolder],
    logs: AttemptLogs,
    disk_full: str,
) -> Mapping[AttemptRef, ProgramStatus]:
    """The programs of attempts in a keeper's list."""
    found: dict[AttemptRef, ProgramStatus] = {}
    for record in records:
        ref = None if record.helper else parse_keeper_id(record.attempt)
        if ref is not None:
            ended = None if record.running else program_exit(record, folder(ref), logs, disk_full)
            found[ref] = ProgramStatus(record.start_time, ended)
    return found
