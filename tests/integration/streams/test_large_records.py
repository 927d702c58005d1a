"""Records of up to 256 MiB between real workers, which carry them in parts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from services.streams.block import (
    HEADER,
    HEADER_BYTES,
    Block,
    Kind,
    encode,
    header,
)
from services.streams.checksum import crc32c, extended
from shoal.limits import RECORD_BYTES_MAX
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
from tests.kit.tcp_proxy import TcpProxy
from tests.kit.until import until

OUT, IN = "source.out", "sink.in"
MIB = 2**20


def source(epoch: int = 1, *, consumer_epoch: int = 1) -> session.Assignment:
    return assignment(
        "source",
        epoch=epoch,
        outputs=[stream_output("out")],
        lanes=[lane(OUT, IN, output=True, epoch=consumer_epoch)],
        replacement=epoch > 1,
    )


def sink(address: str, *, epoch: int = 1) -> session.Assignment:
    return assignment(
        "sink",
        epoch=epoch,
        inputs=[stream_input("in", "source", "out")],
        lanes=[lane(OUT, IN, output=False, address=address, epoch=1)],
        replacement=epoch > 1,
    )


def pieces(size: int) -> Iterator[bytes]:
    """Yield a record of `size` bytes, no piece of it like another."""
    for number in range(-(-size // MIB)):
        yield ((number * 7 + 1).to_bytes(4, "little") * (MIB // 4))[: size - number * MIB]


async def send_large(job: Job, first: int, size: int) -> int:
    """Send a record in a block of its own without holding it; return CRC-32C of the body."""
    table = size.to_bytes(4, "little")
    await job.raw_write("out", header(Block(Kind.DATA, first, 1, bytes(4)))[:16])
    await job.raw_write("out", (4 + size).to_bytes(4, "little") + bytes(4) + table)
    crc = crc32c(table)
    for piece in pieces(size):
        crc = extended(crc, piece)
        await job.raw_write("out", piece)
    return crc


async def take(job: Job, port: str) -> tuple[Kind, int, int, int]:
    """Take a block without holding it; return kind, first sequence, and bytes and CRC-32C of it."""
    end = job.ends[port]
    loop = asyncio.get_running_loop()

    async def some(most: int) -> bytes:
        async with asyncio.timeout(60):
            piece = await loop.sock_recv(end, most)
        assert piece, "the port ended"
        return piece

    head = b""
    while len(head) < HEADER_BYTES:
        head += await some(HEADER_BYTES - len(head))
    kind, _, _, _, first, length, _ = HEADER.unpack(head)
    crc, left = 0, length
    while left:
        piece = await some(min(MIB, left))
        crc = extended(crc, piece)
        left -= len(piece)
    return Kind(kind), first, length, crc


async def test_a_record_of_256_mib_passes_and_comes_again_from_the_spool(tmp_path: Path) -> None:
    async with stream_workers(tmp_path, 3) as (left, right, spare):
        producer = await left.attach(source())
        consumer = await right.attach(sink(left.address))
        await producer.start("out")
        await consumer.start("in")
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(send_large(producer, 0, RECORD_BYTES_MAX))
            large = await take(consumer, "in")
        assert large == (Kind.DATA, 0, RECORD_BYTES_MAX + 4, sending.result())
        small = await send_large(producer, 1, 100_000)
        assert await take(consumer, "in") == (Kind.DATA, 1, 100_004, small)
        await producer.raw_write("out", encode(Block(Kind.END, 2)))
        assert (await take(consumer, "in"))[:2] == (Kind.END, 2)

        await until(lambda: producer.port("out").retained_bytes > RECORD_BYTES_MAX, 20, "kept")
        await producer.update([lane(OUT, IN, output=True, epoch=2)])
        again = await spare.attach(sink(left.address, epoch=2))
        await again.start("in")
        assert await take(again, "in") == large
        assert await take(again, "in") == (Kind.DATA, 1, 100_004, small)
        assert (await take(again, "in"))[:2] == (Kind.END, 2)
        # Once in memory as a whole at each end, and never twice.
        for worker in (left, right, spare):
            assert peak_mib(worker) < 2 * 256, f"{peak_mib(worker)} MiB"


async def test_a_record_above_the_limit_is_refused_with_port_offset_and_reason(
    tmp_path: Path,
) -> None:
    async with stream_workers(tmp_path, 1) as (left,):
        producer = await left.attach(source())
        await producer.start("out")
        await producer.send("out", [b"before"])
        above = (RECORD_BYTES_MAX + 1 + 4).to_bytes(4, "little")
        head = header(Block(Kind.DATA, 1, 1, bytes(4)))
        await producer.raw_write("out", head[:16] + above + head[20:])
        await until(lambda: producer.streams.failure.code, 10, "the failure")
        assert producer.streams.failure.code == "STREAM"
        assert (
            "port out at offset 34: a record of 268435457 bytes is above the limit of 268435456"
            in producer.streams.failure.message
        )


async def test_a_link_cut_within_a_large_record_repeats_it_from_its_beginning(
    tmp_path: Path,
) -> None:
    async with (
        stream_workers(tmp_path, 2) as (left, right),
        TcpProxy(left.address) as proxy,
    ):
        producer = await left.attach(source())
        consumer = await right.attach(sink(proxy.address))
        await producer.start("out")
        await consumer.start("in")
        size = 24 * MIB
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(send_large(producer, 0, size))
            receiving = tasks.create_task(take(consumer, "in"))
            await until(lambda: proxy.carried > 4 * MIB, 20, "some parts")
            proxy.cut()
        assert receiving.result() == (Kind.DATA, 0, size + 4, sending.result())
        assert proxy.accepted > 1


async def test_a_large_record_takes_its_lane_to_a_connection_of_its_own(tmp_path: Path) -> None:
    async with (
        stream_workers(tmp_path, 2) as (left, right),
        TcpProxy(left.address) as proxy,
    ):
        producer = await left.attach(source())
        consumer = await right.attach(sink(proxy.address))
        await producer.start("out")
        await consumer.start("in")
        small = await send_large(producer, 0, 300_000)
        assert await take(consumer, "in") == (Kind.DATA, 0, 300_004, small)
        assert proxy.accepted == 1
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(send_large(producer, 1, MIB))
            large = await take(consumer, "in")
        assert large == (Kind.DATA, 1, MIB + 4, sending.result())
        assert proxy.accepted == 2


def peak_mib(worker: StreamWorker) -> int:
    """Return the most memory that a worker ever had, in MiB."""
    text = Path(f"/proc/{worker.pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) // 1024
