"""What the worker serves: lanes for other nodes, and orders and news for the agent beside it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakValueDictionary

import grpc
import grpc.aio

from services.runtime.log import CountedLog, fields
from services.runtime.rpc import abort, rpc_error
from services.streams.events import Concluded, LanesChanged
from services.streams.machine import AttemptStreamsMachine
from services.streams.plan import StreamLimits, plan_of
from services.streams.sampler import SampleRequest
from services.streams.worker.call import PeerConnections, ServerContext
from services.streams.worker.feed import Rendezvous, first_open, read_feed
from services.streams.worker.keeper_ports import KeeperRefusedError
from services.streams.worker.lane_registry import LaneRegistry, Missing
from services.streams.worker.port_link import PortSource
from services.streams.worker.pull import ServedCall
from services.streams.worker.shell import AttemptStreamsShell, Neighbours
from services.streams.worker.spool import Spool
from services.streams.worker.tap import show
from services.streams.worker.wire import SERVICE, write_message
from shoal.model import Reason
from shoal.names import AttemptRef
from shoal.portal import is_recorder, port_of, portal_job
from shoal.session.assignment import Assignment
from shoal.session.lane import Lane
from shoal.v1 import session_service_pb2
from shoal.v1.streams_service_pb2 import (
    AttachRequest,
    AttachResponse,
    AttemptStreams,
    ConcludeRequest,
    ConcludeResponse,
    DetachRequest,
    DetachResponse,
    PullOpen,
    PullRefusal,
    PullRequest,
    PullResponse,
    TapRequest,
    TapResponse,
    UpdateLanesRequest,
    UpdateLanesResponse,
    WatchAttemptsRequest,
    WatchAttemptsResponse,
)
from shoal.v1.streams_service_pb2_grpc import StreamWorkerServiceServicer
from shoal.wire.assignment import decode_assignment
from shoal.wire.attempt import decode_attempt_ref, encode_attempt_ref
from shoal.wire.fields import each
from shoal.wire.lane import decode_lane
from shoal.wire.port_hold import encode_port_hold
from shoal.wire.state import encode_reason, encode_stream_counters

LOG = logging.getLogger(__name__)

NEWS_SECONDS = 0.25
"""Counters are told at most so often; turning points at once."""


@dataclass(frozen=True, slots=True)
class Links:
    """What a worker reaches outside of its process.

    `connections` lead to the workers of other nodes, `ports` are those of the jobs beside it, and
    `spool` makes the spool of an attempt at a path.
    """

    connections: PeerConnections
    ports: PortSource
    spool: Callable[[str], Spool]


class Worker:
    """The attempts that this process carries.

    Args:
        stream_address: `host:port` where other nodes reach it.
        limits: what each attempt may use.
        tasks: owns the calls that are dialled.
        links: what it reaches outside of its process.
        chance: draws a number from [0, 1).
    """

    def __init__(
        self,
        stream_address: str,
        limits: StreamLimits,
        tasks: asyncio.TaskGroup,
        links: Links,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.stream_address = stream_address
        self._limits = limits
        self._tasks = tasks
        self._links = links
        self._chance = chance
        self._shells: dict[AttemptRef, AttemptStreamsShell] = {}
        # One lives for as long as somebody has it, or waits for it.
        self._turns: WeakValueDictionary[AttemptRef, asyncio.Lock] = WeakValueDictionary()
        self._registry = LaneRegistry()
        self._rendezvous = Rendezvous()
        self._neighbours = Neighbours(
            stream_address, self._registry, links.connections, self._rendezvous
        )
        self._watchers: dict[asyncio.Event, None] = {}
        self._loop = asyncio.get_running_loop()
        self._refused = CountedLog(LOG, self._loop.time)

    async def attach(
        self,
        assignment: Assignment,
        *,
        spool_path: str,
        keeper_path: str,
        keeper_id: str,
    ) -> None:
        """Take an attempt over; one that is here already only learns where its peers are.

        Raises:
            KeeperRefusedError: The keeper does not hand over the ports.
            LookupError: It lacks one of them.
            ValueError: A lane's replica is not below their number.
        """
        ref = assignment.ref
        if ref in self._shells:
            await self.update(self._shells[ref], assignment.lanes)
            return
        plan = plan_of(assignment)
        ends = await self._links.ports.fetch(keeper_path, keeper_id)
        shell = AttemptStreamsShell(
            ref,
            plan,
            AttemptStreamsMachine(plan, self._limits, self._chance),
            spool=self._links.spool(spool_path),
            neighbours=self._neighbours,
            ring_bytes=self._limits.ring_bytes,
            tasks=self._tasks,
            turned=self._turned,
        )
        self._shells[ref] = shell
        self._registry.add(ref, shell.machine.output_lanes, shell)
        try:
            await shell.attach(ends)
        except BaseException:
            self.detach(ref)
            for end in ends.values():
                end.close()
            raise
        await self._registry.announce()
        LOG.info("attached", extra=fields(attempt=ref.name, epoch=ref.epoch))

    @asynccontextmanager
    async def turn(self, ref: AttemptRef) -> AsyncIterator[None]:
        """Take one order about an attempt after the other: attaching takes a while, others wait.

        One that came in between would meet half of the ports, and streams that have not begun.
        """
        lock = self._turns.setdefault(ref, asyncio.Lock())
        async with lock:
            yield

    def shell(self, ref: AttemptRef) -> AttemptStreamsShell | None:
        """Return who carries an attempt."""
        return self._shells.get(ref)

    async def update(self, shell: AttemptStreamsShell, lanes: tuple[Lane, ...]) -> None:
        """Tell an attempt what its lanes are now; consumers may wait for one that is new."""
        before = shell.machine.output_lanes
        shell.post(LanesChanged(lanes))
        if shell.machine.output_lanes != before:
            self._registry.add(shell.ref, shell.machine.output_lanes, shell)
            await self._registry.announce()
        # How far a port is that was told to stand still is waited for.
        self._turned()

    def detach(self, ref: AttemptRef) -> None:
        """Let go of an attempt; harmless when it is not here."""
        shell = self._shells.pop(ref, None)
        if shell is None:
            return
        self._registry.remove(ref, shell.machine.output_lanes, shell)
        shell.detach()
        LOG.info("detached", extra=fields(attempt=ref.name, epoch=ref.epoch))

    async def pull(self, _requests: object, context: ServerContext) -> None:
        """Serve one lane to its consumer; see StreamsService.Pull."""
        first = await context.read()
        if first is grpc.aio.EOF or cast("PullRequest", first).WhichOneof("message") != "open":
            await abort(
                context,
                rpc_error(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "OPEN_MISSING",
                    "the first message on Pull has to be PullOpen",
                ),
            )
        opened = cast("PullRequest", first).open
        if is_recorder(opened.lane):
            await self._record(opened, context)
            return
        found = await self._registry.find(opened)
        if not isinstance(found, Missing):
            await found.serve(
                opened, lambda number, post: ServedCall(number, opened, post, context)
            )
            return
        self._refused.warn(found.reason, why=found.message)
        refusal = PullRefusal(reason=found.reason, message=found.message)
        await context.write(PullResponse(refusal=refusal).SerializeToString())

    async def _record(self, opened: PullOpen, context: ServerContext) -> None:
        job = portal_job(opened.lane)
        for ref, shell in self._shells.items():
            if (ref.namespace, ref.pipeline, ref.job, ref.epoch) == (
                opened.namespace,
                opened.pipeline,
                job,
                opened.producer_epoch,
            ) and shell.has_output(port_of(opened.lane)):
                await shell.record(
                    opened, lambda number, post: ServedCall(number, opened, post, context)
                )
                return
        refusal = PullRefusal(reason="NOT_READY", message=f"{job} is not here")
        await context.write(PullResponse(refusal=refusal).SerializeToString())

    async def feed(self, _requests: object, context: ServerContext) -> None:
        """Take a lane from a producer that dials; see StreamsService.Feed."""
        opened = await first_open(context)
        if opened is None:
            await abort(
                context,
                rpc_error(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "OPEN_MISSING",
                    "the first message on Feed has to be FeedOpen",
                ),
            )
        await self._rendezvous.offer(opened, context)

    async def tap(self, request: TapRequest, context: ServerContext) -> None:
        """Show some of the records of a port; see StreamsService.Tap."""
        found = [
            shell
            for ref, shell in self._shells.items()
            if (ref.namespace, ref.pipeline, ref.job, ref.epoch)
            == (request.namespace, request.pipeline, request.job, request.epoch)
        ]
        if not found or not found[0].has_output(request.port):
            await abort(
                context,
                rpc_error(
                    grpc.StatusCode.NOT_FOUND,
                    "PORT_UNKNOWN",
                    f"{request.job} at epoch {request.epoch} with an output {request.port!r} "
                    "is not here",
                ),
            )
        wish = request.wish
        wanted = SampleRequest.of(
            wish.every, wish.records_per_second, wish.bytes_per_second, wish.record_bytes
        )
        with found[0].tapped(request.port, wanted) as tap:
            await show(found[0].machine, tap, context, self._loop.time)

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the service for other nodes, with blocks that pass without being parsed."""
        method: Any = grpc.stream_stream_rpc_method_handler(
            cast("Any", self.pull),
            request_deserializer=PullRequest.FromString,
            response_serializer=write_message,
        )
        tap: Any = grpc.unary_stream_rpc_method_handler(
            cast("Any", self.tap),
            request_deserializer=TapRequest.FromString,
            response_serializer=TapResponse.SerializeToString,
        )
        feed: Any = grpc.stream_stream_rpc_method_handler(
            cast("Any", self.feed),
            request_deserializer=read_feed,
            response_serializer=write_message,
        )
        handler = cast("Any", grpc).method_handlers_generic_handler(
            SERVICE, {"Pull": method, "Feed": feed, "Tap": tap}
        )
        return cast("grpc.GenericRpcHandler", handler)

    async def news(self) -> AsyncGenerator[list[AttemptStreams], None]:
        """Yield what changed, first everything, counters coalesced."""
        wake = asyncio.Event()
        self._watchers[wake] = None
        told: dict[AttemptRef, bytes] = {}
        try:
            first = True
            while True:
                wake.clear()
                changed: list[AttemptStreams] = []
                for ref, shell in self._shells.items():
                    streams = _streams_of(shell, self._loop.time())
                    text = streams.SerializeToString(deterministic=True)
                    if told.get(ref) != text:
                        told[ref] = text
                        changed.append(streams)
                for ref in told.keys() - self._shells.keys():
                    del told[ref]
                if changed or first:
                    first = False
                    yield changed
                try:
                    async with asyncio.timeout(NEWS_SECONDS):
                        await wake.wait()
                except TimeoutError:
                    continue
        finally:
            del self._watchers[wake]

    def close(self) -> None:
        """Let go of all attempts; their programs and their keeper go on."""
        for ref in list(self._shells):
            self.detach(ref)

    def _turned(self) -> None:
        for wake in self._watchers:
            wake.set()


class AgentService(StreamWorkerServiceServicer):
    """The worker's face towards its agent."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def Attach(  # noqa: N802 - the contract's name
        self,
        request: AttachRequest,
        context: Any,  # noqa: ARG002 - the contract's shape
    ) -> AttachResponse:
        """See the contract."""
        try:
            async with self._worker.turn(_ref(request.assignment.ref)):
                await self._worker.attach(
                    decode_assignment(request.assignment),
                    spool_path=request.spool_path,
                    keeper_path=request.keeper_path,
                    keeper_id=request.keeper_id,
                )
        except (KeeperRefusedError, LookupError) as error:
            raise rpc_error(
                grpc.StatusCode.FAILED_PRECONDITION, "PORTS_MISSING", _words(error)
            ) from error
        except ValueError as error:
            raise rpc_error(
                grpc.StatusCode.INVALID_ARGUMENT, "ASSIGNMENT", _words(error)
            ) from error
        return AttachResponse()

    async def UpdateLanes(  # noqa: N802 - the contract's name
        self,
        request: UpdateLanesRequest,
        context: Any,  # noqa: ARG002 - the contract's shape
    ) -> UpdateLanesResponse:
        """See the contract."""
        try:
            async with self._worker.turn(_ref(request.ref)):
                lanes = each(request.lanes, "lanes", decode_lane)
                await self._worker.update(self._shell(request.ref), lanes)
        except ValueError as error:
            raise rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "LANES", _words(error)) from error
        return UpdateLanesResponse()

    async def Conclude(  # noqa: N802 - the contract's name
        self,
        request: ConcludeRequest,
        context: Any,  # noqa: ARG002 - the contract's shape
    ) -> ConcludeResponse:
        """See the contract."""
        async with self._worker.turn(_ref(request.ref)):
            self._shell(request.ref).post(Concluded(request.succeeded))
        return ConcludeResponse()

    async def Detach(  # noqa: N802 - the contract's name
        self,
        request: DetachRequest,
        context: Any,  # noqa: ARG002 - the contract's shape
    ) -> DetachResponse:
        """See the contract."""
        ref = _ref(request.ref)
        async with self._worker.turn(ref):
            self._worker.detach(ref)
        return DetachResponse()

    async def WatchAttempts(  # noqa: N802 - the contract's name
        self,
        request: WatchAttemptsRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002 - the contract's shape
    ) -> AsyncIterator[WatchAttemptsResponse]:
        """See the contract."""
        async for changed in self._worker.news():
            yield WatchAttemptsResponse(
                attempts=changed, stream_address=self._worker.stream_address
            )

    def _shell(self, message: session_service_pb2.AttemptRef) -> AttemptStreamsShell:
        shell = self._worker.shell(_ref(message))
        if shell is None:
            raise rpc_error(
                grpc.StatusCode.NOT_FOUND,
                "ATTEMPT_UNKNOWN",
                f"{message.attempt} at epoch {message.epoch} is not attached; attach it first",
            )
        return shell


def _ref(message: session_service_pb2.AttemptRef) -> AttemptRef:
    try:
        return decode_attempt_ref(message)
    except ValueError as error:
        raise rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "ATTEMPT", _words(error)) from error


def _words(error: Exception) -> str:
    # LookupError puts its message into quotes.
    return str(error.args[0]) if isinstance(error, LookupError) else str(error)


def _streams_of(shell: AttemptStreamsShell, now: float) -> AttemptStreams:
    machine = shell.machine
    failure = machine.failure
    return AttemptStreams(
        ref=encode_attempt_ref(shell.ref),
        streams=[encode_stream_counters(counters) for counters in machine.counters(now)],
        drained=machine.drained,
        failure=(
            None
            if failure is None
            else encode_reason(Reason(failure.code, message=failure.message))
        ),
        progress=machine.progress,
        closed=machine.closed,
        holds=[encode_port_hold(hold) for hold in machine.holds],
    )
