"""A series in the width of a column, and the part of a week that was asked for."""

import math
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from shoal.cli.history import since_when
from shoal.cli.sparkline import parts_of, sparkline
from shoal.history import ClusterHistory

NAN = math.nan
BEGAN = datetime(2026, 11, 30, tzinfo=UTC)


def test_bars_rise_with_the_numbers_and_a_gap_stays_one() -> None:
    assert sparkline([0, 1, 4, 7, NAN, 7]) == "▁▂▅█ █"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([NAN]) == " "
    assert sparkline([]) == ""


def test_a_little_is_not_nothing() -> None:
    assert sparkline([0, 1, 1_000_000]) == "▁▂█"


def test_a_part_is_a_mean_or_a_sum_of_what_is_known() -> None:
    values = [1, 3, NAN, 5, NAN, NAN]
    assert parts_of(values, 3, add=False)[:2] == [2, 5]
    assert parts_of(values, 3, add=True)[:2] == [4, 5]
    assert math.isnan(parts_of(values, 3, add=True)[2])


@given(st.lists(st.floats(0, 1e15) | st.just(NAN), max_size=60), st.integers(1, 50))
def test_the_sum_of_the_parts_is_that_of_the_series(values: list[float], width: int) -> None:
    parts = parts_of(values, width, add=True)
    assert len(parts) == len(sparkline(parts)) == min(width, len(values))
    total = math.fsum(value for value in values if not math.isnan(value))
    assert math.isclose(math.fsum(one for one in parts if not math.isnan(one)), total)


def test_slots_that_had_ended_are_left_out() -> None:
    week = ClusterHistory(BEGAN, 300, {"x": (1.0, 2.0, 3.0)})
    assert since_when(week, BEGAN - timedelta(days=9)) == week
    assert since_when(week, BEGAN + timedelta(seconds=299)) == week
    assert since_when(week, BEGAN + timedelta(seconds=301)).series == {"x": (2.0, 3.0)}
    assert since_when(week, BEGAN + timedelta(seconds=301)).begin_time == BEGAN + timedelta(
        seconds=300
    )
    assert since_when(week, BEGAN + timedelta(days=1)).series == {"x": ()}
