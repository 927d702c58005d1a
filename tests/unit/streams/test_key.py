"""Keys: what they are, and which replica they lead to."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import pytest

from services.streams.block import HEADED, Block, Kind, pack
from services.streams.key import HeadersError, KeyRule
from shoal.spec import PortFormat


def headed(headers: bytes, payload: bytes = b"payload") -> bytes:
    return len(headers).to_bytes(2, "little") + headers + payload


def keys_of(rule: KeyRule, records: Sequence[bytes], *, headers: bool) -> list[int]:
    table = [len(record) | (HEADED if headers else 0) for record in records]
    return rule.checksums(Block(Kind.DATA, 5, len(records), pack(records, table)))


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        (b'{"key":"cam-3"}', b"cam-3"),
        ('{"key": "Zürich"}'.encode(), "Zürich".encode()),
        (b'{"key": 3, "other": "x"}', b"3"),
        (b'{"key": {"b": 1, "a": [1, 2]}}', b'{"a":[1,2],"b":1}'),
        (b'{"key": null}', b"null"),
        (b'{"key": "\\ud800"}', b"\xed\xa0\x80"),
        (b'{"other": 1}', b"payload"),
        (b"{}", b"payload"),
    ],
)
def test_the_key_is_the_header_or_else_the_payload(headers: bytes, key: bytes) -> None:
    rule = KeyRule(PortFormat.BLOCKS)
    for _ in range(2):
        assert keys_of(rule, [headed(headers)], headers=True) == [zlib.crc32(key)]


def test_a_record_without_headers_is_its_own_key() -> None:
    rule = KeyRule(PortFormat.BLOCKS)
    assert keys_of(rule, [b"", b"word"], headers=False) == [0, zlib.crc32(b"word")]


@pytest.mark.parametrize("headers", [b"{", b"[]", b"\xff", b"[" * 16000])
def test_headers_that_cannot_be_read_are_refused_by_the_number_of_the_record(
    headers: bytes,
) -> None:
    with pytest.raises(HeadersError, match="the headers of record 6 are no JSON"):
        keys_of(KeyRule(PortFormat.BLOCKS), [headed(b"{}"), headed(headers)], headers=True)


def test_what_is_remembered_of_headers_is_bounded() -> None:
    rule = KeyRule(PortFormat.BLOCKS)
    for number in range(3000):
        [found] = keys_of(rule, [headed(b'{"key":%d}' % number)], headers=True)
        assert found == zlib.crc32(b"%d" % number)
    assert len(rule._cache) <= 1024


@pytest.mark.parametrize(
    ("port_format", "name", "record", "key"),
    [
        (PortFormat.LINES, "", b"a b", b"a b"),
        (PortFormat.LINES, "2", b"  one \t two three", b"two"),
        (PortFormat.LINES, "1", b"one", b"one"),
        (PortFormat.LINES, "2", b"one", b"one"),
        (PortFormat.JSONL, "id", b'{"id": "a", "n": 1}', b"a"),
        (PortFormat.JSONL, "id", b'{"id": [1, 2]}', b"[1,2]"),
        (PortFormat.JSONL, "id", b'{"n": 1}', b'{"n": 1}'),
        (PortFormat.JSONL, "id", b"no json", b"no json"),
        (PortFormat.JSONL, "id", b"[" * 100_000, b"[" * 100_000),
        (PortFormat.U32, "", b"\1\0\0\0", b"\1\0\0\0"),
    ],
)
def test_a_part_of_a_raw_record_may_be_its_key(
    port_format: PortFormat, name: str, record: bytes, key: bytes
) -> None:
    assert keys_of(KeyRule(port_format, name), [record], headers=False) == [zlib.crc32(key)]


@pytest.mark.parametrize(
    ("port_format", "name"),
    [(PortFormat.LINES, "0"), (PortFormat.LINES, "x"), (PortFormat.BLOCKS, "id")],
)
def test_a_part_that_cannot_be_is_refused(port_format: PortFormat, name: str) -> None:
    with pytest.raises(ValueError, match="has no part"):
        KeyRule(port_format, name)
