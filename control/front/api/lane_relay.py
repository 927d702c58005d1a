"""A client's lane: bytes between its call and the stream worker at the other end, as they come.

Flow control is gRPC's at both sides and the lane's own credit: of each direction there is one
message here at a time. A call ends when its other end moves, and the client dials again.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

import grpc
import grpc.aio

from control.core.errors import UnknownJobError
from control.front.api.node_streams import NodeStreams
from control.front.api.placement import NO_CHANGE_SECONDS, Placements, ReplicaPlace, replicas_of
from control.front.api.request import namespace_of
from control.front.control_plane import ControlPlane
from control.front.rpc_status import invalid
from shoal.names import PipelineRef, check_id
from shoal.portal_names import is_recorder, port_of, portal_job
from shoal.v1 import lanes_service_pb2
from shoal.v1.streams_service_pb2 import (
    LANE_KIND_CLIENT,
    LANE_KIND_RECORDER,
    FeedOpen,
    FeedRequest,
    LaneTicket,
    PullOpen,
    PullRequest,
)

# By its contract, and not by a word: the guard of the API reads what passes here, and has to find its messages.
SERVICE: str = lanes_service_pb2.DESCRIPTOR.services_by_name["LanesService"].full_name
_STREAMS = "/shoal.v1.StreamsService"

_LAST_WORDS_SECONDS = 2.0

Context = grpc.aio.ServicerContext[Any, Any]

_OVER = (grpc.RpcError, grpc.aio.UsageError, grpc.aio.InternalError, asyncio.InvalidStateError)


class LaneRelay:
    """Serves LanesService without reading what passes, but for the first message of a call.

    Args:
        plane: knows where portals are.
        streams: reaches the workers of nodes.
    """

    def __init__(self, plane: ControlPlane, streams: NodeStreams) -> None:
        self._plane = plane
        self._streams = streams

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the service."""
        methods: dict[str, Any] = {
            name: grpc.stream_stream_rpc_method_handler(
                cast("Any", behavior), request_deserializer=None, response_serializer=None
            )
            for name, behavior in (("PullLane", self.pull), ("FeedLane", self.feed))
        }
        handler = cast("Any", grpc).method_handlers_generic_handler(SERVICE, methods)
        return cast("grpc.GenericRpcHandler", handler)

    async def pull(self, _requests: object, context: Context) -> None:
        """Relay a lane out of a pipeline; see the contract."""
        await self._relay("Pull", PullRequest.FromString(await _first(context)), context)

    async def feed(self, _requests: object, context: Context) -> None:
        """Relay a lane into a pipeline; see the contract."""
        await self._relay("Feed", FeedRequest.FromString(await _first(context)), context)

    async def _relay(self, verb: str, request: PullRequest | FeedRequest, context: Context) -> None:
        if request.WhichOneof("message") != "open":
            raise invalid("OPEN_MISSING", f"the first message on {verb}Lane has to be {verb}Open")
        opened = request.open
        namespace = namespace_of(opened.namespace)
        ref = PipelineRef(namespace, check_id("pipeline", opened.pipeline))
        try:
            job = portal_job(opened.lane)
        except ValueError as error:
            raise invalid("INVALID_FIELD", str(error), field="lane") from error
        view = await self._plane.shown.find(ref)
        if is_recorder(opened.lane) and isinstance(opened, PullOpen):
            found = replicas_of(view, job, port_of(opened.lane))
            if job not in {one.id for one in found}:
                replicas = ", ".join(one.id for one in found)
                raise UnknownJobError(f"{job} has several replicas, name one: {replicas}")
        elif job not in {one.name for one in view.spec.jobs if one.local}:
            raise UnknownJobError(f"{view.name} has no local job {job!r}")
        opened.namespace = namespace
        placements = Placements(self._plane, ref)
        async with placements.followed():
            place = placements.place(job)
            while not place.address and not place.over:
                place = await placements.changes(job, place, NO_CHANGE_SECONDS)
            if place.over:
                return
            if isinstance(opened, PullOpen):
                opened.producer_epoch = place.epoch
            else:
                opened.consumer_epoch = place.epoch
            opened.ticket = self._streams.ticket(_said(opened, place))
            first = request.SerializeToString()
            async with asyncio.TaskGroup() as tasks:
                carrying = tasks.create_task(self._carry(place, verb, first, context))
                moving = tasks.create_task(placements.moved(place))
                await asyncio.wait({carrying, moving}, return_when=asyncio.FIRST_COMPLETED)
                carrying.cancel()
                moving.cancel()

    async def _carry(self, place: ReplicaPlace, verb: str, first: bytes, context: Context) -> None:
        async with self._streams.channel(place) as channel:
            call: Any = cast("Any", channel.stream_stream(f"{_STREAMS}/{verb}"))()
            try:
                # Whichever side is over ends the call; the client sees no error, and dials again.
                with contextlib.suppress(*_OVER):
                    await call.write(first)
                    async with asyncio.TaskGroup() as tasks:
                        up = tasks.create_task(_up(context, call))
                        down = tasks.create_task(_down(call, context))
                        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
                        if up.done():
                            # What the client said last has to arrive; the worker then ends the call.
                            await asyncio.wait({down}, timeout=_LAST_WORDS_SECONDS)
                        up.cancel()
                        down.cancel()
            finally:
                call.cancel()


def _said(opened: PullOpen | FeedOpen, place: ReplicaPlace) -> LaneTicket:
    """What the controller allows a client on its lane to or from an attempt at its place."""
    pull = isinstance(opened, PullOpen)
    return LaneTicket(
        namespace=opened.namespace,
        pipeline=opened.pipeline,
        lane=opened.lane,
        kind=LANE_KIND_RECORDER if pull and is_recorder(opened.lane) else LANE_KIND_CLIENT,
        producer_node=place.node if pull else "",
        producer_epoch=opened.producer_epoch,
        consumer_node="" if pull else place.node,
        consumer_epoch=opened.consumer_epoch,
    )


async def _up(context: Context, call: Any) -> None:
    with contextlib.suppress(*_OVER):
        while (message := await context.read()) is not grpc.aio.EOF:
            await call.write(message)
        await call.done_writing()


async def _down(call: Any, context: Context) -> None:
    with contextlib.suppress(*_OVER):
        while (message := await call.read()) is not grpc.aio.EOF:
            await context.write(message)


async def _first(context: Context) -> bytes:
    message = await context.read()
    if message is grpc.aio.EOF:
        raise invalid("OPEN_MISSING", "the call ended before its first message")
    return cast("bytes", message)
