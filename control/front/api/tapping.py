"""One tap: samples of a port's records from the workers that carry its producer, across failover."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio

from control.front.api.node_streams import NodeStreams
from control.front.api.placement import NO_CHANGE_SECONDS, Placements, ReplicaPlace, replicas_of
from control.front.control_plane import ControlPlane
from services.streams.lane_leave import tap_lane
from shoal.names import JobRef
from shoal.v1.records_service_pb2 import TapPortResponse, TapWish
from shoal.v1.streams_service_pb2 import LANE_KIND_TAP, LaneTicket, TapRequest, TapResponse
from shoal.v1.streams_service_pb2_grpc import StreamsServiceStub

Send = Callable[[TapPortResponse], Awaitable[None]]

_AGAIN_SECONDS = 0.2
"""A worker that knows nothing of an attempt yet, or cannot be reached, is asked again then."""


@dataclass(frozen=True, slots=True)
class TapQuery:
    """Whose records, and how many: a job (or all replicas of one) and its output port."""

    job: JobRef
    port: str
    wish: TapWish


class Tapping:
    """Follows one port until its stream ends.

    Args:
        plane: knows where jobs are.
        streams: reaches the workers of nodes.
        query: what is asked for.
        send: takes what comes, and as much time as the reader needs.
    """

    def __init__(
        self, plane: ControlPlane, streams: NodeStreams, query: TapQuery, send: Send
    ) -> None:
        self._plane = plane
        self._streams = streams
        self._query = query
        self._send = send
        self._placements = Placements(plane, query.job.pipeline_ref)
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Send samples of all replicas until each of their streams has ended.

        Raises:
            UnknownPipelineError: There is none of that name.
            UnknownJobError: It has no such job.
            UnknownPortError: The job has no such output.
            ControlError: The watch of the pipeline broke.
        """
        view = await self._plane.shown.find(self._query.job.pipeline_ref)
        replicas = replicas_of(view, self._query.job.job, self._query.port)
        async with self._placements.followed(), asyncio.TaskGroup() as tasks:
            for replica in replicas:
                tasks.create_task(self._follow(replica.id))

    async def _follow(self, job: str) -> None:
        place = self._placements.place(job)
        told = ""
        while not place.over:
            if place.sentence and place.sentence != told:
                told = place.sentence
                await self._tell(place)
            if place.address:
                told = ""
                if await self._tap(place):
                    return
            wait = _AGAIN_SECONDS if place.address else NO_CHANGE_SECONDS
            place = await self._placements.changes(job, place, wait)
        await self._tell(place)

    async def _tell(self, place: ReplicaPlace) -> None:
        async with self._sending:
            await self._send(
                TapPortResponse(job=place.job, epoch=place.epoch, sentence=place.sentence)
            )

    async def _tap(self, place: ReplicaPlace) -> bool:
        """Pass on what the worker shows of one attempt; say whether the stream has ended."""
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read(place))
            moving = tasks.create_task(self._placements.moved(place))
            await asyncio.wait({reading, moving}, return_when=asyncio.FIRST_COMPLETED)
            moving.cancel()
            reading.cancel()
        return not reading.cancelled() and reading.result()

    async def _read(self, place: ReplicaPlace) -> bool:
        query = self._query
        ticket = self._streams.ticket(
            LaneTicket(
                namespace=query.job.namespace,
                pipeline=query.job.pipeline,
                lane=tap_lane(place.job, query.port),
                kind=LANE_KIND_TAP,
                producer_node=place.node,
                producer_epoch=place.epoch,
            )
        )
        async with self._streams.channel(place) as channel:
            stub: Any = StreamsServiceStub(channel)
            call = stub.Tap(
                TapRequest(
                    namespace=query.job.namespace,
                    pipeline=query.job.pipeline,
                    job=place.job,
                    epoch=place.epoch,
                    port=query.port,
                    wish=query.wish,
                    ticket=ticket,
                )
            )
            ended = False
            # A worker that is gone is found by keepalive; its attempt is then placed anew.
            with contextlib.suppress(grpc.aio.AioRpcError):
                while (response := await call.read()) is not grpc.aio.EOF:
                    sample = cast("TapResponse", response).sample
                    ended = sample.ended
                    async with self._sending:
                        await self._send(
                            TapPortResponse(job=place.job, epoch=place.epoch, sample=sample)
                        )
            return ended
