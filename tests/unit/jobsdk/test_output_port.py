"""When records are written: at once where nothing was written lately, and else together."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from shoal import job
from shoal.job import RAW, CodecError, PortError, testing
from shoal.job.block import DATA, END, MAX_BLOCK_BYTES, START, Block, encode_text
from shoal.job.block_reader import BlockReader
from shoal.job.output_port import (
    BUSY_SECONDS,
    FULL_BYTES,
    GATHER_SECONDS,
    OWN_BLOCK_BYTES,
    OutputPort,
)
from shoal.job.port_socket import PortSocket


class Bench:
    """An output port, its worker's end, and a clock that stands still."""

    def __init__(self) -> None:
        self.worker, end = socket.socketpair()
        self.worker.setblocking(False)
        self.now = 100.0
        self.dirty = 0
        self.lock = threading.Lock()
        self._reader = BlockReader()
        self.port = OutputPort(
            "out", PortSocket("output port 'out'", end.detach()), RAW, self.lock, lambda: self.now
        )
        self.port.follow(self._begin, self._is_dirty)
        self.worker.send(encode_text(START, 7, "{}"))

    def _begin(self) -> None:
        assert self.port.start()

    def _is_dirty(self) -> None:
        self.dirty += 1

    def came(self) -> list[Block]:
        """Blocks that were written since."""
        blocks: list[Block] = []
        while True:
            try:
                data = self.worker.recv(1 << 20)
            except BlockingIOError:
                return blocks
            blocks += self._reader.feed(data)

    def records(self) -> list[list[bytes]]:
        """Records that were written since, by block."""
        return [[bytes(one) for one in block.records()] for block in self.came()]

    def flush(self) -> bool:
        """What the flusher does; whether nothing is left."""
        with self.lock:
            return self.port.write()

    def flushed(self) -> list[Block]:
        """Blocks that were written since, and all that wait to be."""
        blocks: list[Block] = []
        while not self.flush():
            blocks += self.came()
        return blocks + self.came()


@pytest.fixture(name="bench")
def _bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.port.socket.close()
    bench.worker.close()


def test_p9_a_lone_record_leaves_at_once_and_wakes_nobody(bench: Bench) -> None:
    for number in range(3):
        bench.port.send(b"%d" % number)
        assert bench.records() == [[b"%d" % number]]
        bench.now += GATHER_SECONDS
    assert bench.dirty == 0


def test_p1_records_in_quick_succession_leave_together(bench: Bench) -> None:
    bench.port.send(b"first")
    for number in range(1000):
        bench.port.send(b"%d" % number)
    assert bench.records() == [[b"first"]]
    assert bench.dirty == 1
    bench.flush()
    assert bench.records() == [[b"%d" % number for number in range(1000)]]


def test_a_record_after_a_flush_is_not_forgotten(bench: Bench) -> None:
    for number in range(1, 20):
        bench.port.send(b"first" if number == 1 else b"later")
        bench.port.send(b"later")
        assert bench.dirty == number  # the flusher is told whenever the first of some waits
        bench.flush()


def test_many_records_leave_without_anybodys_help(bench: Bench) -> None:
    bench.port.send(b"first")
    count = FULL_BYTES // 104 + 1
    for _ in range(count):
        bench.port.send(bytes(100))
    (first, rest) = bench.came()
    assert (first.first, first.total) == (7, 1)
    assert (rest.first, rest.total) == (8, count)


def test_p1_who_sends_very_much_is_not_taken_for_idle_when_it_loses_its_processor(
    bench: Bench,
) -> None:
    for _ in range(FULL_BYTES // 104 + 2):
        bench.port.send(bytes(100))
    assert len(bench.came()) == 2
    bench.now += BUSY_SECONDS / 2
    bench.port.send(b"next")
    assert bench.came() == []
    assert bench.dirty > 0
    bench.flush()
    assert bench.records() == [[b"next"]]
    bench.now += 2 * BUSY_SECONDS
    bench.port.send(b"alone")
    assert bench.records() == [[b"alone"]]


def test_sizes_that_jump_never_make_a_block_too_large(bench: Bench) -> None:
    sizes = [OWN_BLOCK_BYTES - 1, 1, OWN_BLOCK_BYTES - 1, 3, OWN_BLOCK_BYTES, 0]
    sent = [bytes([index]) * size for index, size in enumerate(sizes)]
    for record in sent:
        bench.port.send(record)
    blocks = bench.flushed()
    assert all(len(block.body) <= MAX_BLOCK_BYTES for block in blocks if block.total > 1)
    assert [bytes(one) for block in blocks for one in block.records()] == sent


def test_a_stale_count_of_bytes_does_not_make_a_block_too_large(bench: Bench) -> None:
    # As if another thread had added its records in the same moment.
    bench.port.send(b"first")
    bench.port._collected.extend([bytes(OWN_BLOCK_BYTES - 1)] * 9)
    blocks = bench.flushed()
    assert sum(block.total for block in blocks) == 10
    assert all(len(block.body) <= MAX_BLOCK_BYTES for block in blocks)
    assert [block.first for block in blocks] == [7, 8, 10, 12, 14]


@pytest.mark.parametrize("kind", [list, tuple, iter], ids=["list", "tuple", "iterator"])
def test_send_many_sends_each_as_a_record(bench: Bench, kind: Any) -> None:
    values = [b"%d" % number for number in range(2000)]
    values[1500] = bytes(OWN_BLOCK_BYTES)
    bench.port.send_many(kind(values))
    bench.flush()
    assert [record for block in bench.records() for record in block] == values
    assert bench.port.sent == 2000


def test_send_many_sends_what_is_before_a_value_that_cannot_be_sent(bench: Bench) -> None:
    with pytest.raises(CodecError, match="output port 'out'"):
        bench.port.send_many([b"one", b"two", 3, b"four"])
    bench.flush()
    assert [record for block in bench.records() for record in block] == [b"one", b"two"]


def test_nothing_is_sent_after_the_end(bench: Bench) -> None:
    bench.port.send(b"one")
    with bench.lock:
        bench.port.queue_end()
        bench.port.write()
    with pytest.raises(PortError, match="it has ended"):
        bench.port.send(b"two")
    bench.flush()
    data, end = bench.came()
    assert (data.kind, data.total, end.kind, end.first) == (DATA, 1, END, 8)


THREADS, EACH = 4, 20_000


@job.stream(codecs={"out": job.RAW})
def crowd() -> None:
    put = job.outputs["out"].send

    def send(thread: int) -> None:
        for number in range(EACH):
            put(b"%d %d" % (thread, number))

    threads = [threading.Thread(target=send, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_share_a_port_and_lose_nothing() -> None:
    came = testing.call(crowd, outputs=["out"], codecs={"out": "raw"}).outputs["out"]
    for thread in range(THREADS):
        mine = [record for record in came if record.startswith(b"%d " % thread)]
        assert mine == [b"%d %d" % (thread, number) for number in range(EACH)]
    assert len(came) == THREADS * EACH
