"""A thread that reads long texts leaves half of the time to the loop."""

from control.front.reading_pace import REST_SECONDS_MAX, ReadingPace


def test_it_rests_as_long_as_it_worked() -> None:
    pace = ReadingPace()
    assert pace.rest_seconds(100.0) == 0.0
    pace.worked(100.0, 102.0)
    assert pace.rest_seconds(102.0) == 2.0
    assert pace.rest_seconds(103.5) == 0.5
    assert pace.rest_seconds(104.5) == 0.0


def test_what_is_short_needs_no_rest_and_no_rest_is_without_end() -> None:
    pace = ReadingPace()
    pace.worked(100.0, 100.02)
    assert pace.rest_seconds(100.02) == 0.0
    pace.worked(100.0, 160.0)
    assert pace.rest_seconds(160.0) == REST_SECONDS_MAX
