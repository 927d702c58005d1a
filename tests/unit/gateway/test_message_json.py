"""JSON of each message of the contract is that of Google's library."""

import json
import math
from random import Random
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToJson, Parse
from google.protobuf.message import Message

from services.gateway.contract import OFFERED
from services.gateway.message_json import json_of
from shoal.v1 import pipeline_pb2

TEXTS = ("", "a", 'quote " and \\ back', "\x00\x1f\x7f", "ümläut 鱼 🐟", "</script>", "x" * 300)
FLOATS = (0.5, -1.0, 1e300, 5e-324, math.inf, -math.inf, math.nan, 3.0, 0.1)
DEEPEST = 5


def filled(random: Random, message: Message, depth: int = 0) -> Message:
    """Set about half of the fields of a message to values of all kinds."""
    for field in message.DESCRIPTOR.fields:
        if random.random() < 0.45:
            continue
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            of_value, of_key = kind.fields_by_name["value"], kind.fields_by_name["key"]
            for _ in range(random.randrange(3)):
                key = value_of(random, of_key)
                if of_value.message_type is None:
                    getattr(message, field.name)[key] = value_of(random, of_value)
                elif depth < DEEPEST:
                    filled(random, getattr(message, field.name)[key], depth + 1)
        elif kind is not None:
            if depth >= DEEPEST:
                continue
            if field.is_repeated:
                for _ in range(random.randrange(3)):
                    fill(random, getattr(message, field.name).add(), depth + 1)
            else:
                one = getattr(message, field.name)
                one.SetInParent()
                fill(random, one, depth + 1)
        elif field.is_repeated:
            values = [value_of(random, field) for _ in range(random.randrange(4))]
            getattr(message, field.name).extend(values)
        else:
            setattr(message, field.name, value_of(random, field))
    return message


def fill(random: Random, message: Message, depth: int) -> None:
    """Fill a message within another one; moments and lengths of time have bounds."""
    if message.DESCRIPTOR.full_name.startswith("google.protobuf."):
        seconds = random.choice((0, 1, 86_400, 1_700_000_000))
        nanos = random.choice((0, 1, 500_000_000, 123_456_000))
        for name, value in (("seconds", seconds), ("nanos", nanos)):
            if name in message.DESCRIPTOR.fields_by_name:
                setattr(message, name, value)
    else:
        filled(random, message, depth)


def value_of(random: Random, field: Any) -> Any:
    """A value of one field, of which the descriptor has no public class."""
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = random.choice(TEXTS)
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        case FieldDescriptor.CPPTYPE_BOOL:
            return random.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return random.choice([*field.enum_type.values_by_number, 4321])
        case FieldDescriptor.CPPTYPE_INT32:
            return random.choice((0, 1, -(2**31), 2**31 - 1))
        case FieldDescriptor.CPPTYPE_UINT32:
            return random.choice((0, 1, 2**32 - 1))
        case FieldDescriptor.CPPTYPE_INT64:
            return random.choice((0, 1, -(2**63), 2**63 - 1))
        case FieldDescriptor.CPPTYPE_UINT64:
            return random.choice((0, 1, 2**64 - 1))
        case _:
            return random.choice(FLOATS)


@pytest.mark.parametrize("path", OFFERED)
def test_each_answer_is_written_as_googles_library_writes_it(path: str) -> None:
    for seed in range(40):
        message = filled(Random(seed), OFFERED[path].response())
        said = json_of(message)
        assert said == MessageToJson(message, indent=None)
        again = Parse(said, type(message)())
        assert again.SerializeToString(deterministic=True) == message.SerializeToString(
            deterministic=True
        )


def test_an_empty_message_and_one_of_every_sort_of_text() -> None:
    assert json_of(pipeline_pb2.Pipeline()) == "{}"
    for text in TEXTS:
        said = json_of(pipeline_pb2.Artifact(path=text))
        assert json.loads(said) == ({"path": text} if text else {})
