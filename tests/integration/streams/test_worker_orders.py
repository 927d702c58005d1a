"""What the worker answers its agent, and other nodes, when they ask for what is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import cast

import grpc
import grpc.aio
import pytest

from shoal.v1 import session_service_pb2 as session
from shoal.v1.streams_service_pb2 import (
    AttachRequest,
    ConcludeRequest,
    DetachRequest,
    PullAck,
    PullOpen,
    PullRequest,
    PullResponse,
    UpdateLanesRequest,
)
from shoal.v1.streams_service_pb2_grpc import StreamsServiceStub
from tests.kit.spoken import SPOKEN_LANES
from tests.kit.stream_worker import assignment, lane, stream_output, stream_workers

NOBODY = session.AttemptRef(attempt="pipelines/p/jobs/x/attempts/1", namespace="default", epoch=1)


async def test_orders_for_an_attempt_that_is_not_here(tmp_path: Path) -> None:
    async with stream_workers(tmp_path, 1) as (worker,):
        with pytest.raises(grpc.aio.AioRpcError, match="is not attached; attach it first") as error:
            await worker.stub.UpdateLanes(UpdateLanesRequest(ref=NOBODY), timeout=10)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError, match="is not attached"):
            await worker.stub.Conclude(ConcludeRequest(ref=NOBODY), timeout=10)
        await worker.stub.Detach(DetachRequest(ref=NOBODY), timeout=10)  # harmless


async def test_an_attempt_whose_ports_cannot_be_had_is_not_attached(tmp_path: Path) -> None:
    one = assignment("source", outputs=[stream_output("out")])
    async with stream_workers(tmp_path, 1) as (worker,):
        gone, refused = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION
        for keeper_path, keeper_id, words, code in (
            (str(tmp_path / "gone.sock"), "x", "does not hand over the ports", gone),
            (str(worker.keeper.path), "unknown", "unknown attempt unknown", refused),
        ):
            request = AttachRequest(
                assignment=one, keeper_path=keeper_path, keeper_id=keeper_id, spool_path="s"
            )
            with pytest.raises(grpc.aio.AioRpcError, match=words) as error:
                await worker.stub.Attach(request, timeout=10)
            assert error.value.code() is code
        worker.keeper.make("fewer", [])
        request = AttachRequest(
            assignment=one, keeper_path=str(worker.keeper.path), keeper_id="fewer", spool_path="s"
        )
        with pytest.raises(grpc.aio.AioRpcError, match="has no output 'out'"):
            await worker.stub.Attach(request, timeout=10)
        await worker.attach(one)


async def test_an_assignment_that_breaks_the_contract_is_refused(tmp_path: Path) -> None:
    one = assignment("source", outputs=[stream_output("out", record_bytes=4)])
    async with stream_workers(tmp_path, 1) as (worker,):
        with pytest.raises(grpc.aio.AioRpcError, match="record_bytes") as error:
            await worker.attach(one)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_call_that_does_not_open_is_refused(tmp_path: Path) -> None:
    async with (
        stream_workers(tmp_path, 1) as (worker,),
        grpc.aio.insecure_channel(worker.address) as channel,
    ):
        call = StreamsServiceStub(channel).Pull()
        await call.write(PullRequest(ack=PullAck()))
        with pytest.raises(grpc.aio.AioRpcError, match="has to be PullOpen"):
            await call.read()


async def test_a_stale_consumer_and_a_greedy_one_are_refused(tmp_path: Path) -> None:
    one = assignment(
        "source",
        epoch=5,
        outputs=[stream_output("out")],
        lanes=[lane("source.out", "sink.in", output=True, epoch=3)],
    )

    def opening(*, consumer: int, producer: int) -> PullRequest:
        return PullRequest(
            open=PullOpen(
                namespace="default",
                pipeline="p",
                lane="source.out/sink.in",
                consumer_epoch=consumer,
                producer_epoch=producer,
                credit_bytes=1000,
                protocols=SPOKEN_LANES,
            )
        )

    async with (
        stream_workers(tmp_path, 1) as (worker,),
        grpc.aio.insecure_channel(worker.address) as channel,
    ):
        await worker.attach(one)
        stub = StreamsServiceStub(channel)
        for consumer, producer in ((2, 5), (3, 4)):
            call = stub.Pull()
            await call.write(opening(consumer=consumer, producer=producer))
            answer = cast("PullResponse", await call.read())
            assert answer.refusal.reason == "FENCED"
            assert await call.read() is grpc.aio.EOF
        call = stub.Pull()
        await call.write(opening(consumer=3, producer=5))
        answer = cast("PullResponse", await call.read())
        assert answer.accept.producer_epoch == 5
        await call.write(PullRequest(ack=PullAck(consumed_bytes=10**9)))
        assert await call.read() is grpc.aio.EOF, "it acknowledged what was never sent"


async def test_a_second_worker_does_not_take_the_socket(tmp_path: Path) -> None:
    async with stream_workers(tmp_path, 1) as (worker,):
        second = subprocess.run(
            [
                sys.executable, "-m", "services.streams.worker",
                "--socket", str(worker.folder / "w.sock"), "--listen", "127.0.0.1:0",
            ],
            capture_output=True,
            check=False,
            timeout=30,
        )  # fmt: skip
        assert second.returncode == 2
        assert b"already answers" in second.stderr
        await worker.attach(assignment("source", outputs=[stream_output("out")]))
