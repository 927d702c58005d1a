"""Records as people read them: text as text, JSON as JSON, values of the SDK, else their bytes in hex.

What a record means is agreed on by the programs at both ends; the bytes do not say. So the guess
begins with what the specification says of the port (`codec_of`), and falls back to the bytes.
"""

import codecs
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from shoal import spec
from shoal.job.codec import AUTO
from shoal.job.error import CodecError
from shoal.job.ndarray import described

_HEX_BYTES = 32
_TEXT_CHARACTERS = 400


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
        found = _auto(data, whole=whole)
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


def _auto(data: bytes, *, whole: bool) -> tuple[str, Any, str] | None:
    """Read what the SDK writes by default; None if it is none of that."""
    tag, body = data[:1], data[1:]
    if tag in {b"n", b"g"}:
        return _array(body)
    if not whole:
        return None
    try:
        value = AUTO.decode(memoryview(data))
    except (CodecError, ImportError):
        return None
    if isinstance(value, str):
        return ("value", value, value if _printable(value) else json.dumps(value))
    if isinstance(value, bytes | bytearray):
        hexed = bytes(value[:_HEX_BYTES]).hex(" ", 4)
        return "value", bytes(value).hex(), f"{len(value):,} bytes {hexed}"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):  # tuples within keys, arrays within lists
        return "value", repr(value), repr(value)
    return "value", value, text


def _array(body: bytes) -> tuple[str, Any, str] | None:
    """Describe an array by its type and shape, without numpy."""
    try:
        dtype, shape = described(memoryview(body))
    except (ValueError, IndexError):
        return None
    said = f"array {dtype} {'x'.join(map(str, shape)) or 'scalar'}"
    return "value", {"dtype": dtype, "shape": list(shape)}, said


def _printable(text: str) -> bool:
    return all(character.isprintable() or character in "\t\n\r" for character in text)
