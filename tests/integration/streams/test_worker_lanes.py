"""Real worker processes on loopback: records pass, whatever breaks in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path

import grpc.aio
import pytest

from shoal.v1 import session_service_pb2 as session
from shoal.v1 import spec_pb2 as spec
from shoal.v1.streams_service_pb2 import PullAck, PullOpen, PullRequest
from shoal.v1.streams_service_pb2_grpc import StreamsServiceStub
from tests.kit.spoken import SPOKEN_LANES
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


ON_ONE_NODE_AND_BETWEEN_TWO = pytest.mark.parametrize("nodes", [1, 2])


@contextlib.asynccontextmanager
async def ends(
    folder: Path, nodes: int, *, arguments: Sequence[str] = ()
) -> AsyncIterator[tuple[StreamWorker, StreamWorker]]:
    """Start the producer's and the consumer's worker, which is the same one where `nodes` is 1."""
    async with stream_workers(folder, nodes, arguments=arguments) as workers:
        yield workers[0], workers[-1]


def source(consumer_epoch: int = 1, *, epoch: int = 1, done: bool = False) -> session.Assignment:
    return assignment(
        "source",
        epoch=epoch,
        outputs=[stream_output("out")],
        lanes=[lane(OUT, IN, output=True, epoch=consumer_epoch, done=done)],
        replacement=epoch > 1,
    )


def sink(address: str, *, epoch: int = 1, producer_epoch: int = 1) -> session.Assignment:
    return assignment(
        "sink",
        epoch=epoch,
        inputs=[stream_input("in", "source", "out")],
        lanes=[lane(OUT, IN, output=False, address=address, epoch=producer_epoch)],
        replacement=epoch > 1,
    )


def record(number: int) -> bytes:
    return b"record %d" % number


async def collect(job: Job, found: list[tuple[int, bytes]]) -> None:
    """Append what comes on `in` while it comes."""
    async for one in job.records("in"):
        found.append(one)  # noqa: PERF401 - the test looks at it in between


def longer(found: list[tuple[int, bytes]], count: int) -> bool:
    return len(found) > count


async def finish(job: Job) -> None:
    await job.conclude()
    await until(lambda: job.streams.drained, 20, f"{job.ref.attempt} drained")


@ON_ONE_NODE_AND_BETWEEN_TWO
async def test_records_arrive_once_and_in_order_and_everything_drains(
    tmp_path: Path, nodes: int
) -> None:
    async with ends(tmp_path, nodes) as (left, right):
        producer = await left.attach(source())
        consumer = await right.attach(sink(left.address))
        assert await producer.start("out") == (
            0,
            {"recovery": "restart", "epoch": 1, "block_count": 1},
        )
        async with asyncio.TaskGroup() as tasks:
            received = tasks.create_task(consumer.all_records("in"))
            await producer.send("out", (record(k) for k in range(5000)), together=7)
            await producer.end("out")
        assert received.result() == [record(k) for k in range(5000)]
        await finish(consumer)
        await producer.conclude()
        await until(lambda: producer.port("out").ended, 10, "ended")
        assert not producer.streams.drained, "the consumer has not committed yet"
        await producer.update([lane(OUT, IN, output=True, epoch=1, done=True)])
        await until(lambda: producer.streams.drained, 10, "the producer drained")
        await producer.detach()
        await consumer.detach()


@ON_ONE_NODE_AND_BETWEEN_TWO
async def test_a_record_of_video_size_and_the_largest_one_pass(tmp_path: Path, nodes: int) -> None:
    async with ends(tmp_path, nodes) as (left, right):
        producer = await left.attach(source())
        consumer = await right.attach(sink(left.address))
        records = [bytes([k]) * 1_300_000 for k in range(12)] + [b"x" * (64 << 20), b"end"]
        await producer.start("out")
        async with asyncio.TaskGroup() as tasks:
            received = tasks.create_task(consumer.all_records("in"))
            await producer.send("out", records)
            await producer.end("out")
        assert received.result() == records


async def test_a_killed_worker_and_its_replacement_lose_and_repeat_nothing(tmp_path: Path) -> None:
    async with stream_workers(tmp_path, 3) as (first, second, right):
        producer = await first.attach(source())
        consumer = await right.attach(sink(first.address))
        await producer.start("out")
        await producer.send("out", (record(k) for k in range(1000)), together=9)
        found: list[tuple[int, bytes]] = []

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(collect(consumer, found))
            await until(lambda: len(found) > 300, 20, "some records")
            await first.kill()
            replacement = await second.attach(source(epoch=2))
            await consumer.update([lane(OUT, IN, output=False, address=second.address, epoch=2)])
            await replacement.start("out")
            await replacement.send("out", (record(k) for k in range(3000)), together=4)
            await replacement.end("out")
        assert found == [(k, record(k)) for k in range(3000)]


async def test_a_replaced_consumer_gets_everything_again(tmp_path: Path) -> None:
    async with stream_workers(tmp_path, 3) as (left, first, second):
        producer = await left.attach(source())
        consumer = await first.attach(sink(left.address))
        await producer.start("out")
        await producer.send("out", (record(k) for k in range(2000)), together=9)
        await until(lambda: consumer.port("in").records > 100, 20, "some records")
        await first.kill()
        await producer.update([lane(OUT, IN, output=True, epoch=2)])
        replacement = await second.attach(sink(left.address, epoch=2))
        await producer.end("out")
        assert await replacement.all_records("in") == [record(k) for k in range(2000)]


@pytest.mark.parametrize("nodes", [1, 3])
async def test_a_zombie_consumer_is_fenced(tmp_path: Path, nodes: int) -> None:
    async with stream_workers(tmp_path, nodes) as workers:
        left, first, second = workers[0], workers[nodes // 2], workers[-1]
        producer = await left.attach(source())
        old = await first.attach(sink(left.address))
        await old.start("in")
        await producer.start("out")
        new = await second.attach(sink(left.address, epoch=2))
        await producer.update([lane(OUT, IN, output=True, epoch=2)])  # the old one is over
        await producer.send("out", [record(0)])
        await producer.end("out")
        assert await new.all_records("in") == [record(0)]
        await producer.update([lane(OUT, IN, output=True, epoch=1)])  # late news of the old one
        await old.update([lane(OUT, IN, output=False, address=left.address, epoch=1)])
        assert not old.port("in").ended


@ON_ONE_NODE_AND_BETWEEN_TWO
async def test_a_slow_consumer_blocks_its_producer(tmp_path: Path, nodes: int) -> None:
    arguments = ["--credit-bytes", "300000"]
    async with ends(tmp_path, nodes, arguments=arguments) as (left, right):
        producer = await left.attach(source())
        consumer = await right.attach(sink(left.address))
        await producer.start("out")
        body = b"y" * 10_000
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(producer.send("out", (body for _ in range(2000))))
            await until(lambda: producer.port("out").blocked_seconds > 0.5, 20, "blocked")
            stream = producer.port("out")
            assert stream.bytes < 5_000_000, "more than credit, backlog and sockets is on the way"
            assert not sending.done()
            received = tasks.create_task(consumer.all_records("in"))
            await sending
            await producer.end("out")
        assert received.result() == [body] * 2000


async def test_a_cut_link_resumes(tmp_path: Path) -> None:
    async with (
        stream_workers(tmp_path, 2) as (left, right),
        TcpProxy(left.address) as proxy,
    ):
        producer = await left.attach(source())
        consumer = await right.attach(sink(proxy.address))
        await producer.start("out")
        found: list[tuple[int, bytes]] = []

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(collect(consumer, found))
            for part in range(6):
                numbers = range(part * 500, part * 500 + 500)
                await producer.send("out", (record(k) for k in numbers), together=3)
                await until(partial(longer, found, part * 500), 20, "records")
                proxy.cut()
            await producer.end("out")
        assert found == [(k, record(k)) for k in range(3000)]
        assert proxy.accepted > 3


async def test_a_link_that_falls_silent_is_found_and_resumes(tmp_path: Path) -> None:
    async with (
        stream_workers(tmp_path, 2) as (left, right),
        TcpProxy(left.address) as proxy,
    ):
        producer = await left.attach(source())
        consumer = await right.attach(sink(proxy.address))
        await producer.start("out")
        found: list[tuple[int, bytes]] = []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(collect(consumer, found))
            await producer.send("out", [record(0)])
            await until(partial(longer, found, 0), 20, "a record")
            proxy.stall()
            await producer.send("out", [record(1)])
            await until(partial(longer, found, 1), 20, "a record over a new connection")
            await producer.end("out")
        assert found == [(0, record(0)), (1, record(1))]
        assert proxy.accepted == 2


@ON_ONE_NODE_AND_BETWEEN_TWO
async def test_a_malformed_block_fails_the_attempt_and_leaves_the_neighbour_consistent(
    tmp_path: Path, nodes: int
) -> None:
    async with ends(tmp_path, nodes) as (left, right):
        producer = await left.attach(source())
        consumer = await right.attach(sink(left.address))
        await producer.start("out")
        await producer.send("out", [record(0)])
        await producer.raw_write("out", b"\xff" * 24)
        await until(lambda: producer.streams.failure.code, 10, "the failure")
        assert producer.streams.failure.code == "STREAM"
        message = producer.streams.failure.message
        assert "port out at offset 36" in message
        assert "kind 255 does not exist" in message
        replacement = await left.attach(source(epoch=2))
        await consumer.update([lane(OUT, IN, output=False, address=left.address, epoch=2)])
        await replacement.start("out")
        await replacement.send("out", [record(0), record(1)])
        await replacement.end("out")
        assert await consumer.all_records("in") == [record(0), record(1)]


@ON_ONE_NODE_AND_BETWEEN_TWO
async def test_a_consumer_that_is_early_waits_for_its_producer(tmp_path: Path, nodes: int) -> None:
    async with ends(tmp_path, nodes) as (left, right):
        consumer = await right.attach(sink(left.address))
        await consumer.start("in")
        producer = await left.attach(source())
        await producer.start("out")
        await producer.send("out", [record(0)])
        await producer.end("out")
        assert await consumer.all_records("in") == [record(0)]
        assert "UNKNOWN_LANE" not in left.log.read_text()


@ON_ONE_NODE_AND_BETWEEN_TWO
async def test_attach_may_be_repeated_by_a_new_agent(tmp_path: Path, nodes: int) -> None:
    async with ends(tmp_path, nodes) as (left, right):
        producer = await left.attach(source())
        consumer = await right.attach(sink(left.address))
        await producer.start("out")
        await producer.send("out", [record(0)])
        await left.connect()
        await until(lambda: left.attempts, 10, "news of everything that is known")
        await left.stub.Attach(producer.request, timeout=10)
        await producer.send("out", [record(1)])
        await producer.end("out")
        assert await consumer.all_records("in") == [record(0), record(1)]


@ON_ONE_NODE_AND_BETWEEN_TWO
async def test_raw_programs_stand_in_one_stream(tmp_path: Path, nodes: int) -> None:
    async with ends(tmp_path, nodes) as (left, right):
        producer = await left.attach(
            assignment(
                "source",
                outputs=[stream_output("out", port_format=spec.PORT_FORMAT_LINES)],
                lanes=[lane(OUT, IN, output=True, epoch=1)],
            )
        )
        consumer = await right.attach(
            assignment(
                "sink",
                inputs=[stream_input("in", "source", "out", port_format=spec.PORT_FORMAT_LINES)],
                lanes=[lane(OUT, IN, output=False, address=left.address, epoch=1)],
            )
        )
        text = b"".join(b"%d\n" % k for k in range(20_000)) + b"no newline"
        reading = asyncio.create_task(consumer.raw_read_all("in"))
        await producer.raw_write("out", text)
        await producer.conclude()
        assert await reading == text + b"\n"


@ON_ONE_NODE_AND_BETWEEN_TWO
async def test_a_crashed_raw_program_ends_nothing(tmp_path: Path, nodes: int) -> None:
    async with ends(tmp_path, nodes) as (left, right):
        first = await left.attach(
            assignment(
                "source",
                outputs=[stream_output("out", port_format=spec.PORT_FORMAT_LINES)],
                lanes=[lane(OUT, IN, output=True, epoch=1)],
            )
        )
        consumer = await right.attach(sink(left.address))
        await consumer.start("in")
        await first.raw_write("out", b"one\ntwo\nthr")
        records = consumer.records("in")
        assert [await anext(records), await anext(records)] == [(0, b"one"), (1, b"two")]
        await first.conclude(succeeded=False)
        second = await left.attach(
            assignment(
                "source",
                epoch=2,
                replacement=True,
                outputs=[stream_output("out", port_format=spec.PORT_FORMAT_LINES)],
                lanes=[lane(OUT, IN, output=True, epoch=1)],
            )
        )
        await consumer.update([lane(OUT, IN, output=False, address=left.address, epoch=2)])
        await second.raw_write("out", b"one\ntwo\nthree\n")
        await second.conclude()
        assert [one async for one in records] == [(2, b"three")]


async def test_a_resuming_job_goes_on_where_its_consumer_is(tmp_path: Path) -> None:
    async with stream_workers(tmp_path, 3) as (outer, middle, spare):
        producer = await outer.attach(
            assignment(
                "source",
                outputs=[stream_output("out")],
                lanes=[lane("source.out", "map.in", output=True, epoch=1)],
            )
        )

        def mapping(epoch: int, consumer_epoch: int) -> session.Assignment:
            return assignment(
                "map",
                epoch=epoch,
                replacement=epoch > 1,
                recovery=spec.RECOVERY_RESUME,
                inputs=[stream_input("in", "source", "out")],
                outputs=[stream_output("out")],
                lanes=[
                    lane("source.out", "map.in", output=False, address=outer.address, epoch=1),
                    lane("map.out", "sink.in", output=True, epoch=consumer_epoch),
                ],
            )

        first = await middle.attach(mapping(1, 1))
        consumer = await outer.attach(
            assignment(
                "sink",
                inputs=[stream_input("in", "map", "out")],
                lanes=[lane("map.out", "sink.in", output=False, address=middle.address, epoch=1)],
            )
        )
        await producer.start("out")
        await producer.send("out", (record(k) for k in range(100)))
        await producer.end("out")
        await first.start("in")
        await first.start("out")
        inputs = first.records("in")
        for _ in range(40):
            _, one = await anext(inputs)
            await first.send("out", [one.upper()])
        await consumer.start("in")
        outputs = consumer.records("in")
        found = [(await anext(outputs))[1] for _ in range(40)]
        await middle.kill()
        second = await spare.attach(mapping(2, 1))
        await producer.update([lane("source.out", "map.in", output=True, epoch=2)])
        await consumer.update(
            [lane("map.out", "sink.in", output=False, address=spare.address, epoch=2)]
        )
        assert await second.start("in") == (
            40,
            {"recovery": "resume", "epoch": 2, "block_count": 1, "rings": True},
        )
        assert (await second.start("out"))[0] == 40
        async for _, one in second.records("in"):
            await second.send("out", [one.upper()])
        await second.conclude()
        found += [one async for _, one in outputs]
        assert found == [record(k).upper() for k in range(100)]


def spooled_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.spool"))


async def test_retention_beyond_memory_goes_to_the_spool_and_comes_back(tmp_path: Path) -> None:
    arguments = ["--memory-bytes", "1000000"]
    async with stream_workers(tmp_path, 3, arguments=arguments) as (left, first, second):
        producer = await left.attach(source())
        consumer = await first.attach(sink(left.address))
        await producer.start("out")
        records = [b"%07d" % k + b"z" * 9993 for k in range(1000)]
        async with asyncio.TaskGroup() as tasks:
            received = tasks.create_task(consumer.all_records("in"))
            await producer.send("out", records, together=5)
            await producer.end("out")
        assert received.result() == records
        await until(lambda: spooled_bytes(left.folder) > 8_000_000, 10, "the rest in the spool")
        await first.kill()
        again = await second.attach(sink(left.address, epoch=2))
        assert await again.all_records("in") == records
        await producer.detach()
        await until(lambda: not [*left.folder.rglob("*.spool")], 10, "the spool removed")


async def test_replacements_on_the_same_node_lose_and_repeat_nothing(tmp_path: Path) -> None:
    async with stream_workers(tmp_path, 1) as (worker,):
        producer = await worker.attach(source())
        consumer = await worker.attach(sink(worker.address))
        await producer.start("out")
        await producer.send("out", (record(k) for k in range(1000)), together=9)
        await until(lambda: consumer.port("in").records > 300, 20, "some records")
        await producer.conclude(succeeded=False)
        await consumer.detach()
        found: list[tuple[int, bytes]] = []
        again = await worker.attach(sink(worker.address, epoch=2))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(collect(again, found))
            # Its producer has failed and refuses; it dials again until there is another.
            second = await worker.attach(source(epoch=2, consumer_epoch=2))
            await producer.detach()
            await again.update([lane(OUT, IN, output=False, address=worker.address, epoch=2)])
            await second.start("out")
            await second.send("out", (record(k) for k in range(1500)), together=4)
            await until(partial(longer, found, 600), 20, "records of the second")
            await second.detach()
            third = await worker.attach(source(epoch=3, consumer_epoch=2))
            await again.update([lane(OUT, IN, output=False, address=worker.address, epoch=3)])
            await third.start("out")
            await third.send("out", (record(k) for k in range(3000)), together=11)
            await third.end("out")
        assert found == [(k, record(k)) for k in range(3000)]


async def test_lanes_on_one_node_share_the_loop_fairly(tmp_path: Path) -> None:
    """One lane that passes all the time does not hold up another, nor the agent's orders."""
    async with stream_workers(tmp_path, 1) as (worker,):
        busy = await worker.attach(source())
        busy_sink = await worker.attach(sink(worker.address))
        quiet = await worker.attach(
            assignment(
                "bell",
                outputs=[stream_output("out")],
                lanes=[lane("bell.out", "ear.in", output=True, epoch=1)],
            )
        )
        ear = await worker.attach(
            assignment(
                "ear",
                inputs=[stream_input("in", "bell", "out")],
                lanes=[lane("bell.out", "ear.in", output=False, address=worker.address, epoch=1)],
            )
        )
        await busy.start("out")
        await quiet.start("out")
        heard = ear.records("in")
        all_heard = asyncio.Event()

        def until_all_heard() -> Iterator[bytes]:
            while not all_heard.is_set():
                yield b"b" * 100_000

        async with asyncio.TaskGroup() as tasks:
            received = tasks.create_task(busy_sink.all_records("in"))
            sending = tasks.create_task(busy.send("out", until_all_heard()))
            for number in range(20):
                await quiet.send("out", [record(number)])
                assert await anext(heard) == (number, record(number))
            all_heard.set()
            await sending
            await busy.end("out")
        assert set(received.result()) == {b"b" * 100_000}


async def test_sigterm_ends_a_worker_well(tmp_path: Path) -> None:
    async with stream_workers(tmp_path, 1) as (worker,):
        assert await worker.stop() == 0
        assert not (worker.folder / "w.sock").exists()


async def test_a_stranger_cannot_say_that_the_consumer_is_done(tmp_path: Path) -> None:
    """FAULTS, others: the producer is not let go, and its consumer gets every record."""
    async with ends(tmp_path, 2) as (left, right):
        producer = await left.attach(source())
        await producer.start("out")
        await producer.send("out", (record(k) for k in range(100)))
        await producer.end("out")
        await producer.conclude()
        async with grpc.aio.insecure_channel(left.address) as channel:
            call = StreamsServiceStub(channel).Pull()
            opened = PullOpen(
                namespace="default", pipeline="p", lane=f"{OUT}/{IN}", consumer_epoch=1,
                producer_epoch=1, credit_bytes=1 << 20, protocols=SPOKEN_LANES,
            )  # fmt: skip
            await call.write(PullRequest(open=opened))
            await call.write(PullRequest(ack=PullAck(done=True)))
            said = [message async for message in call]
            assert said[-1].refusal.reason == "NOT_A_CLIENT", said
        await until(lambda: producer.port("out").refused == 1, 10, "the refusal counted")
        assert not producer.streams.drained
        consumer = await right.attach(sink(left.address))
        assert await consumer.all_records("in") == [record(k) for k in range(100)]
