"""The worker's account of a ring, and the memory behind it."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
from pathlib import Path

import pytest

from services.streams.block import (
    FLAG_RING,
    HEADED,
    HEADER,
    REFERENCE,
    BlockError,
    BlockReader,
    Kind,
    unpack,
)
from services.streams.slots import SLOTS_MAX, RingError, Slots
from services.streams.worker.ring import Ring, Slot, slot_of
from services.streams.worker.ring_lease import LENT_BYTES, RingLease, RingLeaseError
from tests.kit.until import until

PAGE = mmap.PAGESIZE
SIZE = 64 * PAGE


def test_slots_are_given_back_in_any_order_and_may_be_taken_again() -> None:
    slots = Slots(SIZE, PAGE)
    for page in (0, 4, 2, 60):
        slots.take(page * PAGE, 2 * PAGE)
    slots.free(4 * PAGE)
    slots.free(0)
    slots.take(0, 2 * PAGE)
    slots.take(4 * PAGE, 10 * PAGE)
    assert len(slots) == 4


@pytest.mark.parametrize(
    ("offset", "length", "why"),
    [
        (1, 10, "no slot"),
        (PAGE, 0, "no slot"),
        (SIZE - PAGE, PAGE + 1, "no slot"),
        (SIZE, 1, "no slot"),
        (2**63, 2**63, "no slot"),
        (4 * PAGE, 1, "overlap"),
        (3 * PAGE, PAGE + 1, "overlap"),
        (5 * PAGE, PAGE, "overlap"),
        (0, SIZE, "overlap"),
    ],
)
def test_a_slot_that_cannot_be_is_refused(offset: int, length: int, why: str) -> None:
    slots = Slots(SIZE, PAGE)
    slots.take(4 * PAGE, PAGE + 1)
    with pytest.raises(RingError, match=why):
        slots.take(offset, length)
    assert len(slots) == 1


def test_there_is_a_limit_to_slots_and_none_is_freed_twice() -> None:
    slots = Slots((SLOTS_MAX + 1) * PAGE, PAGE)
    for number in range(SLOTS_MAX):
        slots.take(number * PAGE, 1)
    with pytest.raises(RingError, match="slots are in use"):
        slots.take(SLOTS_MAX * PAGE, 1)
    slots.free(0)
    with pytest.raises(RingError, match="no slot in use begins at 0"):
        slots.free(0)


async def test_a_slot_is_free_once_its_last_view_is_gone_in_whatever_thread() -> None:
    told: list[int] = []
    ring = Ring("test", SIZE, lambda: told.extend(ring.freed()))
    with mmap.mmap(ring.descriptor, SIZE) as job:
        job[PAGE : PAGE + 5] = b"12345"
        view = ring.take(PAGE, 5)
        assert bytes(view) == b"12345"
        assert view.readonly
        part = view[1:3]
        slot = slot_of(view)
        assert slot is not None
        assert (slot.ring, slot.offset, slot.length) == (ring, PAGE, 5)
        holder = [view]
        del view
        await asyncio.to_thread(holder.clear)
        with pytest.raises(RingError, match="overlap"):
            ring.take(PAGE, 1)
        del part
        await until(lambda: told == [PAGE], 5, "the slot free")
        last = [ring.take(PAGE, 7)]
        await asyncio.to_thread(last.clear)
        await until(lambda: told == [PAGE, PAGE], 5, "the slot free again")
    ring.close()


async def test_a_job_can_neither_shrink_nor_grow_a_ring() -> None:
    ring = Ring("test", SIZE, lambda: None)
    with pytest.raises(PermissionError):
        os.ftruncate(ring.descriptor, PAGE)
    with pytest.raises(PermissionError):
        os.ftruncate(ring.descriptor, 2 * SIZE)
    reading = ring.open_for_reading()
    assert reading is not None
    with pytest.raises(PermissionError):
        mmap.mmap(reading, SIZE)
    os.close(reading)
    ring.close()
    assert ring.open_for_reading() is None


async def test_memory_of_a_ring_goes_with_its_last_view() -> None:
    def mapped() -> bool:
        return "shoal-ring-test" in Path("/proc/self/maps").read_text()

    ring = Ring("shoal-ring-test", SIZE, lambda: None)
    view = ring.take(0, 100)
    ring.close()
    del ring
    assert mapped()
    assert view[0] == 0
    del view
    await until(lambda: not mapped(), 5, "the memory gone")


def reference(at: int, entry: int, *, kind: int = Kind.DATA, count: int = 1) -> bytes:
    body = REFERENCE.pack(entry, at)
    return HEADER.pack(kind, FLAG_RING, 0, count, 0, len(body), 0) + body


def read(reader: BlockReader, data: bytes) -> list[bytes]:
    reader.buffer()[: len(data)] = data
    return [bytes(record) for block in reader.filled(len(data)) for record in unpack(block)]


async def test_a_reader_takes_records_out_of_the_ring() -> None:
    ring = Ring("test", SIZE, lambda: None)
    with mmap.mmap(ring.descriptor, SIZE) as job:
        job[PAGE : PAGE + 9] = b"\x05\0\0\0hello"
        assert read(BlockReader(ring), reference(PAGE, 5)) == [b"hello"]
        with pytest.raises(BlockError, match="another record at"):
            read(BlockReader(ring), reference(PAGE, 6))
        job[: 4 + 4] = (4 | HEADED).to_bytes(4, "little") + b"\xff\xff{}"
        with pytest.raises(BlockError, match="headers of 65535 bytes"):
            read(BlockReader(ring), reference(0, 4 | HEADED))
    ring.close()


@pytest.mark.parametrize(
    "block",
    [
        reference(PAGE + 1, 5),
        reference(SIZE, 5),
        reference(2**64 - 1, 5),
        reference(0, SIZE),
        reference(0, 5, count=2),
        reference(0, 5, kind=Kind.START),
        HEADER.pack(Kind.DATA, FLAG_RING, 0, 1, 0, 9, 0) + b"\x05\0\0\0hello",
    ],
)
async def test_a_reference_that_is_none_is_refused(block: bytes) -> None:
    ring = Ring("test", SIZE, lambda: None)
    with pytest.raises(BlockError):
        read(BlockReader(ring), block)
    with pytest.raises(BlockError):
        read(BlockReader(), reference(0, 5))
    ring.close()


async def test_a_loan_is_given_back_once_and_only_what_was_lent() -> None:
    ring = Ring("test", SIZE, lambda: None)
    lease = RingLease(1, lambda _: None)
    view = ring.take(PAGE, 8)
    slot = Slot(ring, PAGE, 8)
    number = lease.introduce(ring)
    assert lease.number(ring) == number
    lease.lend(number, slot, view, 1)
    assert lease.holds(slot, number)
    back = number.to_bytes(4, "little") + PAGE.to_bytes(8, "little")
    lease.take_back(back)
    with pytest.raises(RingLeaseError, match="was not lent"):
        lease.take_back(back)
    lease.end()
    ring.close()


@pytest.mark.parametrize("round_records", [1, 40])
async def test_a_job_that_does_not_acknowledge_gets_a_window_or_a_round(
    round_records: int,
) -> None:
    ring = Ring("test", 4 * LENT_BYTES, lambda: None)
    lease = RingLease(round_records, lambda _: None)
    number = lease.introduce(ring)
    lent: list[Slot] = []

    def enough() -> bool:
        return lease.full

    while not enough():
        slot = Slot(ring, len(lent) << 20, 1 << 20)
        view = ring.take(slot.offset, slot.length)
        lent.append(slot)
        lease.lend(number, slot, view, len(lent))
    assert len(lent) == max((LENT_BYTES >> 20) + 1, round_records + 1)
    lease.acknowledged(1)
    assert not enough()
    assert all(lease.holds(slot, number) for slot in lent), "acknowledged is not given back"
    lease.end()
    assert not any(lease.holds(slot, number) for slot in lent)
    ring.close()


async def test_a_ring_that_is_gone_is_forgotten() -> None:
    forgotten: list[int] = []
    ring = Ring("test", SIZE, lambda: None)
    lease = RingLease(1, forgotten.append)
    number = lease.introduce(ring)
    ring.close()
    del ring
    await until(lambda: forgotten == [number], 5, "the ring forgotten")


def test_descriptors_pass_beside_bytes() -> None:
    """What SCM_RIGHTS does on a stream: a descriptor comes with the first byte of its message."""
    left, right = socket.socketpair()
    with left, right, Path("/dev/null").open("rb") as null:
        left.send(b"before")
        socket.send_fds(left, [b"with"], [null.fileno()])
        data, descriptors, _, _ = socket.recv_fds(right, 100, 4)
        assert data.startswith(b"before")
        if data == b"before":
            data, descriptors, _, _ = socket.recv_fds(right, 100, 4)
        assert len(descriptors) == 1
        os.close(descriptors[0])
