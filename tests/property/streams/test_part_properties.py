"""What holds of large blocks in parts, and of checksums that are put together, for every input."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.streams.block import (
    Block,
    BlockError,
    Kind,
    data_header,
    pack,
    plain,
)
from services.streams.checksum import crc32c, extended, joined, tail
from services.streams.large_body import LargeBody
from services.streams.part import Assembler, ranges
from services.streams.worker.wire import Part, read_message, write_part
from shoal.limits import PART_BYTES, PART_BYTES_MAX, RECORD_BYTES_MAX, WHOLE_BYTES_MAX
from shoal.v1.streams_service_pb2 import PullResponse

BYTES = st.binary(max_size=400)


def cut(body: bytes, first: int = 0, crc: int | None = None) -> list[bytes]:
    """Return a record's block as the messages of the contract."""
    head = data_header(first, 1, len(body), crc32c(body) if crc is None else crc)
    return [
        write_part(head, offset, memoryview(body)[offset : offset + length])
        for offset, length in ranges(len(body))
    ]


def assemble(messages: list[bytes]) -> list[Block]:
    assembler = Assembler()
    blocks: list[Block] = []
    for message in messages:
        came = read_message(message)
        assert isinstance(came, Part)
        block = assembler.part(came.data, came.at)
        if block is not None:
            blocks.append(block)
    assert not assembler.busy
    return blocks


@given(BYTES, BYTES, st.integers(0, 70_000))
def test_checksums_are_put_together_without_the_bytes(one: bytes, two: bytes, zeros: int) -> None:
    two += bytes(zeros)
    assert joined(crc32c(one), crc32c(two), len(two)) == crc32c(one + two)
    assert extended(crc32c(one), two) == crc32c(one + two)
    assert tail(one + two, len(one)) == crc32c(two)


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=20))
def test_a_body_is_what_was_added_piece_by_piece(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    body = LargeBody(len(whole))
    for number, piece in enumerate(pieces):
        if number % 2:
            body.add(piece)
        else:
            body.add_tail(b"before" + piece, 6)
    assert (body.missing, body.crc, body.take()) == (0, crc32c(whole), whole)


@given(st.integers(1, 5 * PART_BYTES_MAX))
def test_parts_are_about_equally_large_and_follow_one_another(size: int) -> None:
    at = 0
    for offset, length in ranges(size):
        assert offset == at
        assert 0 < length < PART_BYTES_MAX
        at += length
    assert at == size


@settings(max_examples=25)
@given(
    st.lists(st.integers(PART_BYTES_MAX, 4 * PART_BYTES_MAX), min_size=1, max_size=3),
    st.integers(0, 2**40),
)
def test_blocks_come_out_of_their_parts_as_they_went_in(sizes: list[int], first: int) -> None:
    blocks = [
        Block(Kind.DATA, first + number, 1, pack([bytes([number + 1]) * size]))
        for number, size in enumerate(sizes)
    ]
    messages = [message for block in blocks for message in cut(plain(block.body), block.first)]
    assert assemble(messages) == blocks
    assert all(PullResponse.FromString(message).part for message in messages)


@given(BYTES, st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2**40)), max_size=4))
def test_whatever_comes_as_parts_is_whole_or_refused(
    noise: bytes, changes: list[tuple[int, int]]
) -> None:
    body = pack([bytes(range(256)) * 20])
    head = data_header(0, 1, len(body), crc32c(body))
    good = [
        struct.pack("<I", offset) + (head if offset == 0 else b"") + body[offset : offset + 900]
        for offset in range(0, len(body), 900)
    ]
    came = list(good)
    for kind, where in changes:
        at = where % len(came)
        match kind:
            case 0:
                came[at] = noise
            case 1:
                came.insert(at, came[where // 7 % len(came)])
            case 2 if len(came) > 1:
                del came[at]
            case 3:
                came[at] = came[at][: where // 7 % (len(came[at]) + 1)]
            case 4:
                flipped = bytearray(came[at] or b"\0")
                flipped[where // 7 % len(flipped)] ^= 1 + where // 99 % 255
                came[at] = bytes(flipped)
            case _:
                came[at] += noise
    assembler = Assembler()
    whole: list[Block] = []
    with contextlib.suppress(BlockError):
        for one in came:
            block = assembler.part(one)
            whole += [] if block is None else [block]
    # What a checksum does not cover is the kind, the flags and the sequence of the header.
    assert all(block.body == body for block in whole)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (struct.pack("<I", 7) + b"x", "a part begins at 7, the next one is 0"),
        (struct.pack("<I", 0) + bytes(20), "holds no header and body"),
        (struct.pack("<I", 0), "holds nothing"),
        (
            struct.pack("<I", 0) + data_header(0, 1, RECORD_BYTES_MAX + 5, 0) + b"x",
            "a record of 268435457 bytes is above the limit of 268435456",
        ),
        (
            struct.pack("<I", 0) + data_header(0, 1, 8, 0) + bytes(9),
            "a part of 9 bytes, and 8 are missing",
        ),
        (
            struct.pack("<I", 0) + data_header(0, 1, 8, 1) + b"\4\0\0\0abcd",
            "the header says 00000001",
        ),
        (
            struct.pack("<I", 0) + data_header(0, 1, 3 * PART_BYTES_MAX, 1) + bytes(PART_BYTES_MAX),
            "less than 1048576 may come",
        ),
        (struct.pack("<I", 0) + bytes([2]) + bytes(24), "END comes in parts"),
    ],
)
def test_a_part_that_is_wrong_is_refused_with_a_reason(message: bytes, reason: str) -> None:
    with pytest.raises(BlockError) as refused:
        Assembler().part(message)
    assert reason in refused.value.reason


def test_a_record_of_1_mib_travels_whole_and_no_message_is_above_the_limit() -> None:
    assert WHOLE_BYTES_MAX > 4 + 2**20
    assert PART_BYTES < PART_BYTES_MAX < 2 * 2**20 - 64 * 1024
