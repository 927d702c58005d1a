"""Large records in memory that a real worker shares with its jobs (P7)."""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import select
import socket
from pathlib import Path

import pytest

from services.streams.block import (
    FLAG_RING,
    FREE_ENTRY,
    HEADER,
    HEADER_BYTES,
    LENT_REFERENCE,
    REFERENCE,
    Kind,
)
from shoal.v1 import session_service_pb2 as session
from tests.kit.stream_worker import (
    Job,
    StreamWorker,
    assignment,
    lane,
    stream_input,
    stream_output,
    stream_workers,
)
from tests.kit.until import until

OUT, IN = "source.out", "sink.in"
PAGE = mmap.PAGESIZE


def source(*, epoch: int = 1, done: bool = False) -> session.Assignment:
    return assignment(
        "source",
        epoch=epoch,
        outputs=[stream_output("out")],
        lanes=[lane(OUT, IN, output=True, epoch=1, done=done)],
        replacement=epoch > 1,
    )


def sink(address: str, *, producer_epoch: int = 1) -> session.Assignment:
    return assignment(
        "sink",
        inputs=[stream_input("in", "source", "out")],
        lanes=[lane(OUT, IN, output=False, address=address, epoch=producer_epoch)],
    )


class RingJob:
    """A producer's program, in any language, that uses the ring of its output `out`."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.end = job.ends["out"]
        self.sent = 0

    async def begin(self) -> None:
        """Read START with the descriptor beside it, and map the ring."""
        await asyncio.to_thread(select.select, [self.end], [], [], 20)
        data, [descriptor], _, _ = socket.recv_fds(self.end, 65536, 4)
        assert data[0] == Kind.START
        assert json.loads(data[HEADER_BYTES:])["recovery"] == "restart"
        self.size = os.fstat(descriptor).st_size
        self.memory = mmap.mmap(descriptor, self.size)
        os.close(descriptor)

    async def send(self, record: bytes, at: int) -> None:
        """Put a record into the ring and say so."""
        self.memory[at : at + 4 + len(record)] = len(record).to_bytes(4, "little") + record
        await self.refer(at, len(record))

    async def refer(self, at: int, length: int) -> None:
        """Say that a record lies somewhere."""
        body = REFERENCE.pack(length, at)
        head = HEADER.pack(Kind.DATA, FLAG_RING, 0, 1, self.sent, len(body), 0)
        self.sent += 1
        await self.job.raw_write("out", head + body)

    async def freed(self, count: int) -> list[int]:
        """Wait until so many slots are given back and return where they were."""
        data = b""
        found: list[int] = []
        while len(found) < count:
            piece = await self.job.raw_read("out")
            assert piece, "the port is closed, and slots are missing"
            data += piece
            while len(data) >= HEADER_BYTES:
                kind, _, _, _, _, length, _ = HEADER.unpack_from(data)
                if len(data) < HEADER_BYTES + length:
                    break
                assert kind == Kind.FREE
                body = data[HEADER_BYTES : HEADER_BYTES + length]
                found += [offset for _, offset in FREE_ENTRY.iter_unpack(body)]
                data = data[HEADER_BYTES + length :]
        return found

    async def closed(self) -> None:
        """Read what still comes until the worker has closed the port."""
        async with asyncio.timeout(20):
            while await self.job.raw_read("out"):
                await asyncio.to_thread(lambda: None)

    async def end_of_stream(self) -> None:
        """Say END."""
        await self.job.raw_write("out", HEADER.pack(Kind.END, 0, 0, 0, self.sent, 0, 0))


async def begin(worker: StreamWorker, *, epoch: int = 1) -> RingJob:
    producer = RingJob(await worker.attach(source(epoch=epoch)))
    await producer.begin()
    return producer


async def failure(job: Job) -> str:
    """Wait until the streams of an attempt have failed and return why."""
    await until(lambda: job.streams.failure.code, 10, "the failure")
    assert job.streams.failure.code == "STREAM"
    return job.streams.failure.message


@pytest.mark.parametrize("nodes", [1, 2])
async def test_p7_records_in_a_ring_arrive_and_the_port_closes_once_nobody_reads(
    tmp_path: Path, nodes: int
) -> None:
    async with stream_workers(tmp_path, nodes) as workers:
        left, right = workers[0], workers[-1]
        producer = await begin(left)
        consumer = await right.attach(sink(left.address))
        records = [bytes([k]) * (100_000 + k) for k in range(20)]
        async with asyncio.TaskGroup() as tasks:
            received = tasks.create_task(consumer.all_records("in"))
            for number, record in enumerate(records):
                await producer.send(record, number * 32 * PAGE)
            await producer.end_of_stream()
        assert received.result() == records
        size = sum(map(len, records))
        await until(lambda: producer.job.port("out").bytes == size, 10, "counters")
        await consumer.conclude()
        # Retained until the consumer is done with for good; then nobody reads, and the ring goes.
        await producer.job.update([lane(OUT, IN, output=True, epoch=1, done=True)])
        await producer.closed()


async def test_retention_beyond_memory_leaves_the_ring_for_the_spool(tmp_path: Path) -> None:
    """Memory stays bounded: what is retained beyond it lies on disk, and its slots come back."""
    arguments = ["--memory-bytes", "1000000", "--ring-bytes", str(4 << 20)]
    async with stream_workers(tmp_path, 1, arguments=arguments) as (worker,):
        producer = await begin(worker)
        assert producer.size == 4 << 20
        consumer = await worker.attach(sink(worker.address))
        free = [k * 64 * PAGE for k in range(16)]
        records = [b"%07d" % k + b"z" * 199_993 for k in range(100)]
        async with asyncio.TaskGroup() as tasks:
            received = tasks.create_task(consumer.all_records("in"))
            for record in records:
                if not free:
                    free = await producer.freed(1)
                await producer.send(record, free.pop())
            await producer.end_of_stream()
        assert received.result() == records
        spooled = sum(path.stat().st_size for path in worker.folder.rglob("*.spool"))
        assert spooled > 15_000_000
        # A second consumer gets everything again, from the spool and from the ring.
        await consumer.detach()
        again = assignment(
            "sink",
            epoch=2,
            replacement=True,
            inputs=[stream_input("in", "source", "out")],
            lanes=[lane(OUT, IN, output=False, address=worker.address, epoch=1)],
        )
        assert await (await worker.attach(again)).all_records("in") == records


async def test_a_wrong_reference_fails_its_attempt_alone(tmp_path: Path) -> None:
    async with stream_workers(tmp_path, 1) as (worker,):
        consumer = await worker.attach(sink(worker.address))
        first = await begin(worker)
        await first.send(b"a" * 70_000, 0)
        wrong = [(first.size - PAGE, 2 * PAGE), (100, 10), (2**64 - PAGE, 10), (16 * PAGE, 70_000)]
        for epoch, (at, length) in enumerate(wrong, 2):
            producer = await begin(worker, epoch=epoch)
            await producer.send(b"a" * 70_000, 0)
            await producer.refer(at, length)
            message = await failure(producer.job)
            assert message.startswith("port out at offset 36: ")
            assert "no slot" in message or "overlap" in message
        last = await begin(worker, epoch=9)
        await consumer.update([lane(OUT, IN, output=False, address=worker.address, epoch=9)])
        await last.send(b"a" * 70_000, 0)
        await last.send(b"b" * 70_000, 32 * PAGE)
        await last.end_of_stream()
        assert await consumer.all_records("in") == [b"a" * 70_000, b"b" * 70_000]


async def read_block(end: socket.socket) -> tuple[int, int, bytes, list[int]]:
    """Read one block: its kind, its flags, its body, and the descriptors that came beside it."""
    found: list[int] = []
    data = b""
    wanted = HEADER_BYTES
    while len(data) < wanted:
        await asyncio.to_thread(select.select, [end], [], [], 20)
        part, descriptors, _, _ = socket.recv_fds(end, wanted - len(data), 4)
        assert part
        found += descriptors
        data += part
        if len(data) == HEADER_BYTES:
            wanted += HEADER.unpack(data)[5]
    kind, flags, _, _, _, _, _ = HEADER.unpack(data[:HEADER_BYTES])
    return kind, flags, data[HEADER_BYTES:], found


async def test_a_job_that_gives_back_what_it_was_not_lent_fails_alone(tmp_path: Path) -> None:
    async with stream_workers(tmp_path, 1) as (worker,):
        producer = await begin(worker)
        consumer = await worker.attach(sink(worker.address))
        kind, _, said, _ = await read_block(consumer.ends["in"])
        assert kind == Kind.START
        assert json.loads(said)["rings"] is True
        await consumer.raw_write("in", HEADER.pack(Kind.RING, 0, 0, 0, 0, 0, 0))
        # Nothing says when the worker has heard that; then it lends instead of sending.
        number, descriptor, at = 0, -1, 0
        while not number:
            await producer.send(b"z" * 100_000, at)
            kind, flags, said, beside = await read_block(consumer.ends["in"])
            assert (kind == Kind.RING) == bool(beside)
            if kind == Kind.RING:
                number, size = FREE_ENTRY.unpack(said)
                [descriptor] = beside
                assert size == producer.size
            at += 32 * PAGE
        _, flags, said, _ = await read_block(consumer.ends["in"])
        assert flags == FLAG_RING
        length, where, offset = LENT_REFERENCE.unpack(said)
        assert (length, where, offset) == (100_000, number, at - 32 * PAGE)
        with mmap.mmap(descriptor, producer.size, prot=mmap.PROT_READ) as seen:
            assert seen[offset : offset + 8] == (100_000).to_bytes(4, "little") + b"zzzz"
        os.close(descriptor)
        back = FREE_ENTRY.pack(number, offset)
        free = HEADER.pack(Kind.FREE, 0, 0, 0, 0, len(back), 0) + back
        await consumer.raw_write("in", free)
        await consumer.raw_write("in", free)
        message = await failure(consumer)
        assert message.startswith("port in at offset ")
        assert f"offset {offset} of ring {number}, which was not lent" in message
        assert not producer.job.streams.failure.code


async def test_a_program_that_takes_no_descriptor_loses_nothing(tmp_path: Path) -> None:
    async with stream_workers(tmp_path, 1) as (worker,):
        producer = await worker.attach(source())
        consumer = await worker.attach(sink(worker.address))
        assert (await producer.start("out"))[0] == 0
        async with asyncio.TaskGroup() as tasks:
            received = tasks.create_task(consumer.all_records("in"))
            await producer.send("out", [b"x" * 5_000_000] * 3)
            await producer.end("out")
        assert received.result() == [b"x" * 5_000_000] * 3


@pytest.mark.parametrize("nodes", [1, 2])
async def test_a_program_that_ends_without_reading_what_came_back_loses_nothing(
    tmp_path: Path, nodes: int
) -> None:
    async with stream_workers(tmp_path, nodes) as workers:
        left, right = workers[0], workers[-1]
        producer = await begin(left)
        consumer = await right.attach(sink(left.address))
        records = [b"%06d" % k * 20_000 for k in range(8)]
        for number, record in enumerate(records):
            await producer.send(record, number * 64 * PAGE)
        # The worker has said that it took them, and nobody reads that.
        await asyncio.to_thread(select.select, [producer.end], [], [], 20)
        for number, record in enumerate(records, 8):
            await producer.send(record, number * 64 * PAGE)
        await producer.end_of_stream()
        await producer.job.conclude()
        assert await consumer.all_records("in") == records * 2


def rings_of(worker: StreamWorker) -> int:
    """How many descriptors and maps of rings the worker has."""
    links = [path.readlink() for path in Path(f"/proc/{worker.pid}/fd").iterdir()]
    maps = Path(f"/proc/{worker.pid}/maps").read_text()
    return sum("memfd:shoal" in str(link) for link in links) + maps.count("memfd:shoal")


async def test_nothing_of_a_ring_is_left_when_its_jobs_are_gone(tmp_path: Path) -> None:
    async with stream_workers(tmp_path, 1) as (worker,):
        producer = await begin(worker)
        consumer = await worker.attach(sink(worker.address))
        await producer.send(b"z" * 100_000, 0)
        assert await anext(consumer.records("in")) == (0, b"z" * 100_000)
        assert rings_of(worker)
        # Both are killed: neither says an end, nor gives anything back.
        await consumer.conclude(succeeded=False)
        await producer.job.conclude(succeeded=False)
        await consumer.detach()
        await producer.job.detach()
        await until(lambda: rings_of(worker) == 0, 10, "no ring")


async def test_rings_can_be_turned_off(tmp_path: Path) -> None:
    async with stream_workers(tmp_path, 1, arguments=["--ring-bytes", "0"]) as (worker,):
        producer = await worker.attach(source())
        end = producer.ends["out"]
        await asyncio.to_thread(select.select, [end], [], [], 20)
        data, descriptors, _, _ = socket.recv_fds(end, 65536, 4)
        assert data[0] == Kind.START
        assert not descriptors
