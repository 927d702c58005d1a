"""How large objects are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.archive.parts import (
    PART_BYTES_MAX,
    PART_BYTES_MIN,
    PARTED_BYTES_MIN,
    PARTS_MAX,
    PartedObject,
    PartsError,
    part_bytes,
)

MIB = 1 << 20


@given(st.integers(PARTED_BYTES_MIN, 5 * 1024**4))
def test_every_size_has_parts_that_s3_takes_and_a_cut_costs_less_than_a_tenth(size: int) -> None:
    one = part_bytes(size)
    assert PART_BYTES_MIN <= one <= PART_BYTES_MAX
    assert one % MIB == 0
    assert -(-size // one) <= PARTS_MAX
    assert one <= size / 10


@pytest.mark.parametrize(
    ("size", "part"),
    [(64 * MIB, 6 * MIB), (1 << 30, 16 * MIB), (10 << 30, 16 * MIB), (100 << 30, 64 * MIB)],
)
def test_sizes_that_people_have(size: int, part: int) -> None:
    assert part_bytes(size) == part


def test_parts_have_numbers_offsets_and_sizes() -> None:
    whole = PartedObject(11 * MIB, "f" * 64, 5 * MIB, ("a" * 64, "b" * 64, "c" * 64))
    assert list(whole.numbers) == [1, 2, 3]
    assert [whole.offset(n) for n in whole.numbers] == [0, 5 * MIB, 10 * MIB]
    assert [whole.size(n) for n in whole.numbers] == [5 * MIB, 5 * MIB, MIB]
    assert list(whole.missing({2})) == [1, 3]


@pytest.mark.parametrize(
    ("size", "part", "hashes"),
    [(10 * MIB, MIB, 10), (10 * MIB, 5 * MIB, 3), (0, 5 * MIB, 0), (10**12, 5 * MIB, 190_735)],
)
def test_what_makes_no_object_is_refused(size: int, part: int, hashes: int) -> None:
    with pytest.raises(PartsError, match="allowed"):
        PartedObject(size, "f" * 64, part, ("a" * 64,) * hashes)
