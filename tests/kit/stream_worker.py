"""Real stream workers as processes, and the parts of an agent and of a job that drive them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import grpc.aio

from services.streams.block import Block, BlockReader, Kind, encode, pack, unpack
from shoal.v1 import session_service_pb2 as session
from shoal.v1 import spec_pb2 as spec
from shoal.v1 import streams_service_pb2 as v1
from shoal.v1.pipeline_pb2 import StreamProgress
from shoal.v1.streams_service_pb2_grpc import StreamWorkerServiceStub
from tests.kit.child_process import ChildProcess
from tests.kit.port_keeper import PortKeeper
from tests.kit.until import until


class StreamWorker:
    """One worker process with a keeper of the test's, and the agent's connection to both."""

    def __init__(self, folder: Path, *, arguments: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.keeper = PortKeeper(folder / "k.sock")
        self.log = folder / "worker.log"
        self.address = ""
        self.attempts: dict[tuple[str, int], v1.AttemptStreams] = {}
        self._arguments = arguments
        self._ends: list[socket.socket] = []
        self._socket = folder / "w.sock"
        self._child = ChildProcess(self.log)
        self._channel: grpc.aio.Channel | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process and wait until it answers."""
        process = self._child.run(
            [
                sys.executable, "-m", "services.streams.worker",
                "--socket", str(self._socket), "--listen", "127.0.0.1:0", *self._arguments,
            ]
        )  # fmt: skip
        await until(
            lambda: self._socket.exists() or process.poll() is not None, 30, "worker listening"
        )
        assert process.poll() is None, self.log.read_text()
        await self.connect()

    async def connect(self) -> None:
        """Connect like an agent that has just started: it knows nothing yet."""
        await self.disconnect()
        self.attempts.clear()
        self._channel = grpc.aio.insecure_channel(f"unix:{self._socket}")
        self._watching = asyncio.create_task(self._watch(self.stub))
        await until(lambda: self.address, 20, "the worker's first news")

    async def disconnect(self) -> None:
        """Leave, as an agent that is killed does."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        if self._channel is not None:
            await self._channel.close()
        self._watching = self._channel = None

    @property
    def stub(self) -> StreamWorkerServiceStub:
        """The worker as its agent calls it."""
        assert self._channel is not None
        return StreamWorkerServiceStub(self._channel)

    @property
    def pid(self) -> int:
        """Id of the process."""
        assert self._child.process is not None
        return self._child.process.pid

    async def kill(self) -> None:
        """End the process without warning."""
        await asyncio.to_thread(self._child.end, signal.SIGKILL)

    async def stop(self) -> int:
        """End the process in good order and return its exit code."""
        await self.disconnect()
        return await asyncio.to_thread(self._child.end, signal.SIGTERM, 20)

    def state(self, ref: session.AttemptRef) -> v1.AttemptStreams:
        """What the worker last told of an attempt; empty if nothing."""
        return self.attempts.get((ref.attempt, ref.epoch), v1.AttemptStreams())

    async def attach(self, assignment: session.Assignment) -> Job:
        """Make the ports of an attempt, attach it, and return the job's side."""
        job = assignment.job
        ports = [*(port.name for port in job.inputs), *(port.name for port in job.outputs)]
        keeper_id = f"{assignment.ref.attempt}/{assignment.ref.epoch}"
        ends = self.keeper.make(keeper_id, ports)
        self._ends += ends.values()
        request = v1.AttachRequest(
            assignment=assignment,
            spool_path=str(self.folder / "spool" / str(assignment.ref.epoch) / assignment.job.name),
            keeper_path=str(self.keeper.path),
            keeper_id=keeper_id,
        )
        await self.stub.Attach(request, timeout=10)
        return Job(self, assignment, ends, request)

    def close_ends(self) -> None:
        """Close what the jobs still hold."""
        for end in self._ends:
            end.close()

    async def _watch(self, stub: StreamWorkerServiceStub) -> None:
        call = stub.WatchAttempts(v1.WatchAttemptsRequest(), wait_for_ready=True)
        with contextlib.suppress(grpc.aio.AioRpcError):
            while True:
                answer = await call.read()
                if answer is grpc.aio.EOF:
                    return
                news = cast("v1.WatchAttemptsResponse", answer)
                self.address = news.stream_address
                for attempt in news.attempts:
                    self.attempts[attempt.ref.attempt, attempt.ref.epoch] = attempt


@dataclass
class Job:
    """The job's side of an attempt's ports, spoken in blocks or raw bytes."""

    worker: StreamWorker
    assignment: session.Assignment
    ends: dict[str, socket.socket]
    request: v1.AttachRequest
    _readers: dict[str, BlockReader] = field(default_factory=dict[str, BlockReader])
    _whole: dict[str, deque[Block]] = field(default_factory=dict[str, deque[Block]])
    _sent: dict[str, int] = field(default_factory=dict[str, int])

    def __post_init__(self) -> None:
        for end in self.ends.values():
            end.setblocking(False)

    @property
    def ref(self) -> session.AttemptRef:
        """Which attempt it is."""
        return self.assignment.ref

    @property
    def streams(self) -> v1.AttemptStreams:
        """What the worker last told."""
        return self.worker.state(self.ref)

    def port(self, name: str) -> StreamProgress:
        """What the worker last told of one port; empty if nothing."""
        found = [stream for stream in self.streams.streams if stream.port == name]
        return found[0] if found else StreamProgress()

    async def raw_write(self, port: str, data: bytes) -> None:
        """Write bytes on a port, waiting while the worker does not take them."""
        async with asyncio.timeout(60):
            await asyncio.get_running_loop().sock_sendall(self.ends[port], data)

    async def raw_read(self, port: str) -> bytes:
        """Read bytes from a port; none at the end."""
        async with asyncio.timeout(60):
            return await asyncio.get_running_loop().sock_recv(self.ends[port], 1 << 18)

    async def raw_read_all(self, port: str) -> bytes:
        """Read a port up to its end."""
        parts: list[bytes] = []
        while part := await self.raw_read(port):
            parts.append(part)
        return b"".join(parts)

    async def blocks(self, port: str) -> AsyncIterator[Block]:
        """Yield the blocks that come on a port, until the end of file."""
        reader = self._readers.setdefault(port, BlockReader())
        whole = self._whole.setdefault(port, deque[Block]())
        while True:
            while whole:
                yield whole.popleft()
            data = memoryview(await self.raw_read(port))
            if not data:
                reader.finish()
                return
            while data:
                room = reader.buffer()
                count = min(len(room), len(data))
                room[:count] = data[:count]
                data = data[count:]
                whole.extend(reader.filled(count))

    async def start(self, port: str) -> tuple[int, dict[str, object]]:
        """Read START and return the first sequence and what it says."""
        async for block in self.blocks(port):
            assert block.kind is Kind.START
            self._sent[port] = block.first
            return block.first, json.loads(bytes(block.body))
        raise AssertionError(f"port {port} ended before START")

    async def send(self, port: str, records: Iterable[bytes], *, together: int = 1) -> None:
        """Send records, so many in a block."""
        group: list[bytes] = []
        for record in records:
            group.append(record)
            if len(group) == together:
                await self._send_block(port, group)
                group = []
        if group:
            await self._send_block(port, group)

    async def end(self, port: str) -> None:
        """Send END."""
        await self.raw_write(port, encode(Block(Kind.END, self._sent[port])))

    async def acknowledge(self, port: str, sequence: int) -> None:
        """Say that every record below `sequence` is processed."""
        await self.raw_write(port, encode(Block(Kind.ACK, sequence)))

    async def records(self, port: str) -> AsyncIterator[tuple[int, bytes]]:
        """Yield sequence and record after START, up to END."""
        async for block in self.blocks(port):
            if block.kind is Kind.END:
                return
            if block.kind is Kind.START:
                continue
            for index, record in enumerate(unpack(block)):
                yield block.first + index, record
        raise AssertionError(f"port {port} ended without END")

    async def all_records(self, port: str) -> list[bytes]:
        """Return all records up to END, checking their sequence."""
        found: list[bytes] = []
        first: int | None = None
        async for sequence, record in self.records(port):
            first = sequence if first is None else first
            assert sequence == first + len(found), "a gap on a port"
            found.append(record)
        return found

    async def conclude(self, *, succeeded: bool = True) -> None:
        """End the program: its ends of the ports close, and the agent says how it ended."""
        for end in self.ends.values():
            end.close()
        await self.worker.stub.Conclude(
            v1.ConcludeRequest(ref=self.ref, succeeded=succeeded), timeout=10
        )

    async def update(self, lanes: Iterable[session.Lane]) -> None:
        """Tell the worker where the peers are now."""
        await self.worker.stub.UpdateLanes(
            v1.UpdateLanesRequest(ref=self.ref, lanes=lanes), timeout=10
        )

    async def detach(self) -> None:
        """Let go of the attempt."""
        await self.worker.stub.Detach(v1.DetachRequest(ref=self.ref), timeout=10)
        self.worker.keeper.forget(self.request.keeper_id)
        for end in self.ends.values():
            end.close()

    async def _send_block(self, port: str, records: list[bytes]) -> None:
        block = Block(Kind.DATA, self._sent[port], len(records), pack(records))
        self._sent[port] += len(records)
        await self.raw_write(port, encode(block))


@contextlib.asynccontextmanager
async def stream_workers(
    folder: Path, count: int, *, arguments: Sequence[str] = ()
) -> AsyncIterator[list[StreamWorker]]:
    """Start workers with their keepers, and end them afterwards."""
    workers = [StreamWorker(folder / str(number), arguments=arguments) for number in range(count)]
    with contextlib.ExitStack() as keepers:
        for worker in workers:
            keepers.enter_context(worker.keeper)
        try:
            await asyncio.gather(*(worker.start() for worker in workers))
            yield workers
        finally:
            await asyncio.gather(*(worker.stop() for worker in workers))
            for worker in workers:
                worker.close_ends()


def assignment(
    job: str,
    *,
    epoch: int = 1,
    inputs: Iterable[spec.InputSpec] = (),
    outputs: Iterable[spec.OutputSpec] = (),
    lanes: Iterable[session.Lane] = (),
    recovery: spec.Recovery.ValueType = spec.RECOVERY_RESTART,
    replacement: bool = False,
    replica: int = 0,
    replicas: int = 1,
) -> session.Assignment:
    """Return an assignment of one job of the pipeline `p` in the namespace `default`."""
    name = job if replicas == 1 else f"{job}-{replica}"
    return session.Assignment(
        ref=session.AttemptRef(
            attempt=f"pipelines/p/jobs/{name}/attempts/{epoch}", namespace="default", epoch=epoch
        ),
        job=spec.JobSpec(name=job, run=[job], inputs=inputs, outputs=outputs, recovery=recovery),
        goal=session.GOAL_RUN,
        lanes=lanes,
        replacement=replacement,
        replica=replica,
        replicas=replicas,
    )


def stream_input(
    name: str,
    job: str,
    port: str,
    *,
    port_format: spec.PortFormat.ValueType = spec.PORT_FORMAT_BLOCKS,
    record_bytes: int = 0,
    block_count: int = 1,
) -> spec.InputSpec:
    """Return an input that is fed by another job's port."""
    binding = spec.PortBinding(format=port_format, record_bytes=record_bytes)
    return spec.InputSpec(
        name=name,
        stream=spec.StreamSource(job=job, port=port, binding=binding, block_count=block_count),
    )


def stream_output(
    name: str,
    *,
    port_format: spec.PortFormat.ValueType = spec.PORT_FORMAT_BLOCKS,
    record_bytes: int = 0,
) -> spec.OutputSpec:
    """Return an output port."""
    binding = spec.PortBinding(format=port_format, record_bytes=record_bytes)
    return spec.OutputSpec(name=name, binding=binding)


def lane(
    producer: str,
    consumer: str,
    *,
    output: bool,
    address: str = "",
    epoch: int = 0,
    done: bool = False,
    peer_replica: int = 0,
    peer_replicas: int = 1,
) -> session.Lane:
    """Return one end of the lane `job.port` to `job.port`; `output` says which end."""
    producer_job, producer_port = producer.split(".")
    consumer_job, consumer_port = consumer.split(".")
    peer_job, peer_port = (consumer_job, consumer_port) if output else (producer_job, producer_port)
    return session.Lane(
        id=f"{producer}/{consumer}",
        output=output,
        port=producer_port if output else consumer_port,
        peer_port=peer_port,
        peer_job=peer_job,
        peer_replica=peer_replica,
        peer_replicas=peer_replicas,
        peer=session.LanePeer(
            address=address,
            attempt=f"pipelines/p/jobs/{peer_job}/attempts/{epoch}",
            epoch=epoch,
            done=done,
        ),
    )
