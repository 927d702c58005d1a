"""The key of a record: records with equal keys go to the same replica of a consumer.

That is the header `key` of a record if it has one (a text as UTF-8, any other value as compact JSON),
else the part of a raw record that the specification names, else the whole payload. The replica is
CRC-32 of the key (as zlib and gzip reckon it) modulo their number (docs/architecture.md, section 4).
"""

import json
import zlib
from collections.abc import Callable
from typing import cast

from services.streams.block import HEADED, Block, entries, headers_of, payload_of, unpack
from shoal.spec import PortFormat

_CACHE_ENTRIES = 1024
"""Headers whose keys are remembered: keys repeat, that is what they are for."""


class HeadersError(Exception):
    """Headers that are not what the contract says, where they have to be read."""


class KeyRule:
    """Reckons the keys of an output's records.

    Args:
        port_format: what the program writes.
        name: the part that is the key: of `jsonl` a member, of `lines` the number of a field, from
            1, between blanks; empty means the whole record. A record without it is its own key.

    Raises:
        ValueError: A format that has no such part.
    """

    def __init__(self, port_format: PortFormat, name: str = "") -> None:
        self._part = _part(port_format, name) if name else _whole
        self._cache: dict[bytes, int | None] = {}

    def checksums(self, block: Block) -> list[int]:
        """Return CRC-32 of the key of each record of a DATA block.

        Raises:
            HeadersError: A record has headers that cannot be read.
        """
        part = self._part
        table = entries(block)
        sums: list[int] = []
        for index, record in enumerate(unpack(block)):
            if table[index] & HEADED:
                sums.append(self._headed(record, block.first + index))
            else:
                sums.append(zlib.crc32(part(record)))
        return sums

    def _headed(self, record: bytes, number: int) -> int:
        headers = headers_of(record)
        try:
            checksum = self._cache[headers]
        except KeyError:
            checksum = _of_headers(headers, number)
            if len(self._cache) >= _CACHE_ENTRIES:
                self._cache.clear()
            self._cache[headers] = checksum
        return zlib.crc32(payload_of(record)) if checksum is None else checksum


def _of_headers(headers: bytes, number: int) -> int | None:
    try:
        fields: object = json.loads(headers)
    except (ValueError, RecursionError) as error:
        raise HeadersError(f"the headers of record {number} are no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise HeadersError(f"the headers of record {number} are no JSON object")
    named = cast("dict[str, object]", fields)
    return zlib.crc32(_text(named["key"])) if "key" in named else None


def _text(value: object) -> bytes:
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    # JSON may hold half of a surrogate pair, which UTF-8 has no bytes for.
    return value.encode("utf-8", "surrogatepass")


def _whole(record: bytes) -> bytes:
    return record


def _part(port_format: PortFormat, name: str) -> Callable[[bytes], bytes]:
    match port_format:
        case PortFormat.JSONL:
            return lambda record: _member(record, name)
        case PortFormat.LINES if name.isascii() and name.isdecimal() and int(name):
            field = int(name)
            return lambda record: _field(record, field)
        case _:
            raise ValueError(f"a record of {port_format.value} has no part {name!r}")


def _member(record: bytes, name: str) -> bytes:
    try:
        value: object = json.loads(record)
    except (ValueError, RecursionError):
        return record
    if not isinstance(value, dict):
        return record
    members = cast("dict[str, object]", value)
    return _text(members[name]) if name in members else record


def _field(record: bytes, number: int) -> bytes:
    fields = record.split(None, number)
    return fields[number - 1] if len(fields) >= number else record
