"""The program of one attempt in memory: it speaks blocks on its ports, crashes as told, and exits.

What it does stands in its argv (`stream_shape.JobShape.argv`), so that a specification says it:
`rounds records=200 pace=0.01` is a source, `rounds` takes a round of every input and sends a record
on every output, `sleep 5` ends well after 5 s, `fail 3 1` with exit status 3 after 1 s. `grows 1` takes more memory
than it may have after 1 s, `forks 1` more processes, `fills 1` more of the disk. `source 200
0.01`, `map`, `join` and `sink` are short for `rounds`.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from edge_agent.sandbox.group_counts import NO_COUNTS, GroupCounts
from services.streams.block import Block, Kind, entries, pack, unpack
from services.streams.worker.port_link import PortName
from shoal.model import ReasonCode
from tests.simulation.mesh.port import ProgramEnd
from tests.simulation.mesh.process import Process
from tests.simulation.mesh.stream_guarantees import Delivery
from tests.simulation.mesh.stream_shape import JobShape, entry_of, record_of

if TYPE_CHECKING:
    from tests.simulation.mesh.board import Board

TAKES_TOO_MUCH: Final[Mapping[str, ReasonCode]] = MappingProxyType(
    {"grows": ReasonCode.OOM, "forks": ReasonCode.PROCESSES, "fills": ReasonCode.DISK}
)
"""What programs are called that take more than they may have, and the reason with which their attempts fail."""

FILLED_BYTES: Final = 2 << 30
"""What a program writes that fills the disk."""

THINKING_SECONDS = 0.0005
"""The mean time from one burst of records to the next."""

_SHORT = {"source": ("records", "pace"), "map": (), "join": (), "split": (), "sink": ()}


class Program:
    """A running program; it begins at once, in a process of its own.

    Args:
        world: where it runs.
        argv: what it does.
        environ: SHOAL_JOB, SHOAL_REPLICA, SHOAL_ATTEMPT and SHOAL_PORTS are heeded.
        ports: its ends of its ports.
        exited: told exit status and signal, once, in no process: post it where it belongs.
        host: where it runs.
    """

    def __init__(
        self,
        world: Board,
        argv: Sequence[str],
        environ: Mapping[str, str],
        ports: Mapping[PortName, ProgramEnd],
        exited: Callable[[int, int], None],
        *,
        host: str = "",
    ) -> None:
        self._world = world
        self._ports = ports
        self._exited = exited
        self._status = 0
        self._signal = int(signal.SIGKILL)
        self.counts = NO_COUNTS
        """What the kernel has counted in its group."""
        self.written = 0
        """Bytes of files that it has made."""
        self._first_attempt = environ.get("SHOAL_ATTEMPT", "1") == "1"
        described = json.loads(environ.get("SHOAL_PORTS", "{}"))
        given = described.get("inputs", {})
        self.replica = int(environ.get("SHOAL_REPLICA", "0"))
        self.name = environ.get("SHOAL_NAME", environ.get("SHOAL_JOB", argv[0]))
        self.shape, self._plain = _read(environ.get("SHOAL_JOB", "job"), argv)
        self._sizes: dict[str, int] = {
            name: int(given.get(name, {}).get("block_count", 1))
            for name, output in ports
            if not output
        }
        self._outputs = [name for name, output in ports if output]
        self._queues = {name: deque[bytes]() for name in self._sizes}
        self._read_to = dict.fromkeys(self._sizes, 0)
        self._sent = dict.fromkeys(self._outputs, 0)
        self.deliveries = {name: Delivery() for name in self._sizes}
        """What it was given, by input port."""
        self.processed: list[int] = []
        """The rounds that it has gone through, by number."""
        self.complaints: list[str] = []
        """What no stream worker may do to a program."""
        self.process = Process(world.loop, f"{host}/{self.name}", host)
        self.process.on_end(self._ended)
        self.process.run(self._main())

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self.process.dead

    def kill(self) -> None:
        """End it at once; also what a loss of power does."""
        self._die(int(signal.SIGKILL))

    def signal(self, number: int) -> None:
        """Send it a signal."""
        match signal.Signals(number):
            case signal.SIGSTOP:
                self.process.freeze()
            case signal.SIGCONT:
                self.process.thaw()
            case signal.SIGTERM if self.shape.stubborn:
                pass
            case _:
                self._die(number)

    def results(self) -> dict[str, bytes]:
        """Return the files of its results folder: what came on each input, and how far it went."""
        told: dict[str, object] = {"rounds": len(self.processed)}
        for name, delivery in self.deliveries.items():
            told[name] = {
                "start": delivery.start,
                "end": delivery.end,
                "records": [record.decode("latin-1") for record in delivery.records],
            }
        return {"received.json": json.dumps(told).encode()}

    def _die(self, number: int) -> None:
        if self.running:
            self._signal = number
            self.process.kill()

    def _ended(self) -> None:
        if self.process.failure is not None:
            self.complaints.append(f"the program broke: {self.process.failure!r}")
        failed = self._signal != 0 or self._status != 0
        cut = failed and self._world.rng.random() < 0.2
        for end in self._ports.values():
            end.close(cut=cut)
        self._exited(self._status, self._signal)

    # ---- in the process -------------------------------------------------------------------------

    async def _main(self) -> None:
        self._status = await self._work()
        self._signal = 0

    async def _work(self) -> int:
        match self._plain:
            case ["sleep", seconds]:
                await asyncio.sleep(float(seconds))
                return 0
            case ["fail", status, seconds]:
                await asyncio.sleep(float(seconds))
                return int(status)
            case ["grows", seconds]:
                await asyncio.sleep(float(seconds))
                self.counts = GroupCounts(1, 0, bounded_memory=True)
                self._die(int(signal.SIGKILL))
                await asyncio.get_running_loop().create_future()
            case ["forks", seconds]:
                await asyncio.sleep(float(seconds))
                self.counts = GroupCounts(0, 3)
                return 1
            case ["fills", seconds]:
                await asyncio.sleep(float(seconds))
                self.written = FILLED_BYTES
                await asyncio.get_running_loop().create_future()
            case _:
                pass
        try:
            return await self._rounds()
        except BrokenPipeError:
            return 0  # nobody wants its records any more, which is an end like any other

    async def _rounds(self) -> int:
        first = await self._begin()
        loop, rng, shape = self._world.loop, self._world.rng, self.shape
        number, began = first, loop.time()
        while True:
            pause = began + (number - first) * shape.pace - loop.time()
            await asyncio.sleep(max(pause, rng.expovariate(1 / THINKING_SECONDS)))
            pending: dict[str, list[bytes]] = {name: [] for name in self._outputs}
            for index in range(rng.randint(1, shape.burst)):
                late = began + (number - first) * shape.pace > loop.time()
                if index and (late or not self._ready()):
                    break
                if number == shape.crash and self._first_attempt:
                    await self._send(pending)
                    return self._crash()
                groups = await self._round(number)
                if groups is None:
                    await self._send(pending)
                    return await self._end()
                for name in self._outputs:
                    pending[name].append(record_of(shape, self.replica, name, number, groups))
                self.processed.append(number)
                number += 1
            await self._send(pending)
            for name, queue in self._queues.items():
                # A record counts as processed once what was made of it is sent.
                done = self._read_to[name] - len(queue)
                await self._ports[name, False].write(Block(Kind.ACK, done))

    async def _begin(self) -> int:
        """Read START on every port; return the first round."""
        rounds = 0
        for (name, output), end in self._ports.items():
            block = await end.read()
            if block is None or block.kind is not Kind.START:
                self.complaints.append(f"port {name} begins with {block}")
                continue
            if output:
                self._sent[name] = rounds = block.first
                continue
            self._read_to[name] = self.deliveries[name].start = block.first
            if block.first % self._sizes[name]:
                self.complaints.append(f"port {name} begins within a round, at {block.first}")
            rounds = block.first // self._sizes[name]
        return rounds

    def _ready(self) -> bool:
        """Whether the next round needs no waiting."""
        return all(
            len(queue) >= self._sizes[name] or self.deliveries[name].end is not None
            for name, queue in self._queues.items()
        )

    async def _round(self, number: int) -> list[list[bytes]] | None:
        """Return the records of a round by input; None when there is none any more."""
        if not self._queues:
            return None if number >= self.shape.records else []
        for name, queue in self._queues.items():
            size = self._sizes[name]
            while len(queue) < size and self.deliveries[name].end is None:
                await self._take(name)
            if not queue:
                return None
        return [
            [queue.popleft() for _ in range(min(self._sizes[name], len(queue)))]
            for name, queue in self._queues.items()
        ]

    async def _take(self, name: str) -> None:
        """Take the next block of an input."""
        block = await self._ports[name, False].read()
        delivery = self.deliveries[name]
        if block is None:
            # An end of file without END: its producers' end cannot be known, so it waits for its own.
            await self._world.loop.create_future()
        elif block.kind is Kind.END:
            delivery.end = block.first
        elif block.kind is Kind.DATA:
            records = unpack(block)
            if entries(block) != tuple(map(entry_of, records)):
                self.complaints.append(f"port {name}: headers are not marked as they were")
            if block.first != self._read_to[name]:
                delivery.gaps.append((self._read_to[name], block.first))
                if self._queues[name]:
                    self.complaints.append(f"port {name}: more came before all was processed")
            delivery.most = max(delivery.most, len(records))
            delivery.numbered.extend(enumerate(records, block.first))
            self._read_to[name] = block.first + len(records)
            self._queues[name].extend(records)

    async def _send(self, pending: Mapping[str, list[bytes]]) -> None:
        for name, records in pending.items():
            if records:
                body = pack(records, [*map(entry_of, records)])
                block = Block(Kind.DATA, self._sent[name], len(records), body)
                self._sent[name] += len(records)
                await self._ports[name, True].write(block)

    async def _end(self) -> int:
        for name in self._outputs:
            if self._world.rng.random() < 0.5:
                await self._ports[name, True].write(Block(Kind.END, self._sent[name]))
        return 0

    def _crash(self) -> int:
        if self.shape.signal:
            self._die(self.shape.signal)
        return 1


def _read(job: str, argv: Sequence[str]) -> tuple[JobShape, list[str]]:
    """Return what a program's words say: a shape, or the words themselves."""
    program = argv[0].rpartition("/")[2]
    words = list(argv[1:])
    if program in _SHORT:
        names = _SHORT[program]
        words = [f"{name}={word}" for name, word in zip(names, words, strict=False)]
        words += argv[1 + len(names) :]
        program = "rounds"
    if program == "rounds":
        return JobShape.parse(job, words), []
    return JobShape(job), [program, *words]
