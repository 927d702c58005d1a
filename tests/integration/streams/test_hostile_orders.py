"""T4: whatever order or call reaches a stream worker, it answers, lives and carries the next good attempt.

A real worker, which may have 4 GiB of addresses: an order that lets it count up to a number of the
order must not take the memory of the node.
"""

import asyncio
import resource
import socket
from pathlib import Path
from random import Random
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from shoal.v1 import session_service_pb2 as session
from shoal.v1 import spec_pb2 as spec
from shoal.v1 import streams_service_pb2
from shoal.v1.streams_service_pb2 import UpdateLanesRequest
from tests.kit.hostile import Hostile
from tests.kit.stream_worker import (
    StreamWorker,
    assignment,
    lane,
    stream_input,
    stream_output,
    stream_workers,
)

CALLS = 240
TOGETHER = 16
MEMORY_BYTES = 4 << 30

SERVICES: Any = streams_service_pb2.DESCRIPTOR.services_by_name
METHODS = [
    (f"/{service.full_name}/{method.name}", method)
    for service in SERVICES.values()
    for method in service.methods
]


def relay(epoch: int) -> session.Assignment:
    """An attempt with a port of either kind."""
    return assignment(
        "relay",
        epoch=epoch,
        inputs=[stream_input("in", "camera", "frames")],
        outputs=[stream_output("out")],
        lanes=[
            lane("camera.frames", "relay.in", output=False),
            lane("relay.out", "sink.in", output=True),
        ],
    )


class Stranger:
    """Makes requests; those of an agent are about attempts whose ports are there."""

    def __init__(self, worker: StreamWorker) -> None:
        self.rng = Random(5)
        self.worker = worker
        self.epoch = 1
        self.ends: list[socket.socket] = []
        names = ("relay.out/sink.in", "camera.frames/relay.in", "default", "p", "relay", "out")
        self.hostile = Hostile(self.rng, lambda: names)

    def request(self, kind: type[Message]) -> Message:
        """A request of that kind."""
        request = self.hostile.message(kind)
        good = relay(self.epoch)
        match request:
            case streams_service_pb2.AttachRequest():
                self.epoch += 1
                good = relay(self.epoch)
                self.hostile.spoil(good, self.rng.choice((0.0, 0.01, 0.05, 0.2)))
                if self.rng.random() < 0.9:
                    request.assignment.CopyFrom(good)
                request.keeper_id = f"k{self.epoch}"
                request.keeper_path = str(self.worker.keeper.path)
                request.spool_path = str(self.worker.folder / "spool" / request.keeper_id)
                self.ends += self.worker.keeper.make(request.keeper_id, ["in", "out"]).values()
            case streams_service_pb2.UpdateLanesRequest():
                self.hostile.spoil(good, self.rng.choice((0.0, 0.05, 0.2)))
                del request.lanes[:]
                request.lanes.extend(good.lanes)
                request.ref.CopyFrom(relay(self.epoch).ref)
            case streams_service_pb2.ConcludeRequest() | streams_service_pb2.DetachRequest():
                if self.rng.random() < 0.5:
                    request.ref.CopyFrom(relay(max(1, self.epoch - 1)).ref)
            case streams_service_pb2.PullRequest():
                if self.rng.random() < 0.7:
                    request.open.lane = "relay.out/sink.in"
                    request.open.namespace, request.open.pipeline = "default", "p"
                    request.open.producer_epoch = self.epoch
            case streams_service_pb2.TapRequest():
                request.namespace, request.pipeline, request.job = "default", "p", "relay"
                request.epoch, request.port = self.epoch, "out"
            case _:
                pass
        return request


async def test_t4_any_request_to_a_stream_worker_is_answered(tmp_path: Path) -> None:
    async with stream_workers(tmp_path, 1) as (worker,):
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        stranger = Stranger(worker)
        await worker.attach(relay(1))
        async with (
            grpc.aio.insecure_channel(worker.address) as lanes,
            grpc.aio.insecure_channel(f"unix:{worker.folder / 'w.sock'}") as orders,
        ):

            async def call(number: int) -> None:
                path, method = METHODS[number % len(METHODS)]
                kind = method.input_type._concrete_class
                channel = lanes if "StreamsService" in path else orders
                made = channel.stream_stream(
                    path,
                    request_serializer=kind.SerializeToString,
                    response_deserializer=method.output_type._concrete_class.FromString,
                )(timeout=0.3)
                try:
                    for _ in range(stranger.rng.choice((1, 3)) if method.client_streaming else 1):
                        await made.write(stranger.request(kind))
                    await made.done_writing()
                    while await made.read() is not grpc.aio.EOF:
                        pass
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    pass
                code, details = await made.code(), await made.details()
                # An exception that nobody expected is UNKNOWN; gRPC's own errors say who was gone.
                assert code is not grpc.StatusCode.UNKNOWN, (path, details)

            for first in range(0, CALLS, TOGETHER):
                await asyncio.gather(*map(call, range(first, first + TOGETHER)))
        await worker.attach(relay(10**6))
        for end in stranger.ends:
            end.close()


@pytest.mark.parametrize("distribute", [spec.DISTRIBUTE_ROUND_ROBIN, spec.DISTRIBUTE_KEY])
async def test_t4_four_thousand_million_replicas_are_refused(
    tmp_path: Path, distribute: spec.Distribute.ValueType
) -> None:
    """A worker counted turns out among them, until the memory of its node was gone."""
    async with stream_workers(tmp_path, 1) as (worker,):
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        good, bad = relay(1), relay(2)
        for changed in (*good.lanes, *bad.lanes):
            changed.distribute = distribute
        await worker.attach(good)
        for changed in bad.lanes:
            changed.peer_replicas = 2**32 - 1
            changed.generation = 1
            request = UpdateLanesRequest(ref=good.ref, lanes=[changed])
            with pytest.raises(grpc.aio.AioRpcError, match="from 0 to 20000") as error:
                await worker.stub.UpdateLanes(request, timeout=10)
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError, match="from 0 to 20000"):
            await worker.attach(bad)
        await worker.attach(relay(3))


async def test_t4_lanes_of_no_known_way_to_distribute_are_refused(tmp_path: Path) -> None:
    async with stream_workers(tmp_path, 1) as (worker,):
        good = relay(1)
        await worker.attach(good)
        one = good.lanes[1]
        one.distribute = 99  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
        request = UpdateLanesRequest(ref=good.ref, lanes=[one])
        with pytest.raises(grpc.aio.AioRpcError, match="99 is not a way to distribute") as error:
            await worker.stub.UpdateLanes(request, timeout=10)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
