"""The controller's process: the real control plane, sessions and outbox on a store in memory.

The store is the real SQL on a database in memory, which outlives the process. A transaction that is
on its way when the process dies is there or not; one that was answered is there.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any, TypeVar, cast

from control.core.errors import StoreFailedError
from control.core.rows import Loaded, Row
from control.front.control_plane import ControlPlane
from control.front.rpc_status import refusal
from control.front.sessions.addresses import Addresses
from control.front.sessions.session_server import SessionServer, SessionSettings
from control.front.sessions.small_artifacts import SmallArtifacts
from control.front.sessions.worker_watch import WorkerWatch
from control.front.source_rule import SourceRule
from control.leader.plane_config import PlaneConfig
from control.leader.publishing import Publishing
from control.store import schema, statements
from control.store.sqlite import SqliteStore, Work
from services.events.broker_url import parse_url
from tests.simulation.mesh.archive import MemoryArchive
from tests.simulation.mesh.broker import MemoryBroker
from tests.simulation.mesh.control_watch import ControlWatch
from tests.simulation.mesh.loop import VirtualLoop
from tests.simulation.mesh.membership import Membership
from tests.simulation.mesh.network import Network, ServerContext
from tests.simulation.mesh.process import Process
from tests.simulation.mesh.tickets import lane_tickets

ResultT = TypeVar("ResultT")

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
ADDRESS = "controller:7000"
CONNECT = "Connect"
URL_SECONDS = 60
_COMMIT_SECONDS = 0.004


class MemoryStore(SqliteStore):
    """The store without file and threads: SQL in memory, with the time that a disk takes.

    Args:
        rng: draws how long, and what is cut short.
        recorded: is told the rows of each transaction as it becomes durable.
        let_go: is told the ids of events that are let go of.
    """

    def __init__(
        self,
        rng: Random,
        recorded: Callable[[Sequence[Row]], None],
        let_go: Callable[[Sequence[str]], None],
    ) -> None:
        super().__init__(Path(":memory:"), events_kept=1_000_000)
        self._rng = rng
        self._recorded = recorded
        self._let_go = let_go
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        schema.add_functions(self.connection)
        self.connection.executescript("".join(schema.STEPS))
        self.fails = False

    async def load(self, new_id: Callable[[], str], queue_page: int) -> Loaded:
        """Read everything but what is behind in the queue, and count this start."""
        await self._wait()
        statements.count_start(self.connection, new_id)
        return statements.load(self.connection, queue_page)

    async def commit(self, rows: Sequence[Row]) -> None:
        """Write all rows in one transaction."""
        await super().commit(rows)
        self._recorded(rows)
        await self._answer()

    async def mark_published(
        self, sequences: Sequence[int], aside: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        """Let go of rows that have left."""
        gone = set(sequences)

        def mark(connection: sqlite3.Connection) -> None:
            rows = statements.outbox(connection, 0, 1_000_000)
            events = (one for one in rows if one.is_told)
            self._let_go([one.id for one in events if one.sequence in gone])
            statements.mark_published(connection, sequences, aside, 1_000_000, 0)

        await self._write(mark)
        await self._answer()

    async def _read(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        await self._wait()
        return work(self.connection)

    async def _write(self, work: Work) -> None:
        await self._wait()
        self.connection.execute("BEGIN")
        try:
            work(self.connection)
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    async def _answer(self) -> None:
        """It is done; whoever asked for it may die before it knows."""
        await asyncio.sleep(_COMMIT_SECONDS * self._rng.random())

    async def _wait(self) -> None:
        await self._answer()
        if self.fails:
            raise StoreFailedError("store in memory could not write: its disk is broken; mend it")


class NoLogs:
    """Takes what programs print, and keeps none of it."""

    async def append(self, pieces: object) -> None:
        """Take pieces."""


class Controller:
    """The controller; `start` it, `kill` it, and start it again.

    Args:
        loop: the loop of the world.
        network: where it is reached.
        archive: where artifacts and manifests go.
        broker: where events go.
        rng: its chance.
        config: what an operator sets.
        recorded: is told the rows of each transaction as it becomes durable.
        let_go: is told the ids of events that leave the outbox.
        membership: where it is a member; None if nothing gossips.
        watch: looks at the control machine.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        network: Network,
        archive: MemoryArchive,
        broker: MemoryBroker,
        rng: Random,
        *,
        config: PlaneConfig,
        recorded: Callable[[Sequence[Row]], None],
        let_go: Callable[[Sequence[str]], None] = lambda _: None,
        membership: Membership | None = None,
        watch: ControlWatch | None = None,
    ) -> None:
        self._loop = loop
        self._network = network
        self._membership = membership
        self._watch = watch
        self._archive = archive
        self._broker = broker
        self._rng = rng
        self._config = config
        self.store = MemoryStore(rng, recorded, let_go)
        self.process: Process | None = None
        self.plane: ControlPlane | None = None
        """That of the running process, once it has loaded."""
        self.skew_seconds = 0.0
        """By how much its wall clock is off."""
        self.starts = 0

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and not self.process.dead

    def start(self) -> None:
        """Start the process; harmless while it runs."""
        if self.running:
            return
        self.starts += 1
        self.process = Process(self._loop, "controller", "controller")
        self.process.run(self._run(self.process))

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
        self.plane = None

    def wall(self) -> datetime:
        """Now, as its clock says."""
        return BEGAN + timedelta(seconds=self._loop.time() + self.skew_seconds)

    async def _run(self, process: Process) -> None:
        clock = self._loop.time
        plane = ControlPlane(
            store=self.store,
            config=self._config,
            clock=clock,
            wall=self.wall,
            ids=self._id,
        )
        plane.feeds.tickets = lane_tickets()
        if self._watch is not None:
            self._watch.follow(plane)
        async with plane, asyncio.TaskGroup() as tasks:
            workers = WorkerWatch(
                plane.stream_worker_gone,
                patience_seconds=self._config.lease_seconds,
                clock=clock,
                listens=self._network.listens,
            )
            publishing = Publishing(
                self.store,
                self._archive,
                plane.outbox_grown,
                plane.objects,
                broker=parse_url("mqtt://broker:1883"),
                client_id="shoal-mesh",
                clock=clock,
                wall=self.wall,
                chance=self._rng.random,
                open_link=self._broker.open_link,
            )
            addresses = Addresses(
                self._archive, cast("Any", None), SourceRule(), expires_seconds=URL_SECONDS
            )
            small = SmallArtifacts(self._archive, clock)
            settings = SessionSettings(
                controller_id=f"controller-{self.starts}",
                lease_seconds=self._config.lease_seconds,
                heartbeat_seconds=self._config.heartbeat_seconds,
            )

            async def connect(context: ServerContext) -> None:
                session = SessionServer(
                    cast("Any", context),
                    self._id(16),
                    plane=plane,
                    logs=cast("Any", NoLogs()),
                    addresses=addresses,
                    small=small,
                    settings=settings,
                    workers=workers,
                    clock=clock,
                )
                try:
                    await session.run()
                except Exception as error:
                    told = refusal(error)
                    if told is None:
                        raise
                    raise told from error

            tasks.create_task(plane.run())
            tasks.create_task(workers.run())
            tasks.create_task(publishing.run())
            self._network.serve(ADDRESS, CONNECT, connect, process)
            self.plane = plane
            if self._membership is not None:
                member = self._membership.join(process, plane.member_verdict, self.starts)
                tasks.create_task(member.run())

    def _id(self, characters: int) -> str:
        return f"{self._rng.getrandbits(4 * characters):0{characters}x}"
