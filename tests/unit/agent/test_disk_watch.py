"""K12: when no new work is taken, and who has to go: decided from readings alone."""

import random

from edge_agent.disk_watch import DiskReading, DiskWatch, FolderUse
from shoal.model import ReasonCode
from shoal.names import AttemptRef

MIB = 1 << 20


def ref(number: int) -> AttemptRef:
    return AttemptRef("default", "p", "work", number, number)


def watch(reserve: int = 256 * MIB) -> DiskWatch:
    return DiskWatch("/state", reserve)


def test_a_large_disk_is_short_below_the_reserve_and_takes_work_again_above_it() -> None:
    machine = watch()
    total = 1 << 40
    assert not machine.measured(DiskReading(257 * MIB, total), 0.0)
    assert machine.refusal == ""
    assert not machine.measured(DiskReading(255 * MIB, total), 1.0)
    assert machine.short
    refusal = machine.refusal
    assert refusal == (
        "its disk is short: 255.0 MiB of 1.0 TiB free in /state; it takes work again from "
        "320.0 MiB on, so make room there"
    )
    # Not at once, or it would be said again and again.
    assert not machine.measured(DiskReading(300 * MIB, total), 2.0)
    assert machine.refusal == refusal
    assert not machine.measured(DiskReading(321 * MIB, total), 3.0)
    assert machine.refusal == ""


def test_a_small_disk_is_measured_by_its_own_size() -> None:
    machine = watch()
    assert not machine.measured(DiskReading(MIB, 16 * MIB), 0.0)
    assert machine.refusal == ""
    assert not machine.measured(DiskReading(MIB // 2, 16 * MIB), 1.0)
    assert machine.refusal


def test_without_a_reserve_nothing_is_refused_or_failed() -> None:
    machine = watch(0)
    assert not machine.measured(DiskReading(0, 16 * MIB, 0, 100), 0.0)
    assert machine.refusal == ""
    assert not machine.full


def test_few_inodes_count_as_little_room() -> None:
    machine = watch()
    assert not machine.measured(DiskReading(1 << 40, 1 << 41, 900, 1_000_000), 0.0)
    assert "900 inodes" in machine.refusal
    assert machine.measured(DiskReading(1 << 40, 1 << 41, 3, 1_000_000), 1.0)
    failed = machine.choose((FolderUse(ref(1), 10 * MIB, 2), FolderUse(ref(2), MIB, 90_000)), 1.0)
    assert failed is not None
    assert failed.ref == ref(2)


def test_trouble_is_said_whatever_is_free_and_each_time_that_it_is_another() -> None:
    machine = watch()
    reading = DiskReading(1 << 40, 1 << 41, trouble="it is read-only")
    assert not machine.measured(reading, 0.0)
    assert machine.refusal == "it is read-only"
    assert not machine.short, "there is room, so nothing has to go for it"
    other = DiskReading(1 << 40, 1 << 41, trouble="it is gone")
    assert not machine.measured(other, 2.0)
    assert machine.refusal == "it is gone"
    assert not machine.measured(DiskReading(1 << 40, 1 << 41), 3.0)
    assert machine.refusal == ""


def test_the_largest_goes_one_at_a_time_and_nobody_whose_end_would_not_help() -> None:
    machine = watch()
    full = DiskReading(10 * MIB, 1 << 40)
    assert machine.measured(full, 0.0)
    assert machine.choose((FolderUse(ref(1), MIB, 3),), 0.0) is None
    failed = machine.choose((FolderUse(ref(1), 90 * MIB, 3), FolderUse(ref(2), 100 * MIB, 1)), 1.0)
    assert failed is not None
    assert (failed.ref, failed.reason.code) == (ref(2), ReasonCode.DISK)
    assert "100.0 MiB in 1 files" in failed.reason.message
    assert not machine.measured(full, 2.0), "the end of the first is waited for"
    assert machine.measured(full, 32.0)


def test_no_reading_makes_it_fail_anybody_on_a_disk_with_room() -> None:
    """A thousand random courses of a disk, seeded."""
    rng = random.Random(12)
    for _ in range(1000):
        total = rng.choice([MIB, 16 * MIB, 1 << 30, 1 << 42])
        reserve = rng.choice([0, MIB, 256 * MIB])
        machine = watch(reserve)
        now = 0.0
        for _ in range(20):
            now += rng.random() * 10
            free = rng.randrange(total + 1) if rng.random() < 0.5 else rng.randrange(total // 50)
            inodes = rng.choice([0, 1000, 10**9])
            reading = DiskReading(free, total, rng.randrange(inodes + 1), inodes)
            before = machine.refusal
            must_fail = machine.measured(reading, now)
            uses = tuple(
                FolderUse(ref(k), rng.randrange(total), 5) for k in range(rng.randrange(3))
            )
            failed = machine.choose(uses, now)
            upper = min(reserve, total // 20)
            if free >= upper and reading.free_inodes >= min(1024, inodes // 50):
                assert failed is None
            if free < upper:
                assert machine.refusal
            if reserve == 0:
                assert (before, machine.refusal, must_fail, failed) == ("", "", False, None)
