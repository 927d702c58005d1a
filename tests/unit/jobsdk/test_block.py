"""Blocks that break the format are refused with offset and reason."""

import struct

import pytest

from shoal.job.block import (
    DATA,
    END,
    HEADER,
    MAX_BLOCK_BYTES,
    MAX_RECORD_BYTES,
    PROGRESS,
    START,
    Block,
    BlockError,
    encode_data,
    encode_mark,
    encode_text,
)
from shoal.job.block_reader import BlockReader


def test_a_data_block_has_the_bytes_of_the_contract() -> None:
    assert encode_data(7, [b"ab", b"", b"c"]) == (
        b"\x01\x00\x00\x00\x03\x00\x00\x00"
        b"\x07\x00\x00\x00\x00\x00\x00\x00"
        b"\x0f\x00\x00\x00\x00\x00\x00\x00"
        b"\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00abc"
    )


def test_an_end_has_the_bytes_of_the_contract() -> None:
    assert encode_mark(END, 300) == b"\x02" + bytes(7) + b"\x2c\x01" + bytes(14)


def test_texts_travel_as_utf_8() -> None:
    (block,) = BlockReader().feed(encode_text(PROGRESS, 0, "Bild 3 → 4"))
    assert (block.kind, bytes(block.body).decode()) == (PROGRESS, "Bild 3 → 4")


def test_a_single_record_may_be_larger_than_a_block() -> None:
    record = bytes(MAX_BLOCK_BYTES + 1)
    (block,) = BlockReader().feed(encode_data(0, [record]))
    assert block.records() == [record]


def refusal_of(*pieces: bytes) -> BlockError:
    reader = BlockReader()
    with pytest.raises(BlockError) as refused:
        reader.feed(b"".join(pieces))
    return refused.value


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (HEADER.pack(9, 0, 0, 0, 0, 0, 0), "kind 9"),
        (HEADER.pack(0, 0, 0, 0, 0, 0, 0), "kind 0"),
        (HEADER.pack(DATA, 0x82, 0, 1, 0, 4, 0), "unknown flags 0x82"),
        (HEADER.pack(DATA, 0, 0, 0, 0, 0, 0), "without records"),
        (HEADER.pack(DATA, 0, 0, 2, 0, 7, 0), "cannot hold the lengths of 2 records"),
        (HEADER.pack(DATA, 0, 0, 1, 0, MAX_RECORD_BYTES + 5, 0), "over the limit"),
        (HEADER.pack(DATA, 0, 0, 2, 0, MAX_BLOCK_BYTES + 1, 0), "at most"),
        (HEADER.pack(END, 0, 0, 0, 0, 1, 0), "has no body"),
        (HEADER.pack(END, 0, 0, 1, 0, 0, 0), "has no records"),
        (HEADER.pack(START, 0, 0, 0, 0, MAX_BLOCK_BYTES + 1, 0), "too long"),
    ],
)
def test_a_broken_header_is_refused(header: bytes, reason: str) -> None:
    good = encode_data(0, [b"one"])
    refusal = refusal_of(good, header)
    assert refusal.offset == len(good)
    assert reason in str(refusal)


def test_record_lengths_that_do_not_add_up_are_refused() -> None:
    body = struct.pack("<II", 1, 2) + b"abcd"
    refusal = refusal_of(HEADER.pack(DATA, 0, 0, 2, 0, len(body), 0), body)
    assert "add up to 11 bytes and the block has 12" in str(refusal)


def test_a_checksum_that_is_there_does_no_harm() -> None:
    header = HEADER.pack(DATA, 1, 0, 1, 5, 5, 0xDEADBEEF)
    assert BlockReader().feed(header + b"\x01\x00\x00\x00x") == [
        Block(DATA, 5, 1, memoryview(b"\x01\x00\x00\x00x"))
    ]


def test_a_reader_knows_when_it_is_inside_a_block() -> None:
    reader = BlockReader()
    data = encode_data(0, [b"abc"])
    inside = [reader.inside]
    for piece in (data[:10], data[10:30], data[30:]):
        reader.feed(piece)
        inside.append(reader.inside)
    assert inside == [False, True, True, False]
    assert reader.offset == len(data)
