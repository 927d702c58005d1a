"""How often a watch writes."""

from itertools import pairwise

from control.front.api.watch_pace import BUSY_SECONDS, FREE, REST_SECONDS_MAX, WatchPace


def paced(pace: WatchPace, began: float, seconds: float, jobs_per_second: float) -> list[float]:
    """Write all that has changed since the last message until a time, and return when each was written."""
    written: list[float] = []
    now, told = began, 0
    while now < began + seconds:
        changed = int((now - began) * jobs_per_second)
        if changed > told:
            written.append(now)
            now += pace.rest_seconds(now, changed - told, changed - told, more=False)
            told = changed
        now += 0.001
    return written


def test_a_watch_of_little_is_told_of_each_change_at_once() -> None:
    assert len(paced(WatchPace(0.0), 0.0, 10.0, 80.0)) == 799


def test_a_watch_of_much_is_told_a_few_times_a_second() -> None:
    written = paced(WatchPace(0.0), 0.0, 10.0, 500.0)
    assert 95 <= len(written) <= 200
    later = [one for one in written if one > 1.0]
    gaps = [after - before for before, after in pairwise(later)]
    assert min(gaps) >= BUSY_SECONDS
    assert max(gaps) <= BUSY_SECONDS + 0.01


def test_a_watch_is_quick_again_two_seconds_after_a_rush() -> None:
    pace = WatchPace(0.0)
    paced(pace, 0.0, 10.0, 5_000.0)
    assert pace.busy
    assert pace.rest_seconds(12.1, 1, 1, more=False) == 0.0
    assert not pace.busy


def test_what_did_not_fit_into_a_message_follows_soon() -> None:
    pace = WatchPace(0.0)
    rests = [pace.rest_seconds(0.0, 256, 256, more=True) for _ in range(10)]
    assert max(rests) < BUSY_SECONDS / 2


def test_a_message_of_many_jobs_is_followed_by_a_rest_that_has_an_end() -> None:
    assert 0.09 < WatchPace(0.0).rest_seconds(0.0, 1, 1_000, more=False) < 0.2
    assert WatchPace(0.0).rest_seconds(0.0, 1, 50_000, more=False) == REST_SECONDS_MAX
    assert WatchPace(0.0).rest_seconds(0.0, FREE, 1, more=False) == 0.0
