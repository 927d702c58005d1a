"""R3: the journal on disks that are full, read-only, damaged or cut off."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.attempts.local_attempt import LocalAttempt
from edge_agent.journal import Journal, JournalError
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.spec import Job
from tests.kit.small_disk import SmallDisk, small_disk
from tests.kit.until import until

RECORD = LocalAttempt(
    Assignment(
        AttemptRef("default", "p", "work", 1, 1), Job("work", ("true",)), bundle_url="x" * 500
    )
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", "16m") as mounted:
        yield mounted


async def test_r3_a_full_disk_leaves_the_journal_its_own_room(disk: SmallDisk) -> None:
    """Ten thousand steps of an attempt are recorded although nothing can be written beside it."""
    async with Journal(disk.path / "agent.db") as journal:
        await journal.put(RECORD)
        disk.fill()
        for turn in range(1, 10_001):
            done = journal.put(RECORD._replace(turn=turn))
            if turn % 50 == 0:
                await done
        assert not journal.trouble
        journal.forget(RECORD.ref)
        await journal.barrier()
        await journal.put(RECORD._replace(turn=7))
    # An orderly end takes the log away; the next start has no room to make one.
    disk.fill()
    (disk.path / "agent.reserve").unlink()
    disk.fill()
    async with Journal(disk.path / "agent.db") as journal:
        assert [record.turn for record in await journal.load()] == [7]
        assert (
            "No space" in journal.trouble or "full" in journal.trouble or "I/O" in journal.trouble
        )
        waiting = journal.put(RECORD._replace(turn=8))
        later = journal.put(RECORD._replace(turn=9))
        barrier = journal.barrier()
        await asyncio.wait((waiting,), timeout=0.3)
        assert not any(one.done() for one in (waiting, later, barrier))
        disk.empty()
        await asyncio.wait_for(asyncio.gather(waiting, later, barrier), 20)
        assert not journal.trouble
        assert [record.turn for record in await journal.load()] == [9]


async def test_r3_a_start_gives_up_the_reserve(disk: SmallDisk) -> None:
    async with Journal(disk.path / "agent.db") as journal:
        await journal.put(RECORD)
    disk.fill()
    async with Journal(disk.path / "agent.db") as journal:
        assert not journal.trouble
        await journal.put(RECORD._replace(turn=3))
        assert [record.turn for record in await journal.load()] == [3]


async def test_r3_a_read_only_disk_is_waited_for(disk: SmallDisk) -> None:
    async with Journal(disk.path / "agent.db") as journal:
        await journal.put(RECORD)
    disk.remount("ro")
    async with Journal(disk.path / "agent.db") as journal:
        assert await journal.load() == (RECORD,)
        assert "cannot be written" in journal.trouble
        waiting = journal.put(RECORD._replace(turn=2))
        disk.remount("rw")
        await asyncio.wait_for(waiting, 20)
        await until(lambda: not journal.trouble, 10, "the end of the trouble")


async def test_r3_a_disk_that_works_before_the_first_write_is_no_trouble_any_more(
    disk: SmallDisk,
) -> None:
    async with Journal(disk.path / "agent.db") as journal:
        await journal.put(RECORD)
    disk.remount("ro")
    async with Journal(disk.path / "agent.db") as journal:
        assert "cannot be written" in journal.trouble
        disk.remount("rw")
        await asyncio.wait_for(journal.put(RECORD._replace(turn=2)), 20)
        assert not journal.trouble


async def test_an_end_does_not_wait_for_a_full_disk(disk: SmallDisk) -> None:
    async with Journal(disk.path / "agent.db") as journal:
        await journal.put(RECORD)
    disk.remount("ro")
    async with Journal(disk.path / "agent.db") as journal:
        waiting = journal.put(RECORD._replace(turn=2))
    assert not waiting.done()


def _cut_off(_: bytes) -> bytes:
    return b""


def _other(_: bytes) -> bytes:
    return b"no database at all, but text" * 100


def _shorter(whole: bytes) -> bytes:
    return whole[:9000]


def _blank(whole: bytes) -> bytes:
    return whole[:4096] + bytes(8192)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut_off, "was cut off"),
        (_other, "not a database"),
        (_shorter, "cannot be read"),
        (_blank, "cannot be read"),
    ],
)
async def test_r3_a_damaged_journal_is_refused_and_left_as_it_is(
    tmp_path: Path, damage: Callable[[bytes], bytes], words: str
) -> None:
    path = tmp_path / "agent.db"
    async with Journal(path) as journal:
        for number in range(30):
            ref = AttemptRef("default", "p", "work", number, number)
            journal.put(LocalAttempt(replace(RECORD.assignment, ref=ref)))
        await journal.barrier()
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(JournalError, match=words) as raised:
        async with Journal(path):
            pass
    assert "put a copy of it back" in str(raised.value)
    assert path.read_bytes() == before
