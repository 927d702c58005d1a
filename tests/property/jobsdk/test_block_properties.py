"""Whatever is sent as blocks arrives, however the bytes are cut."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shoal.job.block import (
    ACK,
    DATA,
    END,
    HEADED,
    HEADERS_SIZE,
    BlockError,
    data_head,
    encode_data,
    encode_mark,
)
from shoal.job.block_reader import BlockReader

RECORDS = st.lists(st.binary(max_size=40), min_size=1, max_size=12)
SEQUENCE = st.integers(min_value=0, max_value=2**64 - 1)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces, cut at these places (taken modulo its length)."""
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(edges)]


@given(
    blocks=st.lists(st.tuples(SEQUENCE, RECORDS), max_size=6),
    places=st.lists(st.integers(min_value=0, max_value=10_000), max_size=20),
)
def test_blocks_arrive_however_the_bytes_are_cut(
    blocks: list[tuple[int, list[bytes]]], places: list[int]
) -> None:
    reader = BlockReader()
    data = b"".join(encode_data(first, records) for first, records in blocks)
    came = [block for piece in cut(data, places) for block in reader.feed(piece)]
    assert [(block.first, [bytes(one) for one in block.records()]) for block in came] == blocks
    assert all(block.kind == DATA for block in came)
    assert not reader.inside
    assert reader.offset == len(data)


@given(
    records=st.lists(
        st.tuples(st.one_of(st.none(), st.binary(max_size=30)), st.binary(max_size=40)),
        min_size=1,
        max_size=100,
    ),
    places=st.lists(st.integers(min_value=0, max_value=10_000), max_size=20),
)
def test_f12_headers_arrive_beside_their_records(
    records: list[tuple[bytes | None, bytes]], places: list[int]
) -> None:
    lengths: list[int] = []
    body = b""
    for text, payload in records:
        head = b"" if text is None else HEADERS_SIZE.pack(len(text)) + text
        lengths.append(len(head + payload) | (0 if text is None else HEADED))
        body += head + payload
    reader = BlockReader()
    (block,) = (
        block for piece in cut(data_head(5, lengths) + body, places) for block in reader.feed(piece)
    )
    assert [bytes(one) for one in block.records()] == [payload for _, payload in records]
    said = {index: text for index, (text, _) in enumerate(records) if text is not None}
    assert block.headers() == said
    assert block.headed == bool(said)


@given(
    size=st.integers(0, 5), total=st.integers(60, 200), head=st.sampled_from([b"", b"\x02\x00{}"])
)
def test_records_of_one_size_arrive(size: int, total: int, head: bytes) -> None:
    payloads = [bytes([index % 256]) * size for index in range(total)]
    lengths = [len(head) + size | (HEADED if head else 0)] * total
    (block,) = BlockReader().feed(
        data_head(0, lengths) + b"".join(head + payload for payload in payloads)
    )
    assert block.records() == payloads
    assert block.headers() == (dict.fromkeys(range(total), b"{}") if head else {})


@given(kind=st.sampled_from([END, ACK]), first=SEQUENCE)
def test_marks_arrive(kind: int, first: int) -> None:
    (block,) = BlockReader().feed(encode_mark(kind, first))
    assert (block.kind, block.first, bytes(block.body)) == (kind, first, b"")


@given(data=st.binary(max_size=400))
def test_random_bytes_are_cut_or_refused_and_nothing_else(data: bytes) -> None:
    reader = BlockReader()
    offset = 0
    try:
        assert all(block.kind in range(1, 6) for block in reader.feed(data))
    except BlockError as error:
        offset = error.offset
    assert 0 <= offset <= len(data)


@given(records=RECORDS, place=st.integers(min_value=0), value=st.integers(0, 255))
def test_a_flipped_byte_never_makes_records_that_are_longer(
    records: list[bytes], place: int, value: int
) -> None:
    data = bytearray(encode_data(3, records))
    data[place % len(data)] = value
    try:
        blocks = BlockReader().feed(data)
    except BlockError:
        return
    for block in blocks:
        if block.kind == DATA:
            assert 4 * block.total + sum(map(len, block.records())) == len(block.body)
