"""Headers: a small map beside a record's value, such as `{"alarm": 1}`, that travels with it."""

import json
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, cast

from shoal.job.block import HEADERS_SIZE, MAX_HEADERS_BYTES, Buffer
from shoal.job.error import HeaderError

Headers = Dict[str, Any]

KEY = "key"
"""The header that says to which replica a record goes, where its output is distributed by key."""

_SCALARS = (str, int, float, bool, type(None))
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


class Headed(NamedTuple):
    """A record that came with headers; these are read when it is handed over."""

    payload: Buffer
    text: bytes


class HeadedRecord(bytes):
    """A record that is sent with its headers before it."""


def encode_headers(headers: Mapping[Any, Any]) -> bytes:
    """What stands before the value in a record with headers.

    Raises:
        HeaderError: A name is no text, a value no scalar of JSON, or all together are too long.
    """
    for name, value in headers.items():
        if not isinstance(name, str):
            raise HeaderError("a header's name is {!r}: use a str".format(name))
        if not isinstance(value, _SCALARS):
            raise HeaderError(
                "header {!r} is of type {}: headers are str, int, float, bool or None; send "
                "anything else as the record's value".format(name, type(value).__name__)
            )
    try:
        text = _encode(headers).encode("utf-8")
    except ValueError as error:
        raise HeaderError("the headers {!r} cannot be sent: {}".format(headers, error)) from error
    if len(text) > MAX_HEADERS_BYTES:
        raise HeaderError(
            "headers of {} bytes are over the limit of {}: send them as the record's value".format(
                len(text), MAX_HEADERS_BYTES
            )
        )
    return HEADERS_SIZE.pack(len(text)) + text


def decode_headers(text: bytes) -> Headers:
    """Headers as they were given to `send`.

    Raises:
        HeaderError: It is no JSON object.
    """
    try:
        found = json.loads(str(text, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise HeaderError("headers {!r} are no JSON: {}".format(text[:80], error)) from error
    if not isinstance(found, dict):
        raise HeaderError("headers {!r} are no JSON object".format(text[:80]))
    return dict(cast(Headers, found))


def gather(headers: Iterable[Mapping[str, Any]]) -> Dict[str, List[Any]]:
    """All values of each name, in order."""
    values: Dict[str, List[Any]] = {}
    for one in headers:
        for name, value in one.items():
            values.setdefault(name, []).append(value)
    return values
