"""Messages of any kind with values that a person would not think of, made from a seed.

Any message of the contract can be filled: names are good ones half of the time, so that some
messages get past their first check, and numbers are those at which something overflows.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

MessageT = TypeVar("MessageT", bound=Message)

_WHOLE = (
    0, 1, 2, 3, 7, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
_REAL = (
    0.0, -0.0, 0.5, 1.0, 4.0, -1.0, 1e-320, 3e8, 3e11, 1e18, 1e308,
    float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
_TEXTS = (
    "", "a", "b", "n1", "default", "main", "x" * 63, "x" * 64, "../x", "/etc", "a/b", "é", "\0",
    "a\nb", "💥" * 50, "٣", "true", "results/**", "[" * 200, "9" * 5000, "ab" * 32, "EXIT",
    "https://h/x", "s3://b/k", "default/pipelines/p/x", "127.0.0.1:1", "bundles/sha256/x",
    "y" * 3000,
)  # fmt: skip
_BYTES = (b"", b"x", b"\0" * 64, b"\xff" * 300)
_LARGE_ITEMS = 12

_RANGES: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


class Hostile:
    """Fills messages.

    Args:
        rng: where chance comes from.
        texts: further texts, such as names that exist; any call may return another list.
    """

    def __init__(self, rng: Random, texts: Callable[[], Sequence[str]] = tuple) -> None:
        self._rng = rng
        self._texts = texts

    def message(self, kind: type[MessageT], depth: int = 5) -> MessageT:
        """A message of that kind, as a peer would receive it."""
        message = kind()
        self._fill(message, depth)
        return kind.FromString(message.SerializeToString())

    def spoil(self, message: Message, share: float) -> None:
        """Give about that share of the fields of a message, wherever they lie, another value."""
        for field in message.DESCRIPTOR.fields:
            if self._rng.random() < share:
                message.ClearField(field.name)
                self._put(message, field, 2)
            elif field.message_type is None or field.message_type.GetOptions().map_entry:
                continue
            elif field.is_repeated:
                for item in getattr(message, field.name):
                    self.spoil(item, share)
            elif message.HasField(field.name):
                self.spoil(getattr(message, field.name), share)

    def chance(self) -> float:
        """A number from 0 to below 1."""
        return self._rng.random()

    def _fill(self, message: Message, depth: int) -> None:
        for field in self._chosen(message):
            self._put(message, field, depth)

    def _put(self, message: Message, field: Any, depth: int) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._fill_map(getattr(message, field.name), field, depth)
        elif field.is_repeated:
            items = getattr(message, field.name)
            for _ in range(self._count()):
                if field.message_type is None:
                    items.append(self._single(field))
                elif depth:
                    self._fill(items.add(), depth - 1)
        elif field.message_type is None:
            setattr(message, field.name, self._single(field))
        elif depth:
            below = getattr(message, field.name)
            below.SetInParent()
            self._fill(below, depth - 1)

    def _chosen(self, message: Message) -> list[Any]:
        """Most fields, and at most one of each oneof."""
        chosen = [
            field
            for field in message.DESCRIPTOR.fields
            if field.containing_oneof is None and self._rng.random() < 0.8
        ]
        oneofs = [one for one in message.DESCRIPTOR.oneofs if self._rng.random() < 0.95]
        return chosen + [self._rng.choice(one.fields) for one in oneofs]

    def _fill_map(self, items: Any, field: Any, depth: int) -> None:
        key, value = (
            field.message_type.fields_by_name["key"],
            field.message_type.fields_by_name["value"],
        )
        for _ in range(self._count()):
            if value.message_type is None:
                items[self._single(key)] = self._single(value)
            elif depth:
                self._fill(items[self._single(key)], depth - 1)

    def _count(self) -> int:
        return self._rng.choice((0, 1, 1, 1, 2, 3, self._rng.randrange(_LARGE_ITEMS)))

    def _single(self, field: Any) -> Any:
        rng = self._rng
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
                return rng.choice(_BYTES)
            case FieldDescriptor.CPPTYPE_STRING:
                known = self._texts()
                if known and rng.random() < 0.5:
                    return rng.choice(known)
                return rng.choice((*_TEXTS, f"n{rng.randrange(10**6)}"))
            case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
                return rng.choice((*_REAL, rng.random() * 10))
            case FieldDescriptor.CPPTYPE_BOOL:
                return rng.random() < 0.5
            case FieldDescriptor.CPPTYPE_ENUM:
                numbers = [value.number for value in field.enum_type.values]
                return rng.choice((*numbers, *numbers, 99, -1))
            case kind:
                least, most = _RANGES[kind]
                number = rng.choice((*_WHOLE, -1, -(2**31), -(2**63), 253_402_300_800))
                return min(max(number, least), most)
