"""The quick check of a block's record lengths says what the thorough one says."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from services.streams.block import HEADED, Block, BlockError, Kind, check_lengths, lengths

ENTRY = st.one_of(st.integers(0, 6), st.integers(0, 6).map(lambda size: size | HEADED))


@given(
    table=st.one_of(
        st.lists(ENTRY, min_size=1, max_size=8),
        st.tuples(ENTRY, st.integers(1, 8)).map(lambda pair: [pair[0]] * pair[1]),
    ),
    more=st.integers(-1, 1),
    data=st.binary(min_size=60, max_size=60),
)
def test_the_quick_check_and_the_thorough_one_agree(
    table: list[int], more: int, data: bytes
) -> None:
    size = max(0, sum(entry & ~HEADED for entry in table) + more)
    body = struct.pack(f"<{len(table)}I", *table) + data[:size]
    block = Block(Kind.DATA, 3, len(table), body)
    refused = ["", ""]
    for index, check in enumerate((check_lengths, lengths)):
        try:
            check(block, 7)
        except BlockError as error:
            refused[index] = str(error)
    assert refused[0] == refused[1]
