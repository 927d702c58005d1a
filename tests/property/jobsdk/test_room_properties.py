"""What holds of the room in a ring for every order of taking and giving back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.streams.slots import Slots
from shoal.job.ring import Room

PAGE = 16
PAGES = 20

STEPS = st.lists(st.one_of(st.integers(1, 6 * PAGE), st.integers(-5, -1)), max_size=80)
"""A length to take, or which of those that are held to give back."""


@given(STEPS)
def test_what_a_job_takes_is_free_and_its_worker_agrees(steps: list[int]) -> None:
    room = Room(PAGES * PAGE, PAGE)
    worker = Slots(PAGES * PAGE, PAGE)
    held: dict[int, int] = {}
    for step in steps:
        if step < 0:
            if held:
                at = list(held)[step % len(held)]
                del held[at]
                room.free(at)
                worker.free(at)
            continue
        at = room.take(step)
        pages = -(-step // PAGE)
        used = {
            page
            for start, count in held.items()
            for page in range(start // PAGE, start // PAGE + count)
        }
        fits = [
            start
            for start in range(PAGES - pages + 1)
            if not used.intersection(range(start, start + pages))
        ]
        if at < 0:
            assert not fits
            continue
        assert at == fits[0] * PAGE, "the lowest"
        worker.take(at, step)
        held[at] = pages
    assert len(room) == len(worker) == len(held)
