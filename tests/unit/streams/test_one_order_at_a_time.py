"""What a stream worker is told of an attempt waits until it has attached it, and what it tells of one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from services.runtime.rpc import RpcError
from services.streams.block import Body
from services.streams.machine import Stage
from services.streams.plan import StreamLimits
from services.streams.worker.agent_service import AgentService
from services.streams.worker.lane_registry import Post
from services.streams.worker.port_link import PortLink, PortName, PortUse
from services.streams.worker.pull import Channels
from services.streams.worker.spool import FileSpool
from services.streams.worker.stream_worker import StreamWorker, WorkerLinks
from shoal.v1.session_service_pb2 import Assignment, PortHeld
from shoal.v1.streams_service_pb2 import (
    AttachRequest,
    ConcludeRequest,
    DetachRequest,
    UpdateLanesRequest,
)
from shoal.wire.attempt import decode_attempt_ref
from tests.kit.stream_worker import assignment, lane, stream_output
from tests.kit.until import until

ONE = assignment(
    "source",
    outputs=[stream_output("out")],
    lanes=[lane("source.out", "sink.in", output=True, epoch=1)],
)
REF = decode_attempt_ref(ONE.ref)


class _Port:
    """Both ends of a port that nobody writes to."""

    def __init__(self) -> None:
        self.closed = False

    async def connect(self, use: PortUse, post: Post) -> PortLink:
        return self

    def read(self) -> None: ...

    def pause(self) -> None: ...

    def write(self, parts: Sequence[Body]) -> None: ...

    def shut(self) -> None: ...

    def take_nothing_more(self) -> None: ...

    def let_go(self) -> None: ...

    def close(self) -> None:
        self.closed = True


class _SlowPorts:
    """Hands a port over once it is told to."""

    def __init__(self) -> None:
        self.asked = False
        self.answers = asyncio.Event()
        self.port = _Port()

    async def fetch(self, keeper_path: str, keeper_id: str) -> Mapping[PortName, _Port]:
        self.asked = True
        await self.answers.wait()
        return {("out", True): self.port}


async def test_the_end_of_a_program_that_comes_while_its_attempt_is_attached(
    tmp_path: Path,
) -> None:
    ports = _SlowPorts()
    async with asyncio.TaskGroup() as group:
        links = WorkerLinks(Channels(), ports, lambda path: FileSpool(Path(path)))
        worker = StreamWorker("127.0.0.1:1", StreamLimits(), group, links)
        service = AgentService(worker)
        request = AttachRequest(assignment=ONE, spool_path=str(tmp_path), keeper_id="x")
        attaching = group.create_task(service.Attach(request, None))
        await until(lambda: ports.asked)
        updating = group.create_task(
            service.UpdateLanes(UpdateLanesRequest(ref=ONE.ref, lanes=ONE.lanes), None)
        )
        concluding = group.create_task(service.Conclude(ConcludeRequest(ref=ONE.ref), None))
        ports.answers.set()
        await attaching
        shell = worker.shell(REF)
        assert shell is not None
        await updating
        await concluding
        assert shell.machine.stage is Stage.ABANDONED
        assert shell.machine.failure is None
        await service.Detach(DetachRequest(ref=ONE.ref), None)
        assert ports.port.closed


async def test_an_attempt_that_is_dropped_while_it_is_attached_leaves_nothing(
    tmp_path: Path,
) -> None:
    ports = _SlowPorts()
    async with asyncio.TaskGroup() as group:
        links = WorkerLinks(Channels(), ports, lambda path: FileSpool(Path(path)))
        worker = StreamWorker("127.0.0.1:1", StreamLimits(), group, links)
        service = AgentService(worker)
        request = AttachRequest(assignment=ONE, spool_path=str(tmp_path), keeper_id="x")
        attaching = group.create_task(service.Attach(request, None))
        await until(lambda: ports.asked)
        dropping = group.create_task(service.Detach(DetachRequest(ref=ONE.ref), None))
        ports.answers.set()
        await attaching
        await dropping
        assert worker.shell(REF) is None
        assert ports.port.closed
        with pytest.raises(RpcError, match="is not attached"):
            await service.Conclude(ConcludeRequest(ref=ONE.ref), None)


async def test_how_far_a_port_is_that_stands_still_is_told_once_and_to_each_watcher(
    tmp_path: Path,
) -> None:
    ports = _SlowPorts()
    ports.answers.set()
    held = Assignment()
    held.CopyFrom(ONE)
    held.lanes[0].hold = 3
    async with asyncio.TaskGroup() as group:
        links = WorkerLinks(Channels(), ports, lambda path: FileSpool(Path(path)))
        worker = StreamWorker("127.0.0.1:1", StreamLimits(), group, links)
        service = AgentService(worker)
        request = AttachRequest(assignment=held, spool_path=str(tmp_path), keeper_id="x")
        await service.Attach(request, None)
        hold = PortHeld(port="out", hold=3, held_at=0)
        for _ in range(2):
            async with aclosing(worker.news()) as news:
                [told] = await anext(news)
                assert list(told.holds) == [hold]
                await service.UpdateLanes(UpdateLanesRequest(ref=ONE.ref, lanes=ONE.lanes), None)
                [told] = await anext(news)
                assert list(told.holds) == []
                await service.UpdateLanes(UpdateLanesRequest(ref=ONE.ref, lanes=held.lanes), None)
        await service.Detach(DetachRequest(ref=ONE.ref), None)
