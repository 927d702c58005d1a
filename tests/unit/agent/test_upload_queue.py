"""In which order uploads go, and how fast: decided without a network."""

import math
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.uploads.upload_queue import PATIENCE_SECONDS, PLACES, UploadQueue, WaitingUpload
from edge_agent.uploads.upload_rate import UploadRate

MIB = 1 << 20


def part(number: int, since: float = 0.0) -> WaitingUpload:
    return WaitingUpload(number, 16 * MIB, part=True, salvaged=False, since=since)


def small(
    number: int, size: int = 10, since: float = 0.0, *, salvaged: bool = False
) -> WaitingUpload:
    return WaitingUpload(number, size, part=False, salvaged=salvaged, since=since)


def filled(*uploads: WaitingUpload) -> UploadQueue:
    queue = UploadQueue()
    for upload in uploads:
        queue.add(upload)
    return queue


def test_a_log_does_not_wait_behind_the_parts_of_another_job() -> None:
    queue = filled(*(part(number) for number in range(1, 10)))
    assert queue.start(0.0) == [1, 2, 3]
    queue.add(small(10))
    assert queue.start(0.0) == [10]
    queue.add(small(11))
    assert queue.start(0.0) == []
    queue.remove(10)
    assert queue.start(0.0) == [11]


def test_what_a_commit_needs_goes_before_what_is_salvaged_and_small_before_large() -> None:
    queue = filled(
        small(1, 5, salvaged=True), small(2, 900), small(3, 20), small(4, 30), small(5, 6)
    )
    assert queue.start(0.0) == [5, 3, 4, 2]
    queue.remove(3)
    assert queue.start(0.0) == [1]


def test_what_waited_long_goes_first_so_that_large_ones_go_at_all() -> None:
    queue = filled(small(1, 900 * MIB), *(small(number) for number in range(2, 9)))
    assert 1 not in queue.start(1.0)
    for number in (2, 3):
        queue.remove(number)
    assert queue.start(PATIENCE_SECONDS)[0] == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 1 << 34), st.booleans(), st.booleans(), st.floats(0.0, 30.0)),
        max_size=60,
    )
)
def test_every_upload_is_sent_once_and_the_places_hold(
    wanted: list[tuple[int, bool, bool, float]],
) -> None:
    queue = UploadQueue()
    running: deque[int] = deque()
    sent: list[int] = []
    now = 0.0
    for number, (size, is_part, salvaged, pause) in enumerate(wanted):
        now += pause
        queue.add(WaitingUpload(number, size, is_part, salvaged, now))
        running.extend(queue.start(now))
        assert len(queue.sending) <= PLACES
        assert sum(one.part for one in queue.sending) < PLACES
        if len(running) == PLACES:
            sent.append(running.popleft())
            queue.remove(sent[-1])
    while running:
        sent.append(running.popleft())
        queue.remove(sent[-1])
        running.extend(queue.start(now))
    assert sorted(sent) == list(range(len(wanted)))


def test_all_uploads_together_keep_the_rate() -> None:
    rate = UploadRate(5_000_000.0)
    now = sent = 0.0
    while now < 20.0:
        now += rate.delay_seconds(65_536, now)
        sent += 65_536
    assert 0.98 <= sent / (now * 5_000_000.0) <= 1.05
    # A pause is not made up for.
    now += 600.0
    begin, sent = now, 0.0
    while now < begin + 10.0:
        now += rate.delay_seconds(65_536, now)
        sent += 65_536
    assert sent / ((now - begin) * 5_000_000.0) <= 1.05


def test_pieces_are_small_where_the_rate_is_and_no_rate_delays_nothing() -> None:
    assert UploadRate(50_000.0).piece_bytes(65_536) == 5_000
    assert UploadRate(1.0).piece_bytes(65_536) == 1
    free = UploadRate(math.inf)
    assert free.piece_bytes(65_536) == 65_536
    assert [free.delay_seconds(10**9, 0.0) for _ in range(5)] == [0.0] * 5
