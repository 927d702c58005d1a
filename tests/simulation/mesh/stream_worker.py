"""The stream worker of a board: the real `StreamWorker` and its services, on links in memory.

Its calls with other boards pass the network of the world, so that its lanes are cut and torn as any
other call. Its agent calls it over the board's own loopback; see `OrdersStub`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from random import Random
from typing import Any, cast

import grpc
import grpc.aio

from services.streams.block import HEADER_BYTES
from services.streams.part import OFFSET
from services.streams.plan import StreamLimits
from services.streams.worker.agent_service import AgentService
from services.streams.worker.lane_service import LaneService
from services.streams.worker.stream_worker import StreamWorker, WorkerLinks
from services.streams.worker.wire import PULL, read_message
from shoal.v1.streams_service_pb2 import PullRequest, PullResponse
from tests.simulation.mesh.keeper import MemoryKeeper
from tests.simulation.mesh.lane_watch import LaneWatch, WatchedPull
from tests.simulation.mesh.loop import VirtualLoop
from tests.simulation.mesh.network import ClientCall, Network, ServerContext, broken
from tests.simulation.mesh.process import Process
from tests.simulation.mesh.spool import SpoolDisk
from tests.simulation.mesh.tickets import node_proof

STREAM_PORT = 7100
ORDERS = ("Attach", "UpdateLanes", "Conclude", "Detach", "UpdateTrust")
WATCH = "WatchAttempts"
CONNECT_AGAIN_SECONDS = 0.1
DATA_TAGS = (
    PullResponse.BLOCK_FIELD_NUMBER << 3 | 2,
    PullResponse.PART_FIELD_NUMBER << 3 | 2,
)

LIMITS = StreamLimits(
    credit_bytes=2000,
    backlog_bytes=1500,
    memory_bytes=4000,
    spooling_bytes=1000,
    block_bytes=800,
    bulk_bytes=1400,
    segment_bytes=3000,
    ring_bytes=0,
    ack_seconds=0.002,
    redial_seconds=0.01,
    redial_seconds_max=0.1,
)
"""Small enough for a few hundred records to fill every buffer, and without rings."""


@dataclass(eq=False)
class MemoryStreamWorker:
    """A stream worker; `start` it, `kill` it, and start it again.

    Args:
        loop: the loop of the world.
        network: reaches other boards, and this one.
        rng: its chance.
        host: the board.
        keeper: has the ports.
        disk: has the spools.
    """

    loop: VirtualLoop
    network: Network
    rng: Random
    _: KW_ONLY
    host: str
    keeper: MemoryKeeper
    disk: SpoolDisk
    address: str = field(init=False)
    """Where other boards reach it."""
    orders: str = field(init=False)
    """Where its agent reaches it."""
    process: Process | None = None
    worker: StreamWorker | None = None
    """That of the running process."""
    lanes: LaneWatch | None = None
    """Looks at the lanes that it serves."""
    flips: float = 0.0
    """How likely it is that a message that comes from another board has another bit."""
    flipped: int = 0
    """How many had."""

    def __post_init__(self) -> None:
        self.address = f"{self.host}:{STREAM_PORT}"
        self.orders = f"{self.host}:stream-worker.sock"

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and not self.process.dead

    def start(self) -> Process:
        """Start the process, which its keeper has as one more program; return it."""
        if self.process is not None and not self.process.dead:
            return self.process
        self.process = Process(self.loop, f"{self.host}/stream-worker", self.host)
        self.process.run(self._run(self.process))
        return self.process

    def kill(self) -> None:
        """SIGKILL: the programs that stream, and their keeper, go on."""
        if self.process is not None:
            self.process.kill()
        self.worker = None

    def stub(self) -> OrdersStub:
        """Return a connection of its agent to it."""
        return OrdersStub(self.network, self.orders)

    async def _run(self, process: Process) -> None:
        async with asyncio.TaskGroup() as tasks:
            links = WorkerLinks(
                _Connections(self.network, self._flip),
                self.keeper,
                self.disk.open,
            )
            worker = StreamWorker(self.address, LIMITS, tasks, links, self.rng.random)
            service, lanes = AgentService(worker), LaneService(worker, node_proof(self.host))
            serve = self.network.serve

            async def pull(context: ServerContext) -> None:
                watched = context if self.lanes is None else WatchedPull(context, self.lanes)
                await lanes.pull(None, watched)

            async def watch(context: ServerContext) -> None:
                request = await context.read()
                async with contextlib.aclosing(
                    cast("AsyncGenerator[Any]", service.WatchAttempts(request, context))
                ) as news:
                    async for response in news:
                        await context.write(response)

            serve(self.address, PULL, pull, process)
            for name in ORDERS:
                serve(self.orders, name, _answering(getattr(service, name)), process)
            serve(self.orders, WATCH, watch, process)
            self.worker = worker
            await self.loop.create_future()

    def _flip(self, message: bytes) -> bytes:
        """Return what comes from another board, sometimes with another bit in a body."""
        if self.rng.random() >= self.flips or message[0] not in DATA_TAGS:
            return message
        at = min(1 + 3 + OFFSET.size + HEADER_BYTES, len(message) - 1)
        wrong = bytearray(message)
        wrong[self.rng.randrange(at, len(message))] ^= 1 << self.rng.randrange(8)
        self.flipped += 1
        return bytes(wrong)


class OrdersStub:
    """StreamWorkerService as its agent calls it: its methods fail as those of gRPC do.

    Args:
        network: carries the calls of the running process.
        address: of the worker's orders.
    """

    def __init__(self, network: Network, address: str) -> None:
        self._network = network
        self._address = address
        self.Attach, self.UpdateLanes, self.Conclude, self.Detach, self.UpdateTrust = (
            partial(self._ask, method) for method in ORDERS
        )

    def WatchAttempts(self, request: Any, *, wait_for_ready: bool) -> WatchCall:  # noqa: N802
        """See the contract."""
        assert wait_for_ready, "a stream worker that is not there yet is waited for"
        return WatchCall(self._network, self._address, request)

    async def _ask(self, method: str, request: Any, *, timeout: float) -> Any:  # noqa: ASYNC109 - as gRPC
        call: ClientCall | None = None
        try:
            async with asyncio.timeout(timeout):
                call = await self._network.call(self._address, method)
                await call.write(request)
                return await call.read()
        except TimeoutError as error:
            raise broken(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from error
        finally:
            if call is not None:
                call.cancel()


class WatchCall:
    """A call that is opened when it is first read."""

    def __init__(self, network: Network, address: str, request: Any) -> None:
        self._network = network
        self._address = address
        self._request = request
        self._call: ClientCall | None = None

    async def read(self) -> Any:
        """Return the next message, or EOF."""
        if self._call is None:
            self._call = await self._open()
            await self._call.write(self._request)
        return await self._call.read()

    def cancel(self) -> bool:
        """End the call."""
        return self._call is not None and self._call.cancel()

    async def _open(self) -> ClientCall:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                return await self._network.call(self._address, WATCH)
            await asyncio.sleep(CONNECT_AGAIN_SECONDS)


def _answering(method: Callable[[Any, Any], Any]) -> Callable[[ServerContext], Any]:
    async def answer(context: ServerContext) -> None:
        await context.write(await method(await context.read(), context))

    return answer


class _Connections:
    """See `PeerConnections` of the worker."""

    def __init__(self, network: Network, flip: Callable[[bytes], bytes]) -> None:
        self._network = network
        self._flip = flip

    async def take(self, address: str, *, node: str, bulk: bool) -> _Connection:
        del node, bulk
        return _Connection(partial(_PullCall, self._network, address, self._flip))

    async def leave(self, connection: object, *, broken: bool) -> None:
        """Nothing is shared, so nothing is to be closed."""


@dataclass(slots=True)
class _Connection:
    """See `PeerConnection` of the worker."""

    pull: Callable[[], _PullCall]
    cut: bool = False


class _PullCall:
    """See `PullCall` of the worker; it is opened by the first write."""

    def __init__(self, network: Network, address: str, flip: Callable[[bytes], bytes]) -> None:
        self._network = network
        self._address = address
        self._flip = flip
        self._call: ClientCall | None = None

    async def read(self) -> Any:
        assert self._call is not None, "a call is read that was not begun"
        message = await self._call.read()
        if message is grpc.aio.EOF:
            return message
        return read_message(self._flip(message))

    async def write(self, request: PullRequest, /) -> None:
        if self._call is None:
            self._call = await self._network.call(self._address, PULL)
        await self._call.write(request)

    def cancel(self) -> bool:
        return self._call is not None and self._call.cancel()
