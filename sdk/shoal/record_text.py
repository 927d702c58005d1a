"""Records as people read them: text as text, JSON as JSON, values of the SDK, else their bytes in hex.

What a record means is agreed on by the programs at both ends; the bytes do not say. So the guess
begins with what the specification says of the port (`codec_of`), and falls back to the bytes.
"""

import codecs
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from shoal import spec
from shoal.job.codec import AUTO, composite_of, flesh
from shoal.job.error import CodecError
from shoal.job.ndarray import described

_HEX_BYTES = 32
_TEXT_CHARACTERS = 400
_DAMAGED = (ValueError, KeyError, IndexError, TypeError, struct.error, RecursionError)


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """A record as it was understood.

    `kind` is `text`, `json`, `value` (of the SDK) or `bytes`; `value` is something that JSON has:
    the text, the value, or the bytes in hex. `shown` is one line for people, `headers` what it
    carried beside it.
    """

    kind: str
    value: Any
    shown: str
    headers: Mapping[str, Any] | None = None


def codec_of(pipeline: spec.Pipeline, job: str, port: str) -> str:
    """Say what the records of an output port most likely are: `auto` between programs of the SDK.

    A raw format at one end means plain bytes, as the agent tells the SDK too.

    Raises:
        KeyError: There is no such job.
    """
    outputs = [one for one in pipeline.job(job).outputs if one.name == port]
    readers = [stream.binding.format for _, stream in pipeline.readers(job, port)]
    plain = spec.PortFormat.BLOCKS not in readers and bool(readers)
    if plain or any(one.binding.format is not spec.PortFormat.BLOCKS for one in outputs):
        return "raw"
    return "auto"


def read_record(data: bytes, size_bytes: int, *, headers: bool, codec: str) -> ReadRecord:
    """Understand a record, of which `data` is the beginning and `size_bytes` the whole length."""
    carried: Mapping[str, Any] | None = None
    if headers and len(data) >= 2:
        cut = 2 + int.from_bytes(data[:2], "little")
        try:
            carried = cast("Mapping[str, Any]", json.loads(data[2:cut]))
        except ValueError:
            carried = {}
        data, size_bytes = data[cut:], size_bytes - cut
    kind, value, shown = _understood(data, size_bytes, codec)
    if len(shown) > _TEXT_CHARACTERS:
        shown = f"{shown[:_TEXT_CHARACTERS]}… ({len(shown):,} characters)"
    return ReadRecord(kind, value, shown, carried)


def _understood(data: bytes, size: int, codec: str) -> tuple[str, Any, str]:
    whole = len(data) >= size
    if codec == "auto" and data:
        found = _auto(data, size)
        if found is not None:
            return found
    try:
        # What was cut anywhere may end within a character.
        text = codecs.getincrementaldecoder("utf-8")().decode(data, final=whole)
    except UnicodeDecodeError:
        text = None
    if text is None or not _printable(text):
        more = "…" if size > _HEX_BYTES else ""
        return "bytes", data.hex(), f"{size:,} bytes {data[:_HEX_BYTES].hex(' ', 4)}{more}"
    if codec == "json" and whole:
        try:
            return "json", json.loads(text), text
        except ValueError:
            pass
    if whole:
        return "text", text, text
    return "text", text, f"{text}… ({size:,} bytes)"


def _auto(data: bytes, size: int) -> tuple[str, Any, str] | None:
    """Read what the SDK writes by default, without numpy; None if it is none of that."""
    tag, body = data[:1], data[1:]
    if tag in {b"n", b"g", b"b", b"y"}:
        part = _part(data, size)
        return None if part is None else ("value", part.value, part.said)
    if tag == b"c":
        return _composite(body, size)
    if len(data) < size:
        return _beginning(body, size - 1) if tag in {b"s", b"j"} else None
    try:
        value = AUTO.decode(memoryview(data))
    except CodecError:
        return None
    if isinstance(value, str):
        return ("value", value, value if _printable(value) else json.dumps(value))
    return "value", value, json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True, slots=True, repr=False)
class _Part:
    """Bytes or an array, alone or within a value: what it is, and the same for JSON."""

    said: str
    value: Any

    def __repr__(self) -> str:
        return f"<{self.said}>"


def _part(data: bytes, size: int) -> _Part | None:
    """Describe one of which `data` is the beginning; None if it is damaged."""
    tag, body = data[:1], data[1:]
    if tag not in {b"n", b"g"}:
        more = "…" if size - 1 > max(len(body), _HEX_BYTES) else ""
        said = f"{size - 1:,} bytes {body[:_HEX_BYTES].hex(' ', 4)}{more}".rstrip()
        return _Part(said, body.hex())
    try:
        dtype, shape = described(memoryview(body))
    except (ValueError, IndexError):
        return None
    said = f"array {dtype} {'x'.join(map(str, shape)) or 'scalar'}"
    return _Part(said, {"dtype": dtype, "shape": list(shape)})


def _composite(body: bytes, size: int) -> tuple[str, Any, str] | None:
    """Read a value with arrays or bytes in it, of which only the head may be there."""
    try:
        skeleton, places = composite_of(body)
        parts = [
            _part(body[place], place.stop - place.start)
            or _Part(f"{place.stop - place.start:,} bytes", None)
            for place in places
        ]
        value = flesh(skeleton, parts)
    except _DAMAGED:
        if len(body) >= size - 1:
            return None
        return "value", None, f"a value of {size:,} bytes, too large to be shown"
    try:
        shown = json.dumps(value, ensure_ascii=False, default=repr)
        return "value", json.loads(json.dumps(value, default=lambda part: part.value)), shown
    except TypeError:  # tuples as keys
        return "value", repr(value), repr(value)


def _beginning(body: bytes, size: int) -> tuple[str, Any, str] | None:
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(body)
    return ("value", text, f"{text[:_TEXT_CHARACTERS]}… ({size:,} bytes)")


def _printable(text: str) -> bool:
    return all(character.isprintable() or character in "\t\n\r" for character in text)
