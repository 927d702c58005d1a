"""Files of records: whole, torn, damaged, and written by two."""

from pathlib import Path

import pytest

from shoal.local.checked_block import Records, check_table, pack
from shoal.local.record_file import RecordFile, RecordFileError


def filled(path: Path, records: list[bytes], *, each: int, end: bool = True) -> RecordFile:
    """A file with records in blocks of `each`."""
    file = RecordFile(path, {"port": "frames"})
    for at in range(0, len(records), each):
        for packed in pack(at, records[at : at + each]):
            file.append(packed)
    if end:
        file.end()
    return file


def texts(file: RecordFile) -> list[bytes]:
    """All records of a file."""
    blocks = map(file.read, range(file.place(file.next)))
    return [payload for block in blocks if block is not None for payload in block.payloads()]


def test_f13_what_was_written_is_read_and_the_digest_does_not_know_of_blocks(
    tmp_path: Path,
) -> None:
    """The same records in blocks of 1, 7 and 100."""
    records = [b"%d" % k * (k % 5) for k in range(100)]
    digests: set[str] = set()
    for each in (1, 7, 100):
        path = tmp_path / f"{each}"
        filled(path, records, each=each).close()
        file = RecordFile(path, writable=False)
        assert (file.base, file.next, file.total) == (0, 100, 100)
        assert file.header == {"port": "frames"}
        assert texts(file) == records
        digests.add(file.digest)
        file.close()
    assert len(digests) == 1


def test_f13_a_torn_file_goes_on_after_its_last_whole_block(tmp_path: Path) -> None:
    """Cut at every byte of the last two blocks: a prefix of the records, and appending works."""
    records = [b"record %d" % k for k in range(6)]
    path = tmp_path / "whole"
    filled(path, records, each=2, end=False).close()
    data = path.read_bytes()
    for cut in range(len(data) - 60, len(data)):
        torn = tmp_path / "torn"
        torn.write_bytes(data[:cut])
        file = RecordFile(torn)
        assert file.next in {2, 4}
        for packed in pack(file.next, records[file.next :]):
            file.append(packed)
        file.end()
        assert texts(file) == records
        file.close()


def test_f13_a_flipped_byte_is_found(tmp_path: Path) -> None:
    """In a complete file nothing may be missing; its END says so."""
    path = tmp_path / "whole"
    filled(path, [b"record %d" % k for k in range(6)], each=2).close()
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    file = RecordFile(path, writable=False)
    assert file.total is None
    assert file.next < 6
    file.close()
    path.write_bytes(b"something else\n")
    with pytest.raises(RecordFileError, match="no file of records"):
        RecordFile(path, writable=False)


def test_f13_one_process_writes_and_a_late_begin_counts_on(tmp_path: Path) -> None:
    """The second writer is told; `first` survives."""
    path = tmp_path / "late"
    file = RecordFile(path, {"port": "x"})
    with pytest.raises(RecordFileError, match="another process"):
        RecordFile(path)
    file.begin(40)
    file.append(Records(40, 1, b"\x01\0\0\0a"))
    with pytest.raises(ValueError, match="cannot follow"):
        file.append(Records(43, 1, b"\x01\0\0\0a"))
    file.close()
    file = RecordFile(path)
    assert (file.base, file.next) == (40, 41)
    assert file.place(40) == 0
    assert file.place(41) == 1
    file.close()


def test_headers_stay_in_the_file_and_out_of_payloads() -> None:
    """Bit 31 of an entry: u16 length and JSON come before the payload."""
    head = b"\x02\x00{}"
    entry = (len(head) + 3) | 0x8000_0000
    records = Records(7, 1, entry.to_bytes(4, "little") + head + b"abc")
    assert records.payloads() == [b"abc"]
    assert records.without_head(1).count == 0


def test_u6_a_head_of_records_and_the_rest_are_the_whole() -> None:
    (records,) = pack(7, [b"a", b"", b"bcd"])
    for count in range(4):
        head, rest = records.head(count), records.without_head(count)
        check_table(head)
        assert (head.first, head.end, rest.end) == (7, rest.first, 10)
        assert head.payloads() + rest.payloads() == [b"a", b"", b"bcd"]
    assert records.head(9) == records
