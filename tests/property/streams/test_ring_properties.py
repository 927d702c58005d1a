"""What holds of the account of a ring for every order of taking and freeing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.streams.slots import RingError, Slots

PAGE = 16
PAGES = 12

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, PAGES + 1), st.integers(0, 5 * PAGE)),
        st.tuples(st.just("free"), st.integers(0, PAGES), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_a_slot_is_granted_just_when_every_byte_of_it_is_free(
    steps: list[tuple[str, int, int]],
) -> None:
    slots = Slots(PAGES * PAGE, PAGE)
    owner: list[int | None] = [None] * (PAGES * PAGE)
    held: dict[int, int] = {}
    for what, page, length in steps:
        at = page * PAGE
        try:
            if what == "take":
                slots.take(at, length)
            else:
                slots.free(at)
        except RingError:
            if what == "free":
                assert at not in held
            else:
                span = owner[at : at + length]
                assert not length or len(span) < length or any(one is not None for one in span)
            continue
        if what == "take":
            assert length
            assert owner[at : at + length] == [None] * length
            owner[at : at + length] = [at] * length
            held[at] = length
        else:
            freed = held.pop(at)
            owner[at : at + freed] = [None] * freed
        assert len(slots) == len(held)
