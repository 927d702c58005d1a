"""The series of a week: bounded, and whole after crashes and clocks that jump."""

from __future__ import annotations

import math
from pathlib import Path

from control.front import controller_figures as known
from control.front.history import RISING, SERIES, SLOT_SECONDS, SLOTS, History
from services.metrics.figure import Readings

BEGAN = 1_800_000_000.0
WEEK = SLOTS * SLOT_SECONDS


class Week:
    """A history whose clock and figures the test sets."""

    def __init__(self, path: Path, now: float = BEGAN) -> None:
        self.now = now
        self.waiting = 0.0
        self.ended = 0.0
        self.path = path
        self.history = self.start()

    def start(self) -> History:
        self.history = History(self.path, self.read, wall=lambda: self.now, clock=lambda: self.now)
        return self.history

    async def read(self) -> Readings:
        readings = Readings()
        readings.tell(known.WAITING, self.waiting)
        readings.tell_all(known.ATTEMPTS_ENDED, {("failed", "EXIT"): self.ended})
        return readings

    async def look(self, seconds: float = SLOT_SECONDS / 2) -> None:
        await self.history.look()
        self.now += seconds

    async def of(self, name: str) -> dict[int, float]:
        """What is known of a series, by the seconds since 1970 at which its slots begin."""
        begin, series = await self.history.series()
        assert set(series) == set(SERIES)
        return {
            begin + place * SLOT_SECONDS: value
            for place, value in enumerate(series[name])
            if not math.isnan(value)
        }


async def test_a_slot_is_the_mean_of_a_level_and_the_sum_of_what_rose(tmp_path: Path) -> None:
    week = Week(tmp_path / "history")
    for waiting, ended in ((4, 100), (8, 103), (0, 103), (0, 2), (0, 2)):
        week.waiting, week.ended = waiting, ended
        await week.look()
    first = int(BEGAN)
    assert await week.of("jobs_waiting") == {first: 6, first + SLOT_SECONDS: 0}
    assert "attempts_failed" in RISING
    # 103 became 2: the control machine was built anew, and two have ended since.
    assert await week.of("attempts_failed") == {first: 3, first + SLOT_SECONDS: 2}


async def test_a_week_stays_and_the_file_never_grows(tmp_path: Path) -> None:
    week = Week(tmp_path / "history")
    await week.look(SLOT_SECONDS)
    await week.look(SLOT_SECONDS)
    size = week.path.stat().st_size
    for number in range(SLOTS + 10):
        week.waiting = number
        await week.look(SLOT_SECONDS)
    assert week.path.stat().st_size == size < 256 << 10
    found = await week.of("jobs_waiting")
    assert len(found) == SLOTS - 1, "all but the slot that is being filled"
    assert list(found.values()) == [float(number) for number in range(10, SLOTS + 9)]


async def test_a_restart_keeps_what_was_written(tmp_path: Path) -> None:
    week = Week(tmp_path / "history")
    week.waiting = 5
    await week.look(SLOT_SECONDS)
    await week.look(SLOT_SECONDS)
    week.start()
    assert await week.of("jobs_waiting") == {int(BEGAN): 5}


async def test_a_clock_that_jumps_ahead_and_back_shows_nothing_of_the_future(
    tmp_path: Path,
) -> None:
    week = Week(tmp_path / "history")
    week.waiting = 5
    await week.look(SLOT_SECONDS)
    await week.look(0)
    week.now += 10 * 365 * 86_400
    week.waiting = 9
    await week.look(SLOT_SECONDS)
    await week.look(0)
    week.now = BEGAN + 2 * SLOT_SECONDS
    week.waiting = 7
    await week.look(SLOT_SECONDS)
    await week.look(0)
    found = await week.of("jobs_waiting")
    assert found[int(BEGAN)] == 5
    assert found[int(BEGAN) + 2 * SLOT_SECONDS] == 7
    assert 9 not in found.values()


async def test_a_clock_before_1970_has_no_slot(tmp_path: Path) -> None:
    week = Week(tmp_path / "history", now=-10 * SLOT_SECONDS)
    await week.look(SLOT_SECONDS)
    await week.look(SLOT_SECONDS)
    assert await week.of("jobs_waiting") == {}


async def test_a_record_that_was_half_written_is_a_gap(tmp_path: Path) -> None:
    week = Week(tmp_path / "history")
    week.waiting = 5
    for _ in range(4):
        await week.look(SLOT_SECONDS)
    whole = await week.of("jobs_waiting")
    data = bytearray(week.path.read_bytes())
    place = (int(BEGAN) // SLOT_SECONDS + 1) % SLOTS * (len(data) // SLOTS)
    data[place + 20] ^= 1
    week.path.write_bytes(data)
    found = await week.of("jobs_waiting")
    assert whole.keys() - found.keys() == {int(BEGAN) + SLOT_SECONDS}


async def test_a_file_of_another_build_begins_anew(tmp_path: Path) -> None:
    week = Week(tmp_path / "history")
    week.path.write_bytes(b"\xff" * 1000)
    assert await week.of("jobs_waiting") == {}
    week.waiting = 5
    await week.look(SLOT_SECONDS)
    await week.look(SLOT_SECONDS)
    assert await week.of("jobs_waiting") == {int(BEGAN): 5}


async def test_a_disk_that_takes_nothing_ends_nothing(tmp_path: Path) -> None:
    week = Week(tmp_path / "history")
    week.path.mkdir()
    for _ in range(3):
        await week.look(SLOT_SECONDS)
