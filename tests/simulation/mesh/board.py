"""A board: one machine with an agent, a keeper, a stream worker and programs, each its own process.

The agent is the real `AgentShell`, the keeper the real `KeeperMachine`, the stream worker the real
`StreamWorker`; what lies between and around them is in memory. The agent starts keeper and stream worker
by itself, as on a real board. What outlives what:

| | agent killed | keeper killed | power lost |
|---|---|---|---|
| journal, awaited | stays | stays | stays |
| journal, in flight | there or not | stays | there or not |
| folders, results | stay | stay | may be lost or half |
| spools | stay | stay | lost |
| programs | run on | see `keeper.py` | gone |

Its clock is the loop's and does not begin anew with a boot: with a difference between them, a wait
for what is left until a deadline could be too short for the loop to move at all.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Final, cast
from zlib import crc32

from edge_agent.agent_process import AgentProcess
from edge_agent.agent_shell import AgentShell
from edge_agent.attempts.local_attempt import LocalAttempt
from edge_agent.config import AgentConfig
from edge_agent.disk_claim import ClaimedFolder
from edge_agent.disk_watch import DiskReading, FolderUse
from edge_agent.keeper.client import StartRequest
from edge_agent.links.agent_links import AgentLinks
from edge_agent.links.session import SessionCall
from edge_agent.links.stream_worker import HELPER, StreamWorkerStub
from edge_agent.sandbox.job_limits import node_claims
from edge_agent.secrets.secret_mask import NO_MASK, SecretMask
from services.runtime.process import StartRefusedError
from shoal.cause import causes
from shoal.model import Capacity
from shoal.names import AttemptRef
from shoal.node_facts import Heat, NodeFacts
from shoal.sandbox import NodeSandbox, SandboxLevel
from shoal.session.log_piece import LogPiece
from tests.simulation.mesh.archive import MemoryArchive
from tests.simulation.mesh.controller import ADDRESS, BEGAN, CONNECT
from tests.simulation.mesh.journal import JournalDisk, MemoryJournal
from tests.simulation.mesh.keeper import MemoryKeeper, Running
from tests.simulation.mesh.loop import VirtualLoop
from tests.simulation.mesh.network import Network
from tests.simulation.mesh.process import Process
from tests.simulation.mesh.program import Program
from tests.simulation.mesh.spool import SpoolDisk
from tests.simulation.mesh.stream_worker import MemoryStreamWorker
from tests.simulation.mesh.workshop import FolderDisk, MemoryWorkshop

RESTART_SECONDS: Final = 1.0
"""After how long the init system starts an agent again that ended by itself."""
VERSIONS: Final = ("mesh-1", "mesh-1", "mesh-2")
"""Of which an agent is, drawn at each start: keeper and stream worker may be of another."""
CAPACITY: Final = Capacity(4.0, 8 << 30)
SANDBOX: Final = NodeSandbox(
    levels=frozenset({SandboxLevel.NONE}), enforces=node_claims({}, own_users=False)
)
"""Its programs are memory: nothing is there to be kept from them."""
_HEATS: Final = (Heat.COOL, Heat.WARM, Heat.HOT, Heat.WARM)
_HEAT_SECONDS: Final = 45.0
DISK: Final = DiskReading(free_bytes=50 << 30, total_bytes=100 << 30)


class Board:
    """A machine; `boot` it first.

    Args:
        loop: the loop of the world.
        network: how it reaches others, under its name.
        archive: where artifacts are put.
        rng: its chance.
        name: of the node.
        capacity: what it has for attempts.
        gossip: whether it is a member of that name; its gossip is the world's business.
        make_program: makes a program.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        network: Network,
        archive: MemoryArchive,
        rng: Random,
        name: str,
        *,
        capacity: Capacity = CAPACITY,
        gossip: bool = False,
        make_program: Callable[..., Program] = Program,
    ) -> None:
        self.name = name
        self.loop = loop
        self.network = network
        self.rng = rng
        self.config = AgentConfig(
            name=name,
            state=Path("/board") / name,
            capacity=capacity,
            architecture="x86_64",
            controllers=(ADDRESS,),
            gossip="0.0.0.0:7946" if gossip else "",
            insecure=True,
        )
        self.journal = JournalDisk()
        """What its agent remembers durably."""
        self.spools = SpoolDisk(rng)
        self.folders = FolderDisk(self.spools)
        self.disk = MemoryDisk(self._written)
        self.sensors = MemorySensors(loop.time, name)
        self.workshop = MemoryWorkshop(rng, self.folders, archive, network, name)
        self.keeper = MemoryKeeper(self, make_program)
        self.worker = MemoryStreamWorker(
            loop, network, rng, host=name, keeper=self.keeper, disk=self.spools
        )
        self.ahead = name[-1] in "02468"
        """Whether its agent knows where a stream worker will listen, and starts one only when it is needed."""
        self.agent: Process | None = None
        self.shell: AgentShell | None = None
        """That of the running agent, or of the last one."""
        self.on_agent: Callable[[Process], None] = lambda _: None
        """Called when an agent has begun: what else runs in its process is spawned there."""
        self.version = ""
        """Of the agent that runs, or of the last one; another start may be of another version."""
        self.skew_seconds = 0.0
        """By how much its wall clock is off."""
        self.powered = False
        self.frozen = False
        self.boots = 0
        self.agents = 0
        """How many have begun."""
        self.disks = 1
        """How many disks it has had."""
        self.crashes: list[tuple[str, BaseException]] = []
        """Processes that ended by an error; no history may have one."""
        self._agent_journal: MemoryJournal | None = None

    # ---- what is there --------------------------------------------------------------------------

    @property
    def programs(self) -> list[Running]:
        """Programs that exist on this machine now; `process.frozen` for those that stand still."""
        return [one for one in self.keeper.running.values() if one.program is not None]

    @property
    def records(self) -> Mapping[AttemptRef, LocalAttempt]:
        """What the running agent knows, or else what the journal does."""
        if self.shell is not None and self.agent is not None and not self.agent.dead:
            return self.shell.records
        return self.journal.records

    @property
    def idle(self) -> bool:
        """Whether nothing is left of any attempt."""
        return not (self.journal.records or self.programs or self.folders.folders)

    def clock(self) -> float:
        """Seconds on the clock that leases are on."""
        return self.loop.time()

    def wall(self) -> float:
        """Seconds since the epoch, as its clock says."""
        return BEGAN.timestamp() + self.loop.time() + self.skew_seconds

    # ---- what happens to it ---------------------------------------------------------------------

    def boot(self) -> None:
        """Start the machine, which starts its agent; harmless while it runs."""
        if self.powered:
            return
        self.powered = True
        self.boots += 1
        self.network.power_on(self.name)
        self.start_agent()

    def power_off(self, *, lose_unsynced: bool) -> None:
        """Cut the power; without `lose_unsynced` the disk had written everything a moment before."""
        if not self.powered:
            return
        self.powered = False
        self.frozen = False
        self.network.power_off(self.name)
        self._end_agent(written=not lose_unsynced or self.rng.random() < 0.5)
        self.keeper.lose_power()
        self.worker.kill()
        if lose_unsynced:
            self.spools.lose_power()
            self.folders.lose_power(self.rng)

    def lose_disk(self) -> None:
        """Put another disk in, which is empty; the power is off."""
        self.disks += 1
        self.journal.records.clear()
        self.journal.facts.clear()
        self.folders.folders.clear()
        self.folders.kept.clear()
        self.spools.lose_power()

    def start_agent(self) -> None:
        """Start an agent; harmless while one runs, or without power."""
        if not self.powered or (self.agent is not None and not self.agent.dead):
            return
        self.agents += 1
        rng = Random(self.rng.getrandbits(64))
        self.version = rng.choice(VERSIONS)
        journal = MemoryJournal(self.loop, rng, self.journal)
        given = AgentProcess(
            environ={},
            version=self.version,
            python=Path("python"),
            uv=Path("uv"),
            boot_id=f"boot-{self.boots}",
            clock=self.clock,
            wall=self.wall,
            rng=rng,
            token=lambda: f"{rng.getrandbits(32):08x}",
        )
        agent = self.agent = Process(self.loop, f"{self.name}/agent", self.name)
        self._agent_journal = journal
        agent.on_end(lambda: self._agent_ended(agent))
        self.shell = AgentShell(self.config, given, self._links(journal))
        agent.run(self.shell.run())
        if self.frozen:
            agent.freeze()
        self.on_agent(agent)

    def kill_agent(self) -> None:
        """SIGKILL; programs, keeper and stream worker go on."""
        self._end_agent(written=self.rng.random() < 0.5)

    def kill_keeper(self) -> None:
        """SIGKILL; the agent starts another one, which ends what this one left."""
        self.keeper.kill()

    def kill_worker(self) -> None:
        """SIGKILL of the stream worker; the agent has the keeper start another one."""
        self.worker.kill()

    def freeze(self) -> None:
        """Let everything on the machine stand still."""
        self.frozen = True
        for process in self._processes():
            process.freeze()

    def thaw(self) -> None:
        """Let everything go on."""
        self.frozen = False
        for process in self._processes():
            process.thaw()

    # ---- what its processes use -----------------------------------------------------------------

    def start_worker(self) -> Process:
        """Start the stream worker, for the keeper."""
        return self.worker.start()

    def left(self, attempt: str, results: dict[str, bytes]) -> None:
        """A program has ended and has left these results."""
        self.folders.leave(attempt, results)

    def ended(self, process: Process) -> None:
        """A process is gone, by an error of its own or by an order."""
        error = process.failure
        if error is not None and not isinstance(causes(error)[0], StartRefusedError):
            self.crashes.append((process.name, error))

    def _links(self, journal: MemoryJournal) -> AgentLinks:
        return AgentLinks(
            controllers=self._controllers,
            dial=self._dial,
            keeper=self.keeper,
            stream_worker=_WorkerDoor(self),
            journal=journal,
            workshop=self.workshop,
            disk=self.disk,
            logs=_NoLogs,
            facts=self.sensors,
            sandbox=SANDBOX,
        )

    async def _controllers(self) -> AsyncGenerator[tuple[str, ...], None]:
        yield self.config.controllers
        await self.loop.create_future()

    @contextlib.asynccontextmanager
    async def _dial(self, address: str) -> AsyncIterator[SessionCall]:
        yield cast("SessionCall", await self.network.call(address, CONNECT))

    def _written(self, ref: AttemptRef) -> int:
        """Bytes of files that the programs of an attempt have made."""
        return sum(one.program.written for one in self.programs if one.ref == ref and one.program)

    def _processes(self) -> list[Process]:
        mine = [] if self.agent is None or self.agent.dead else [self.agent]
        return [*mine, *self.keeper.processes()]

    def _end_agent(self, *, written: bool) -> None:
        if self.agent is not None and not self.agent.dead:
            self.agent.kill()
            if self._agent_journal is not None:
                self._agent_journal.end(written=written)

    def _agent_ended(self, agent: Process) -> None:
        """It has ended by itself, or by an order."""
        self.ended(agent)
        if agent.failure is not None:
            self.network.later(RESTART_SECONDS, self.start_agent)


class _WorkerDoor:
    """See `StreamWorkerDoor` of the agent."""

    advertise = ""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.log_path = board.config.state / "stream-worker.log"

    @property
    def address_ahead(self) -> str:
        return self._board.worker.address if self._board.ahead else ""

    @property
    def made(self) -> str:
        return f"{self._board.version} --streams 0.0.0.0:7947"

    def prepare(self, last_address: str) -> StartRequest:
        del last_address
        state = self._board.config.state
        return StartRequest(
            HELPER, ["stream-worker"], {}, state, self.log_path, self.log_path, made=self.made
        )

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[StreamWorkerStub]:
        yield cast("StreamWorkerStub", self._board.worker.stub())


class MemoryDisk:
    """See `DiskMeter` of the agent.

    Args:
        written: how much of an attempt lies there.
    """

    def __init__(self, written: Callable[[AttemptRef], int]) -> None:
        self.reading = DISK
        self._written = written

    async def read(self) -> DiskReading:
        """Return what is left, as a test has it."""
        return self.reading

    async def claimed(self, folders: Iterable[ClaimedFolder]) -> tuple[FolderUse, ...]:
        """Return what programs have made."""
        return tuple(FolderUse(one.ref, self._written(one.ref), 1) for one in folders)

    async def folders(self, paths: Iterable[tuple[AttemptRef, Path]]) -> tuple[FolderUse, ...]:
        """Return that no folder can be looked at."""
        del paths
        return ()


class MemorySensors:
    """See `FactsMeter` of the agent: a machine that gets warm and hot and cools down, each board by itself.

    Args:
        clock: seconds of the world.
        name: of the board.
    """

    def __init__(self, clock: Callable[[], float], name: str) -> None:
        self._clock = clock
        self._phase = crc32(name.encode()) % len(_HEATS)

    async def read(self, *, window_seconds: float = 0.0) -> NodeFacts:
        """Return how warm it is now."""
        del window_seconds
        step = int(self._clock() / _HEAT_SECONDS) + self._phase
        return NodeFacts(cpu_count=4, heat=_HEATS[step % len(_HEATS)])


class _NoLogs:
    """See `AttemptLogs` of the agent: programs in memory print nothing."""

    def __init__(self, _say: object) -> None:
        pass

    def follow(
        self,
        ref: AttemptRef,
        folder: Path | str,
        mask: SecretMask = NO_MASK,
        *,
        ended: bool = False,
    ) -> None:
        pass

    def unfollow(self, ref: AttemptRef) -> None:
        pass

    def last_words(self, folder: Path, mask: SecretMask = NO_MASK) -> str:
        del folder, mask
        return ""

    def session_opened(self) -> None:
        pass

    def session_closed(self) -> None:
        pass

    def confirm(self, piece: LogPiece) -> None:
        pass

    def is_finished(self, ref: AttemptRef) -> bool:
        del ref
        return True

    async def finish(self, ref: AttemptRef, deadline_seconds: float) -> bool:
        del ref, deadline_seconds
        return True

    async def run(self) -> None:
        await asyncio.Event().wait()
