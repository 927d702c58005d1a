"""Blocks: exact bytes, precise refusals."""

from __future__ import annotations

import pytest

from services.streams.block import (
    BLOCK_BYTES_MAX,
    HEADED,
    HEADER,
    Block,
    BlockError,
    BlockReader,
    Kind,
    decode,
    encode,
    entries,
    headed,
    headers_of,
    lengths,
    pack,
    payload_of,
    unpack,
    without_head,
    without_headers,
)
from services.streams.checksum import crc32c


def data(records: list[bytes], first: int = 0) -> Block:
    return Block(Kind.DATA, first, len(records), pack(records))


def read(stream: bytes, step: int = 1 << 20) -> list[Block]:
    reader = BlockReader()
    blocks: list[Block] = []
    view = memoryview(stream)
    while view:
        room = reader.buffer()
        count = min(len(room), len(view), step)
        room[:count] = view[:count]
        view = view[count:]
        blocks += reader.filled(count)
    return blocks + reader.finish()


def test_a_data_block_has_the_bytes_of_the_contract() -> None:
    block = data([b"ab", b"", b"c"], first=7)
    assert encode(block) == (
        b"\x01\x00\x00\x00"  # kind, flags, reserved
        b"\x03\x00\x00\x00"  # count
        b"\x07\x00\x00\x00\x00\x00\x00\x00"  # first
        b"\x0f\x00\x00\x00"  # length: three lengths and three bytes
        b"\x00\x00\x00\x00"  # crc
        b"\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00abc"
    )


def test_the_checksum_is_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, B.4 and every catalogue of CRCs


def test_what_was_encoded_with_a_checksum_is_decoded() -> None:
    block = data([b"x" * 1000, b"y"], first=2**40)
    assert decode(encode(block, checksum=True)) == block
    assert unpack(block) == [b"x" * 1000, b"y"]


def test_a_block_without_its_head_is_the_rest() -> None:
    assert without_head(data([b"a", b"bc", b"", b"d"], 5), 2) == data([b"", b"d"], 7)
    assert without_head(data([b"a"], 5), 0) == data([b"a"], 5)


@pytest.mark.parametrize(
    ("stream", "offset", "reason"),
    [
        (b"\xff" * 24, 0, "kind 255 does not exist"),
        (HEADER.pack(1, 0, 0, 0, 0, 0, 0), 0, "DATA without a record"),
        (HEADER.pack(1, 0, 0, 9, 0, 8, 0), 0, "9 record lengths do not fit into 8 bytes"),
        (HEADER.pack(1, 0, 0, 2, 0, BLOCK_BYTES_MAX + 1, 0), 0, "at most 262144"),
        (HEADER.pack(1, 0, 0, 1, 0, 256 * 2**20 + 5, 0), 0, "above the limit of 268435456"),
        (HEADER.pack(2, 0, 0, 0, 3, 4, 0), 0, "END has a body of 4 bytes"),
        (HEADER.pack(5, 0, 0, 0, 0, 65537, 0), 0, "PROGRESS has 65537 bytes"),
        (
            encode(data([b"abc"])) + HEADER.pack(1, 0, 0, 1, 1, 8, 0) + b"\x03\0\0\0abcd",
            31,
            "the record lengths add up to 3 bytes, and the block has 4",
        ),
        (encode(data([b"abc"])) + b"\x01\x00", 31, "the port ended 2 bytes into a block"),
        (encode(data([b"x" * 500_000]))[:-1], 0, "the port ended 500027 bytes into a block"),
    ],
)
def test_what_is_no_block_is_refused_with_its_offset(
    stream: bytes, offset: int, reason: str
) -> None:
    with pytest.raises(BlockError) as refused:
        read(stream)
    assert refused.value.offset == offset
    assert reason in refused.value.reason


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "shorter than its header"),
        (encode(data([b"abc"])), "has no checksum"),
        (encode(data([b"abc"]), checksum=True)[:-1], "says 7 bytes of body, and 6 came"),
        (encode(data([b"abc"]), checksum=True)[:-1] + b"d", "CRC-32C"),
    ],
)
def test_what_is_no_block_between_nodes_is_refused(message: bytes, reason: str) -> None:
    with pytest.raises(BlockError, match=reason):
        decode(message)


def with_headers(headers: bytes, payload: bytes) -> bytes:
    return len(headers).to_bytes(2, "little") + headers + payload


def test_f12_a_record_with_headers_has_bit_31_of_its_entry() -> None:
    record = with_headers(b'{"key":"a"}', b"payload")
    block = Block(Kind.DATA, 4, 3, pack([b"x", record, b"y"], [1, len(record) | HEADED, 1]))
    assert entries(block) == (1, 20 | HEADED, 1)
    assert lengths(block) == (1, 20, 1)
    assert unpack(block) == [b"x", record, b"y"]
    assert read(encode(block)) == [block]
    assert decode(encode(block, checksum=True)) == block
    assert headers_of(record) == b'{"key":"a"}'
    assert payload_of(record) == b"payload"
    assert headed(block)
    assert not headed(data([b"x"]))
    assert without_headers(block) == data([b"x", b"payload", b"y"], 4)
    assert without_head(block, 1) == Block(
        Kind.DATA, 5, 2, pack([record, b"y"], [len(record) | HEADED, 1])
    )


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"\x01", "record 8 is said to begin with headers, and its 1 bytes cannot hold"),
        (b"\x05\x00{}", "record 8 has 4 bytes and says that 5 of them, after the first 2"),
        (b"\x01\x40" + b" " * 16385, "record 8 has headers of 16385 bytes; at most 16384"),
    ],
)
def test_f12_headers_that_do_not_fit_their_record_are_refused_with_the_offset(
    record: bytes, reason: str
) -> None:
    bad = Block(Kind.DATA, 7, 2, pack([b"x", record], [1, len(record) | HEADED]))
    with pytest.raises(BlockError) as refused:
        read(encode(data([b"abc"])) + encode(bad))
    assert refused.value.offset == 31
    assert reason in refused.value.reason
    with pytest.raises(BlockError, match=reason):
        decode(encode(bad, checksum=True))


def test_f12_lengths_that_are_wrong_are_refused_with_headers_too() -> None:
    bad = Block(Kind.DATA, 0, 1, pack([b"\x02\x00{}"], [5 | HEADED]))
    with pytest.raises(BlockError, match="add up to 5 bytes, and the block has 4"):
        read(encode(bad))


def test_a_large_record_is_read_in_place() -> None:
    block = data([b"z" * 1_300_000])
    assert read(encode(block) + encode(data([b"next"], 1))) == [block, data([b"next"], 1)]
