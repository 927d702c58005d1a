"""What a stream worker serves to other nodes: lanes, in both directions, and taps.

In a cluster with identity nothing is answered, looked for or recorded before the ticket is checked.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, NoReturn, cast

import grpc
import grpc.aio

from services.identity.ticket import TicketError
from services.runtime.log import CountedLog
from services.runtime.rpc import abort, rpc_error
from services.streams.lane_leave import LaneWish
from services.streams.sampler import SampleRequest
from services.streams.worker.call import ServerContext
from services.streams.worker.feed import first_open, read_feed
from services.streams.worker.lane_protocols import REFUSED, no_common
from services.streams.worker.lane_registry import Missing, Post
from services.streams.worker.node_proof import NodeProof
from services.streams.worker.pull import ServedCall
from services.streams.worker.stream_worker import StreamWorker
from services.streams.worker.tap import show
from services.streams.worker.wire import SERVICE, write_message
from shoal.portal_names import is_recorder, port_of, portal_job
from shoal.v1 import streams_service_pb2 as v1

LOG = logging.getLogger(__name__)


class LaneService:
    """StreamsService of the contract, over the attempts of one worker.

    Args:
        worker: has the attempts.
        proof: decides which callers may have a lane; None in a cluster without identity.
    """

    def __init__(self, worker: StreamWorker, proof: NodeProof | None = None) -> None:
        self._worker = worker
        self._proof = proof
        self._clock = asyncio.get_running_loop().time
        self._refused = CountedLog(LOG, self._clock)

    async def pull(self, _requests: object, context: ServerContext) -> None:
        """Serve one lane to its consumer; see StreamsService.Pull."""
        first = await context.read()
        if first is grpc.aio.EOF or cast("v1.PullRequest", first).WhichOneof("message") != "open":
            await _abort_without_open(context, "Pull")
        opened = cast("v1.PullRequest", first).open
        try:
            async with self._allowed(opened.ticket, LaneWish.of_pull(opened), context) as said:
                client = said is None or said.kind == v1.LANE_KIND_CLIENT
                if why := self._no_common(opened, opened.lane, "its consumer"):
                    await _refuse(context, REFUSED, why)
                else:
                    await self._pull(opened, context, client=client)
        except TicketError as error:
            await _refuse(context, "TICKET", str(error))

    async def _pull(self, opened: v1.PullOpen, context: ServerContext, *, client: bool) -> None:
        def call(number: int, post: Post) -> ServedCall:
            return ServedCall(number, opened, post, context, client=client)

        if is_recorder(opened.lane):
            job = portal_job(opened.lane)
            shell = self._worker.find(
                opened.namespace, opened.pipeline, job, opened.producer_epoch, port_of(opened.lane)
            )
            if shell is None:
                await _refuse(context, "NOT_READY", f"{job} is not here")
            else:
                await shell.record(opened, call)
            return
        found = await self._worker.registry.find(opened)
        if isinstance(found, Missing):
            self._refused.warn(found.reason, why=found.message)
            await _refuse(context, found.reason, found.message)
        else:
            await found.serve(opened, call)

    async def feed(self, _requests: object, context: ServerContext) -> None:
        """Take a lane from a producer that dials; see StreamsService.Feed."""
        opened = await first_open(context)
        if opened is None:
            await _abort_without_open(context, "Feed")
        try:
            async with self._allowed(opened.ticket, LaneWish.of_feed(opened), context):
                if why := self._no_common(opened, opened.lane, "the client that feeds it"):
                    await _refuse_feed(context, REFUSED, why)
                else:
                    await self._worker.rendezvous.offer(opened, context)
        except TicketError as error:
            await _refuse_feed(context, "TICKET", str(error))

    def _no_common(self, opened: v1.PullOpen | v1.FeedOpen, lane: str, name: str) -> str:
        why = no_common(opened, name)
        if why:
            self._refused.warn(REFUSED, lane=lane, why=why)
        return why

    async def tap(self, request: v1.TapRequest, context: ServerContext) -> None:
        """Show some of the records of a port; see StreamsService.Tap."""
        try:
            async with self._allowed(request.ticket, LaneWish.of_tap(request), context):
                await self._tap(request, context)
        except TicketError as error:
            code = grpc.StatusCode.PERMISSION_DENIED
            await abort(context, rpc_error(code, "TICKET", str(error)))

    async def _tap(self, request: v1.TapRequest, context: ServerContext) -> None:
        shell = self._worker.find(
            request.namespace, request.pipeline, request.job, request.epoch, request.port
        )
        if shell is None:
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
        with shell.tapped(request.port, wanted) as tap:
            await show(shell.machine, tap, context, self._clock)

    @contextlib.asynccontextmanager
    async def _allowed(
        self, ticket: bytes, wish: LaneWish, context: ServerContext
    ) -> AsyncIterator[v1.LaneTicket | None]:
        """Carry a call in this context, if it may be; without identity every call may.

        Raises:
            TicketError: it may not.
        """
        if self._proof is None:
            yield None
            return
        try:
            async with self._proof.allowed(ticket, wish, context) as said:
                yield said
        except TicketError as error:
            self._refused.warn("TICKET", lane=wish.lane, why=error)
            raise

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the service for a server; blocks pass it without being parsed."""
        make = cast("Any", grpc)
        handler = make.method_handlers_generic_handler(
            SERVICE,
            {
                "Pull": make.stream_stream_rpc_method_handler(
                    self.pull, v1.PullRequest.FromString, write_message
                ),
                "Feed": make.stream_stream_rpc_method_handler(self.feed, read_feed, write_message),
                "Tap": make.unary_stream_rpc_method_handler(
                    self.tap, v1.TapRequest.FromString, v1.TapResponse.SerializeToString
                ),
            },
        )
        return cast("grpc.GenericRpcHandler", handler)


async def _abort_without_open(context: ServerContext, method: str) -> NoReturn:
    message = f"the first message on {method} has to be {method}Open"
    await abort(context, rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "OPEN_MISSING", message))


async def _refuse(context: ServerContext, reason: str, message: str) -> None:
    refusal = v1.PullRefusal(reason=reason, message=message)
    await context.write(v1.PullResponse(refusal=refusal).SerializeToString())


async def _refuse_feed(context: ServerContext, reason: str, message: str) -> None:
    refusal = v1.PullRefusal(reason=reason, message=message)
    await context.write(v1.FeedResponse(refusal=refusal).SerializeToString())
