"""Specifications that repeat, which most do: each is written and read once.

Theory. A pipeline of one `/bin/true` costs about nothing to run, but its specification has thirty fields, and it
travels with the submission, with the answer, and with each picture of the pipeline in a watch.

Rules. What is read is found by its bytes: equal bytes mean an equal specification. What is written is found by its
identity, since a specification cannot be hashed, and only if it is frozen all the way down; mappings, which a
caller may have kept and filled since, are compared with how they were.

Invariant. Nothing old is ever returned: not for other bytes, and not for a specification that was changed.

Bounds. A few hundred small specifications and a few large ones, least recently used first out.
"""

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

from shoal import spec
from shoal.v1 import spec_pb2
from shoal.wire.codec import NounCodec
from shoal.wire.fields import WireError
from shoal.wire.spec import decode_pipeline_spec, encode_pipeline_spec

SMALL_BYTES: Final = 16 * 1024
"""A specification up to this size is small."""

SMALL_KEPT: Final = 256
LARGE_KEPT: Final = 4

ValueT = TypeVar("ValueT")
_Items = list[tuple[str, type, object]]
_Copies = list[tuple[Mapping[str, object], _Items]]
"""Mappings of a specification, each with what was in it: the order and the types, too, since 1 equals True."""


def _decode(data: bytes) -> spec.Pipeline:
    return decode_pipeline_spec(spec_pb2.PipelineSpec.FromString(data), "")


_small = lru_cache(SMALL_KEPT)(_decode)
_large = lru_cache(LARGE_KEPT)(_decode)


def decode_known_spec(message: spec_pb2.PipelineSpec, path: str = "spec") -> spec.Pipeline:
    """Read a specification; the same bytes give the same object while they are remembered.

    Raises:
        WireError: a field breaks the contract.
    """
    return decode_spec_bytes(message.SerializeToString(), message, path)


def decode_spec_bytes(
    data: bytes, message: spec_pb2.PipelineSpec, path: str = "spec"
) -> spec.Pipeline:
    """Read a specification that is encoded already; `message` is the same.

    Raises:
        WireError: a field breaks the contract.
    """
    try:
        return _small(data) if len(data) <= SMALL_BYTES else _large(data)
    except WireError:  # which names fields from the top of the message
        return decode_pipeline_spec(message, path)


@dataclass(slots=True)
class _Written:
    pipeline: spec.Pipeline
    """Held, so that no other object has its identity."""
    copies: _Copies
    message: spec_pb2.PipelineSpec
    made: dict[Callable[[spec.Pipeline], object], object]
    """What functions made of it."""


class _Shelf:
    """Written specifications by identity, the least recently used first.

    Threads may use it at once: each step is one of the interpreter's own, and what is lost is written again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._written: dict[int, _Written] = {}

    def find(self, pipeline: spec.Pipeline) -> _Written | None:
        """Return a specification that is as it was."""
        written = self._written.pop(id(pipeline), None)
        if written is None:
            return None
        for mapping, items in written.copies:
            if (mapping or items) and _items(mapping) != items:
                return None
        self._written[id(pipeline)] = written  # behind all others
        return written

    def keep(self, written: _Written) -> None:
        """Remember one, and forget the one that was not asked for the longest."""
        self._written[id(written.pipeline)] = written
        if len(self._written) > self._most:
            oldest, *_ = tuple(self._written)
            self._written.pop(oldest, None)


_SMALL: Final = _Shelf(SMALL_KEPT)
_LARGE: Final = _Shelf(LARGE_KEPT)


def encode_known_spec(pipeline: spec.Pipeline) -> spec_pb2.PipelineSpec:
    """Write a specification; the message is shared, so it is copied into another one and never changed."""
    written = _written(pipeline)
    return encode_pipeline_spec(pipeline) if written is None else written.message


def made_of_spec(pipeline: spec.Pipeline, make: Callable[[spec.Pipeline], ValueT]) -> ValueT:
    """Return what a function makes of a specification, once for as long as that is remembered.

    Args:
        pipeline: the specification.
        make: one of the few functions of a module; what it returns depends on the specification alone.
    """
    try:
        written = _written(pipeline)
    except ValueError:  # it cannot be written; `make` may say why
        written = None
    if written is None:
        return make(pipeline)
    if make not in written.made:
        written.made[make] = make(pipeline)
    return cast("ValueT", written.made[make])


def _written(pipeline: spec.Pipeline) -> _Written | None:
    """Return a specification with its message; None if it may change and so is not remembered."""
    found = _SMALL.find(pipeline) or _LARGE.find(pipeline)
    if found is not None:
        return found
    copies = _copies(pipeline)
    if copies is None:
        return None
    message = encode_pipeline_spec(pipeline)
    written = _Written(pipeline, copies, message, {})
    (_SMALL if message.ByteSize() <= SMALL_BYTES else _LARGE).keep(written)
    return written


KNOWN_SPEC = NounCodec(encode_known_spec, decode_known_spec)

_WORDS: Final = frozenset({str, int, float, bool, bytes, type(None)})
_MAPPINGS: Final = frozenset({dict, MappingProxyType})
_ROWS: Final = frozenset({tuple, frozenset})


def _copies(value: object) -> _Copies | None:
    """Return all mappings within a value, each with a copy; None if something else in it may change."""
    found: _Copies = []
    return found if _collect(value, found) else None


def _collect(value: object, found: _Copies) -> bool:
    kind: Any = type(value)
    if kind in _MAPPINGS:
        mapping = cast("Mapping[str, object]", value)
        found.append((mapping, _items(mapping)))
        return all(type(one) in _WORDS for one in mapping.values())
    parts: Iterable[object]
    if kind in _ROWS:
        parts = cast("Iterable[object]", value)
    elif (read := _reader(kind)) is not None:
        parts = read(value)
    else:
        return False
    return all(type(part) in _WORDS or _collect(part, found) for part in parts)


@lru_cache(256)
def _reader(kind: Any) -> Callable[[object], Iterable[object]] | None:
    """Return what reads the fields of a frozen dataclass, or those of an enumeration: none; else None."""
    if issubclass(kind, enum.Enum):
        return lambda _: ()
    if not (is_dataclass(kind) and cast("Any", kind).__dataclass_params__.frozen):
        return None
    names = [field.name for field in fields(kind)]
    return attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)


def _items(mapping: Mapping[str, object]) -> _Items:
    return [(name, type(one), one) for name, one in mapping.items()] if mapping else []
