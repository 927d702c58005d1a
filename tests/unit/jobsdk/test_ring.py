"""Large records through shared memory, as a job sees it."""

from __future__ import annotations

import gc
import json
import mmap
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.streams.block import FREE_ENTRY, LENT_REFERENCE, REFERENCE
from shoal.job.block import ACK, DATA, FREE, HEADER, IN_RING, RING, START, BlockError
from shoal.job.codec import AUTO, RAW
from shoal.job.error import PortError
from shoal.job.input_port import InputPort
from shoal.job.port_socket import PortSocket
from shoal.job.ring import AHEAD_BYTES, InputRings, OutputRing, RingError, Room, ring_of

PAGE = mmap.PAGESIZE
SIZE = 64 * PAGE


def test_the_lowest_room_is_taken_so_that_little_memory_is_touched() -> None:
    room = Room(SIZE, PAGE)
    assert [room.take(2 * PAGE), room.take(1), room.take(PAGE + 1)] == [0, 2 * PAGE, 3 * PAGE]
    room.free(2 * PAGE)
    assert room.take(PAGE + 1) == 5 * PAGE, "one page is not enough"
    assert room.take(PAGE) == 2 * PAGE
    room.free(0)
    room.free(3 * PAGE)
    assert room.take(3 * PAGE) == 7 * PAGE
    assert room.take(2 * PAGE) == 0
    assert len(room) == 4


def test_a_ring_that_is_full_says_so_and_has_room_again() -> None:
    room = Room(SIZE, PAGE)
    taken = [room.take(16 * PAGE) for _ in range(4)]
    assert taken == [0, 16 * PAGE, 32 * PAGE, 48 * PAGE]
    assert room.take(1) == -1
    assert room.take(SIZE + 1) == -1
    assert room.take(0) == -1
    room.free(32 * PAGE)
    assert room.take(17 * PAGE) == -1
    assert room.take(16 * PAGE) == 32 * PAGE


def test_nothing_is_freed_twice() -> None:
    room = Room(SIZE, PAGE)
    room.take(PAGE)
    room.free(0)
    with pytest.raises(RingError, match="no slot begins at 0"):
        room.free(0)


def test_looking_for_room_among_many_small_slots_takes_no_long_time() -> None:
    room = Room(4096 * PAGE, PAGE)
    small = [room.take(PAGE) for _ in range(1000)]
    for offset in small[::2]:
        room.free(offset)
    assert room.take(2 * PAGE) == 1000 * PAGE, "not among the small ones, of which there are many"
    assert room.take(PAGE) == 0


class Pair:
    """Both ends of a port, and a ring as the worker makes it."""

    def __init__(self) -> None:
        self.worker, job = socket.socketpair()
        self.socket = PortSocket("port 'x'", job.detach())
        self.memfd = os.memfd_create("shoal.test")
        os.ftruncate(self.memfd, SIZE)
        self.memory = mmap.mmap(self.memfd, SIZE)

    def close(self) -> None:
        self.worker.close()
        self.socket.close()
        self.memory.close()
        os.close(self.memfd)

    def output(self) -> OutputRing:
        return OutputRing(self.socket, os.dup(self.memfd))

    def lend(self, data: bytes, at: int, *, number: int = 1) -> bytes:
        """Put a record into the ring and return what is sent instead of it."""
        self.memory[at : at + 4 + len(data)] = len(data).to_bytes(4, "little") + data
        body = LENT_REFERENCE.pack(len(data), number, at)
        return HEADER.pack(DATA, IN_RING, 0, 1, self.sent, len(body), 0) + body

    sent = 0


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    gc.collect()
    made.close()


def free(taken: int, *offsets: int) -> bytes:
    body = b"".join(FREE_ENTRY.pack(0, offset) for offset in offsets)
    return HEADER.pack(FREE, 0, 0, 0, taken, len(body), 0) + body


def test_a_record_is_put_into_the_ring_behind_its_length(pair: Pair) -> None:
    ring = pair.output()
    said = ring.put(7, 11, [b"hello", bytearray(b" world")], 11)
    assert said == HEADER.pack(DATA, IN_RING, 0, 1, 7, 12, 0) + REFERENCE.pack(11, 0)
    assert pair.memory[:15] == b"\x0b\0\0\0hello world"


def test_a_job_uses_again_what_is_given_back_however_it_arrives(pair: Pair) -> None:
    ring = pair.output()
    half = [b"a" * (SIZE // 2 - 4)]
    assert ring.put(0, len(half[0]), half, len(half[0])) is not None
    assert ring.put(1, len(half[0]), half, len(half[0])) is not None
    assert ring.put(2, len(half[0]), half, len(half[0])) is None
    said = free(1) + free(2, SIZE // 2, 0)
    pair.worker.send(said[:30])
    assert ring.put(2, len(half[0]), half, len(half[0])) is None
    pair.worker.send(said[30:])
    assert ring.put(2, len(half[0]), half, len(half[0])) is not None


def waits(ring: OutputRing) -> bool:
    return ring.ahead


def test_a_job_far_ahead_of_the_worker_waits(pair: Pair) -> None:
    os.ftruncate(pair.memfd, 4 * AHEAD_BYTES)
    ring = pair.output()
    record = b"r" * (AHEAD_BYTES // 2 + 1)
    assert ring.put(0, len(record), [record], len(record)) is not None
    assert not waits(ring)
    ring.put(1, len(record), [record], len(record))
    assert waits(ring)
    pair.worker.send(free(1))
    assert not waits(ring)
    pair.worker.send(free(7))
    with pytest.raises(PortError, match="7 records taken of 2"):
        ring.put(2, len(record), [record], len(record))


@pytest.mark.parametrize(
    "said",
    [free(0, PAGE), HEADER.pack(ACK, 0, 0, 0, 0, 0, 0), HEADER.pack(FREE, 0, 0, 0, 0, 13, 0)],
)
def test_nonsense_from_the_worker_is_named(pair: Pair, said: bytes) -> None:
    ring = pair.output()
    pair.worker.send(said)
    with pytest.raises(PortError, match="port 'x'"):
        ring.put(0, 3, [b"abc"], 3)


def test_a_worker_without_rings_sends_no_descriptor(pair: Pair) -> None:
    assert ring_of(pair.socket) is None


def begin(pair: Pair, port: InputPort, **more: object) -> None:
    body = json.dumps({"recovery": "restart", "epoch": 1, "block_count": 1, **more}).encode()
    pair.worker.send(HEADER.pack(START, 0, 0, 0, 0, len(body), 0) + body)
    assert port.start()


def introduce(pair: Pair, number: int = 1) -> None:
    body = FREE_ENTRY.pack(number, SIZE)
    said = HEADER.pack(RING, 0, 0, 0, 0, len(body), 0) + body
    reading = os.open(f"/proc/self/fd/{pair.memfd}", os.O_RDONLY)
    socket.send_fds(pair.worker, [said], [reading])
    os.close(reading)


def given_back(pair: Pair, port: InputPort) -> list[int]:
    """What the job says to the worker: where slots are free."""
    port.queue_ack(0)
    assert port.socket.write()
    pair.worker.setblocking(False)
    try:
        data = pair.worker.recv(1 << 16)
    except BlockingIOError:
        return []
    found: list[int] = []
    while data:
        kind, _, _, _, _, length, _ = HEADER.unpack_from(data)
        if kind == FREE:
            found += [offset for _, offset in FREE_ENTRY.iter_unpack(data[24 : 24 + length])]
        else:
            assert kind in {RING, ACK}
        data = data[24 + length :]
    return found


def lent(codec: Any, value: Any) -> bytes:
    return b"".join(bytes(piece) for piece in codec.encode(value))


def test_an_array_is_handed_over_where_it_lies_and_is_the_jobs_own(pair: Pair) -> None:
    port = InputPort("x", pair.socket, AUTO, 1)
    begin(pair, port, rings=True)
    introduce(pair)
    record = lent(AUTO, np.arange(10_000))
    pair.worker.send(pair.lend(record, 2 * PAGE))
    assert port.fill()
    array = port.take()
    assert given_back(pair, port) == []
    assert array.flags.writeable
    assert array.flags.aligned
    pair.memory[2 * PAGE : 2 * PAGE + 4 + len(record)] = bytes(4 + len(record))
    assert not array.any(), "it lies in the producer's memory, and was not copied"
    array[:] = 5
    assert not any(pair.memory[2 * PAGE : 3 * PAGE]), "what the job writes is nobody else's"
    part = array[100:200]
    del array
    assert given_back(pair, port) == []
    assert (part == 5).all()
    del part
    assert given_back(pair, port) == [2 * PAGE]
    # The next record at the same place is seen as it is, and not what the job had written.
    pair.sent = 1
    pair.worker.send(pair.lend(lent(AUTO, np.full(10_000, 9)), 2 * PAGE))
    assert port.fill()
    assert (port.take() == 9).all()
    assert given_back(pair, port) == [2 * PAGE]


def test_bytes_are_copied_out_and_their_place_is_free_at_once(pair: Pair) -> None:
    port = InputPort("x", pair.socket, RAW, 1)
    begin(pair, port, rings=True)
    introduce(pair)
    pair.worker.send(pair.lend(b"q" * 70_000, 0))
    assert port.fill()
    value = port.take()
    assert type(value) is bytes
    assert value == b"q" * 70_000
    assert given_back(pair, port) == [0]


def test_a_ring_that_is_gone_is_unmapped_with_its_last_record(pair: Pair) -> None:
    def mapped() -> bool:
        return Path("/proc/self/maps").read_text().count("memfd:shoal.test") > 1

    port = InputPort("x", pair.socket, AUTO, 1)
    begin(pair, port, rings=True)
    introduce(pair)
    pair.worker.send(pair.lend(lent(AUTO, np.arange(10_000)), 0))
    assert port.fill()
    array = port.take()
    body = FREE_ENTRY.pack(1, 0)
    pair.worker.send(HEADER.pack(RING, 0, 0, 0, 0, len(body), 0) + body)
    assert not port.fill()
    assert (array == np.arange(10_000)).all()
    assert mapped()
    del array
    assert given_back(pair, port) == [0]
    assert not mapped()


@pytest.mark.parametrize(("number", "at"), [(2, 0), (1, 1), (1, SIZE - PAGE), (1, 2**63)])
def test_a_reference_to_nowhere_is_refused(pair: Pair, number: int, at: int) -> None:
    port = InputPort("x", pair.socket, AUTO, 1)
    begin(pair, port, rings=True)
    introduce(pair)
    body = LENT_REFERENCE.pack(2 * PAGE, number, at)
    pair.worker.send(HEADER.pack(DATA, IN_RING, 0, 1, 0, len(body), 0) + body)
    with pytest.raises(BlockError, match="no record lies at"):
        port.fill()


def test_where_the_worker_knows_no_rings_none_are_asked_for(pair: Pair) -> None:
    port = InputPort("x", pair.socket, AUTO, 1)
    begin(pair, port)
    assert port.socket.written
    pair.worker.send(pair.lend(b"123", 0))
    with pytest.raises(BlockError, match="unknown flags 0x02"):
        port.fill()


def test_what_a_forked_process_may_look_at_is_never_given_back(pair: Pair) -> None:
    port = InputPort("x", pair.socket, AUTO, 1)
    begin(pair, port, rings=True)
    introduce(pair)
    for at in (0, 32 * PAGE):
        pair.worker.send(pair.lend(lent(AUTO, np.arange(10_000)), at))
        pair.sent += 1
    assert port.fill()
    first = port.take()
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    del first
    assert given_back(pair, port) == []
    assert port.fill()
    second = port.take()
    del second
    assert given_back(pair, port) == [32 * PAGE]


def test_rings_are_kept_by_nothing_but_their_port(pair: Pair) -> None:
    port = InputPort("x", pair.socket, AUTO, 1)
    begin(pair, port, rings=True)
    introduce(pair)
    assert not port.fill()
    del port
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, InputRings)]
