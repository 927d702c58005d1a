"""Raw formats: bytes of programs become records and bytes again."""

from __future__ import annotations

import pytest

from services.streams.block import HEADED, Block, BlockError, Kind, pack, unpack
from services.streams.framing import FixedReader, LineReader, RecordError, render
from shoal.spec import PortFormat


def feed(reader: LineReader | FixedReader, data: bytes) -> list[bytes]:
    records: list[bytes] = []
    view = memoryview(data)
    while view:
        room = reader.buffer()
        count = min(len(room), len(view))
        room[:count] = view[:count]
        view = view[count:]
        for block in reader.filled(count):
            records += unpack(block)
    return records


def data(records: list[bytes], first: int = 0) -> Block:
    return Block(Kind.DATA, first, len(records), pack(records))


def test_lines_are_records_without_their_newline_and_the_last_may_lack_it() -> None:
    reader = LineReader()
    assert feed(reader, b"one\n\ntwo\nthr") == [b"one", b"", b"two"]
    assert feed(reader, b"ee\nfo") == [b"three"]
    assert [unpack(block) for block in reader.finish()] == [[b"fo"]]
    assert reader.finish() == []


def test_a_line_longer_than_what_is_read_at_once_stays_whole() -> None:
    reader = LineReader()
    line = b"x" * 1_000_000
    assert feed(reader, line + b"\n" + line) == [line]
    assert [unpack(block) for block in reader.finish()] == [[line]]


def test_a_line_above_the_limit_of_a_record_is_refused() -> None:
    reader = LineReader()
    with pytest.raises(BlockError, match="a line of more than 268435456 bytes") as refused:
        feed(reader, b"short\n" + b"x" * (257 << 20))
    assert refused.value.offset == 6


def test_blocks_of_lines_stay_within_their_limit() -> None:
    reader = LineReader()
    room = reader.buffer()
    room[:] = b"\n" * len(room)
    blocks = reader.filled(len(room))
    assert sum(block.count for block in blocks) == len(room)
    assert max(len(block.body) for block in blocks) <= 256 * 1024


def test_fixed_records_are_cut_wherever_the_bytes_end() -> None:
    reader = FixedReader(4)
    assert feed(reader, b"aaaabb") == [b"aaaa"]
    assert feed(reader, b"bbcccc") == [b"bbbb", b"cccc"]
    assert reader.finish() == []
    assert feed(reader, b"d") == []
    with pytest.raises(BlockError, match="1 bytes into a record of 4") as refused:
        reader.finish()
    assert refused.value.offset == 12


def test_fixed_records_may_be_larger_than_a_block() -> None:
    reader = FixedReader(1_300_000)
    frames = [bytes([k]) * 1_300_000 for k in range(3)]
    assert feed(reader, b"".join(frames)) == frames


def test_a_record_size_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="record_bytes is 0"):
        FixedReader(0)


def test_records_are_shown_as_the_format_has_them() -> None:
    assert render(PortFormat.LINES, 0, data([b"a", b"", b"bc"])) == b"a\n\nbc\n"
    assert render(PortFormat.JSONL, 0, data([b"{}"])) == b"{}\n"
    assert render(PortFormat.U32, 0, data([b"\1\0\0\0", b"\2\0\0\0"])) == b"\1\0\0\0\2\0\0\0"
    assert render(PortFormat.BYTES, 3, data([b"abc", b"def"])) == b"abcdef"


def test_f12_programs_with_a_raw_format_get_the_payload_without_headers() -> None:
    # The u16 before ten bytes of headers looks like a newline.
    records = [b"one", b'\x0a\x00{"key": 1}four', b"end"]
    table = [3, len(records[1]) | HEADED, 3]
    block = Block(Kind.DATA, 0, 3, pack(records, table))
    assert render(PortFormat.LINES, 0, block) == b"one\nfour\nend\n"
    fixed = Block(Kind.DATA, 7, 2, pack(records[1:], table[1:]))
    assert render(PortFormat.BYTES, 4, Block(Kind.DATA, 0, 1, pack(records[1:2], table[1:2]))) == (
        b"four"
    )
    with pytest.raises(RecordError, match="record 8 has 3 bytes, and the port takes 4"):
        render(PortFormat.U32, 0, fixed)
    with pytest.raises(RecordError, match="holds a newline"):
        render(PortFormat.LINES, 0, Block(Kind.DATA, 0, 1, pack([b"\2\0{}a\nb"], [7 | HEADED])))


def test_a_record_that_does_not_fit_is_refused_by_its_number() -> None:
    with pytest.raises(RecordError, match="record 8 has 3 bytes, and the port takes 4"):
        render(PortFormat.U32, 0, data([b"four", b"thr"], first=7))
    with pytest.raises(RecordError, match="from 7 to 8 holds a newline"):
        render(PortFormat.LINES, 0, data([b"a", b"b\n"], first=7))
