"""Messages of the contract as JSON, as the reference of protobuf wants it ("JSON format"), for watches that say much.

Rule: what is written for a field follows from its descriptor alone, so it is found out once and kept: its name, and a
function that writes its value. What is not of the kinds below is written by Google's library, which also reads all
JSON, and with which a test compares each message that the contract has.

Why not that library for all: it finds out for each field of each message what to do, makes dictionaries, and writes
these; that took a third of a watch's time.

Example: the field `bytes data = 3` is `"data": ` and the base64 of its value; a field that is not set is not written.
"""

import base64
import math
from collections.abc import Callable, Iterable, Mapping
from json.encoder import encode_basestring_ascii
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

_Write = Callable[[Any], str]

_TIMES: Final = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration"})
_OURS: Final = "shoal."
_KNOWN: dict[Any, tuple[str, _Write]] = {}
"""By the descriptors of fields, of which there are two classes, one of them without a public name."""


def json_of(message: Message) -> str:
    """Return a message of the contract as JSON, on one line."""
    parts: list[str] = []
    for field, value in message.ListFields():
        known = _KNOWN.get(field)
        if known is None:
            known = _KNOWN[field] = (
                f"{encode_basestring_ascii(field.json_name)}: ",
                _writer(field),
            )
        parts.append(known[0] + known[1](value))
    return "{" + ", ".join(parts) + "}"


def _writer(field: Any) -> _Write:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return _map_writer(_one(message.fields_by_name["value"]))
    return _list_writer(_one(field)) if field.is_repeated else _one(field)


def _list_writer(one: _Write) -> _Write:
    def write(values: Iterable[Any]) -> str:
        return "[" + ", ".join(map(one, values)) + "]"

    return write


def _map_writer(one: _Write) -> _Write:
    def write(values: Mapping[Any, Any]) -> str:
        pairs = (f"{encode_basestring_ascii(_key(key))}: {one(values[key])}" for key in values)
        return "{" + ", ".join(pairs) + "}"

    return write


def _key(key: str | int) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key)


def _one(field: Any) -> _Write:
    """Return what writes one value of a field."""
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return _bytes if field.type == FieldDescriptor.TYPE_BYTES else encode_basestring_ascii
        case FieldDescriptor.CPPTYPE_BOOL:
            return _bool
        case FieldDescriptor.CPPTYPE_INT32 | FieldDescriptor.CPPTYPE_UINT32:
            return str
        case FieldDescriptor.CPPTYPE_INT64 | FieldDescriptor.CPPTYPE_UINT64:
            return '"{}"'.format
        case FieldDescriptor.CPPTYPE_ENUM:
            return _enum_writer(field)
        case FieldDescriptor.CPPTYPE_MESSAGE:
            name = field.message_type.full_name
            if name in _TIMES:
                return _time
            return json_of if name.startswith(_OURS) else _other
        case _:
            return _number


def _enum_writer(field: Any) -> _Write:
    names = {
        number: encode_basestring_ascii(value.name)
        for number, value in field.enum_type.values_by_number.items()
    }
    # One that is not known is a number, as of a newer controller.
    return lambda number: names.get(number) or str(number)


def _bytes(value: bytes) -> str:
    return f'"{base64.b64encode(value).decode()}"'


def _bool(value: object) -> str:
    return "true" if value else "false"


def _number(value: float) -> str:
    if math.isfinite(value):
        return float.__repr__(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def _time(value: Any) -> str:
    return f'"{value.ToJsonString()}"'


def _other(value: Message) -> str:
    return MessageToJson(value, indent=None)
