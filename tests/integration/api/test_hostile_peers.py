"""T4: whatever a stranger sends, and whatever an older version left in the store, a controller lives.

Real controller processes. `SHOAL_STRANGERS` raises the number of first messages (2,000).
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, cast

import grpc
import grpc.aio
import psutil
import pytest

from control.core.rows import AttemptRow, JobRow, NodeRow, PipelineAdded, PipelineRow
from control.store.sqlite import SqliteStore
from shoal.channel import SESSION, channel_options
from shoal.client import Client
from shoal.model import Capacity, JobState, PipelineState
from shoal.names import AttemptRef, PipelineRef
from shoal.spec import Job, Pipeline, Retry
from shoal.v1 import (
    keys_service_pb2,
    lanes_service_pb2,
    nodes_service_pb2,
    pipeline_pb2,
    pipelines_service_pb2,
    records_service_pb2,
    session_service_pb2,
    session_service_pb2_grpc,
)
from tests.kit.controller_process import ControllerProcess
from tests.kit.hostile import Hostile
from tests.kit.scripted_agent import ScriptedAgent, connected_agent, observed
from tests.kit.until import until
from tests.unit.control.world import BEGAN

LOG = logging.getLogger(__name__)

STRANGERS = int(os.environ.get("SHOAL_STRANGERS", "2000"))
TOGETHER = 32
ANSWER_SECONDS = 100
GROWTH_BYTES = 50 * 1024 * 1024

SERVICES = (
    pipelines_service_pb2,
    nodes_service_pb2,
    keys_service_pb2,
    records_service_pb2,
    lanes_service_pb2,
)
CALLS = 320

ONE = Pipeline("one", (Job("a", ("true",)),))


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[ControllerProcess]:
    async with ControllerProcess(tmp_path) as process:
        yield process


def memory_bytes(controller: ControllerProcess) -> int:
    assert controller.process is not None
    return int(psutil.Process(controller.process.pid).memory_info().rss)


async def first_message(channel: grpc.aio.Channel, hostile: Hostile) -> bool:
    """Be a stranger: open a stream, say one thing, and say whether the controller reacted."""
    stub = session_service_pb2_grpc.SessionServiceStub(channel)
    call = cast("Any", stub.Connect(timeout=ANSWER_SECONDS))
    request = hostile.message(session_service_pb2.ConnectRequest)
    if hostile.chance() < 0.7:
        request.sequence = 1
        del request.messages[1:]
        if hostile.chance() < 0.8:
            hello = hostile.message(session_service_pb2.Hello)
            del request.messages[:]
            request.messages.add().hello.CopyFrom(hello)
    try:
        await call.write(request)
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass
    except asyncio.InvalidStateError:
        pass
    except grpc.aio.AioRpcError as error:
        late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return not late or "Hello" in str(error.details())
    finally:
        call.cancel()
    return True


async def strangers(address: str, count: int, seed: int) -> None:
    """So many first messages, one after another."""
    hostile = Hostile(Random(seed), lambda: ("n1", "node-1", "default"))
    async with grpc.aio.insecure_channel(address, options=channel_options(SESSION)) as channel:
        for _ in range(count):
            assert await first_message(channel, hostile), f"no answer within {ANSWER_SECONDS} s"


async def test_t4_strangers_first_messages_leave_a_controller_alive_and_slim(
    controller: ControllerProcess,
) -> None:
    async def all_of_them(count: int, seed: int) -> None:
        async with asyncio.timeout(3600), asyncio.TaskGroup() as tasks:
            for number in range(TOGETHER):
                tasks.create_task(strangers(controller.grpc, -(-count // TOGETHER), seed + number))

    await all_of_them(TOGETHER * 4, 1000)  # what any first call loads is no growth
    before = memory_bytes(controller)
    began = time.monotonic()
    await all_of_them(STRANGERS, 0)
    grown = memory_bytes(controller) - before
    took = time.monotonic() - began
    LOG.info("%d strangers: %.1f MB more, %.0f s", STRANGERS, grown / 1e6, took)
    assert grown < GROWTH_BYTES
    assert controller.process is not None
    assert controller.process.poll() is None, controller.log()
    log = controller.log()
    assert "could not be taken" not in log
    assert "Traceback" not in log, log[log.index("Traceback") :][:4000]
    async with (
        connected_agent(controller.grpc, "honest") as agent,
        Client(controller.grpc) as client,
    ):
        submitted = await client.submit(ONE)
        node = next(one for one in await client.nodes() if one.name == "honest")
        assert node.connected
        assert submitted.pipeline.state is PipelineState.QUEUED
        del agent


async def test_t4_any_request_to_any_method_is_answered(controller: ControllerProcess) -> None:
    hostile = Hostile(Random(7), lambda: ("n1", "one-x", "a", "default", "pipelines/one-x"))
    rng = Random(8)
    methods = [
        (f"/{service.full_name}/{method.name}", method)
        for module in SERVICES
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    async with Client(controller.grpc) as client:
        await client.submit(ONE)
    async with grpc.aio.insecure_channel(controller.grpc) as channel:

        async def call(number: int) -> None:
            path, method = methods[number % len(methods)]
            kind = method.input_type._concrete_class
            answer = method.output_type._concrete_class
            # Streams of requests and of answers are the same to what is on the wire.
            made = channel.stream_stream(
                path,
                request_serializer=kind.SerializeToString,
                response_deserializer=answer.FromString,
            )(timeout=rng.choice((0.2, 0.6)))
            try:
                for _ in range(rng.choice((1, 1, 3)) if method.client_streaming else 1):
                    await made.write(hostile.message(kind))
                await made.done_writing()
                while await made.read() is not grpc.aio.EOF:
                    pass
            # The last is a message that met the deadline of its call on the way out.
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.InternalError):
                pass
            # An exception that nobody expected is UNKNOWN; gRPC's own errors say who was gone.
            code, details = await made.code(), await made.details()
            assert code is not grpc.StatusCode.UNKNOWN, (path, details)

        for first in range(0, CALLS, TOGETHER):
            await asyncio.gather(*map(call, range(first, first + TOGETHER)))
    assert controller.process is not None
    assert controller.process.poll() is None, controller.log()


async def test_t4_a_hello_of_2_to_the_63_bytes_is_refused_and_nobody_else_notices(
    controller: ControllerProcess,
) -> None:
    async with connected_agent(controller.grpc, "n1") as agent:
        for _ in range(8):
            async with ScriptedAgent(controller.grpc, "n2") as stranger:
                capacity = nodes_service_pb2.NodeCapacity(cpus=1, memory_bytes=2**63)
                hello = session_service_pb2.Hello(node="n2", capacity=capacity)
                await stranger.send(session_service_pb2.AgentMessage(hello=hello))
                await until(lambda: stranger.ended, what="the refusal")
                assert stranger.error is not None
                assert stranger.error.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert "hello.capacity.memory_bytes" in str(stranger.error.details())
        assert not agent.ended
        await agent.committed(await agent.send(session_service_pb2.AgentMessage()))
        async with Client(controller.grpc) as client:
            assert [node.name for node in await client.nodes()] == ["n1"]


async def test_t4_a_backoff_of_9500_years_is_refused(controller: ControllerProcess) -> None:
    retry = Retry(3, 3e11, 3e11)
    spec = replace(ONE, jobs=(replace(ONE.jobs[0], retry=retry),))
    async with Client(controller.grpc) as client:
        with pytest.raises(Exception, match="longer than ten years") as refused:
            await client.submit(spec)
    assert "backoff_seconds" in str(refused.value)


async def test_t4_a_store_of_before_with_such_a_backoff_starts_and_goes_on(tmp_path: Path) -> None:
    """What an older version took: a job that runs, will fail, and then is to wait 9,500 years."""
    spec = replace(ONE, jobs=(replace(ONE.jobs[0], retry=Retry(3, 3e11, 3e11)),))
    ref = AttemptRef("default", "one-000001", "a", 1, 1)
    pipeline = PipelineRef("default", "one-000001")
    (tmp_path / "state").mkdir()
    async with SqliteStore(tmp_path / "state" / "controller.db") as store:
        await store.load(lambda: "start", 100)
        await store.commit(
            [
                PipelineAdded(pipeline, 1, "", spec, BEGAN),
                PipelineRow(pipeline, PipelineState.RUNNING),
                JobRow(ref.job_ref, JobState.RUNNING, epoch=1, number=1),
                AttemptRow(ref, "node-1", JobState.RUNNING, BEGAN),
                NodeRow("node-1", "scripted", Capacity(4)),
            ]
        )
    async with ControllerProcess(tmp_path) as controller:
        failed = observed(
            session_service_pb2.AttemptRef(attempt=ref.name, namespace="default", epoch=1),
            JobState.FAILED,
            reason=pipeline_pb2.Reason(code="EXIT", number=1, message="no"),
        )
        async with ScriptedAgent(controller.grpc) as agent, Client(controller.grpc) as client:
            await agent.hello(failed)
            seen = await client.get("one-000001")
            assert seen.jobs[0].state is JobState.RETRY_WAIT
            begins = re.fullmatch(
                r"the next attempt begins at (\d{4})-\S+ \S+ UTC", seen.jobs[0].waiting_for
            )
            assert begins is not None, seen.jobs[0].waiting_for
            assert 9 <= int(begins[1]) - datetime.now(UTC).year <= 10, "ten years are the most"
        assert "brought within the limits" in controller.log()


@pytest.mark.parametrize("character", ["9", "💥"])
async def test_t4_a_refusal_of_something_long_still_says_why(
    controller: ControllerProcess, character: str
) -> None:
    """What repeats a long value did not fit into the trailers of a call, and nothing was told."""
    async with ScriptedAgent(controller.grpc) as stranger:
        hello = session_service_pb2.Hello(node=character * 20_000)
        await stranger.send(session_service_pb2.AgentMessage(hello=hello))
        await until(lambda: stranger.ended, what="the refusal")
        assert stranger.error is not None
        assert stranger.error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "hello.node" in str(stranger.error.details())
        assert "use a lower-case letter" in str(stranger.error.details())
