"""Old-specification msgpack, as memberlist speaks it: raw strings, no `bin`, no `str8`.

The only place that touches the msgpack library, so that its untyped surface stays here.
Source: the msgpack specification's compatibility mode; MEMBERLIST wire facts in
`docs/membership.md`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from services.membership.refusal import DropReason, RefusedError

Value = (
    None
    | bool
    | int
    | float
    | bytes
    | str
    | Sequence["Value"]
    | Mapping[str, "Value"]
    | Mapping[bytes, "Value"]
    | Mapping[str | bytes, "Value"]
)
"""What can be packed. Text is packed as raw bytes with surrogate escapes restored."""


class _Unpacker(Protocol):
    """The part of msgpack's streaming reader that is used here."""

    def feed(self, data: bytes) -> None: ...
    def unpack(self) -> object: ...
    def read_bytes(self, count: int) -> bytes: ...
    def tell(self) -> int: ...


_msgpack = cast("Any", importlib.import_module("msgpack"))
_packb: Callable[..., bytes] = _msgpack.packb
_unpackb: Callable[..., object] = _msgpack.unpackb
_make_unpacker: Callable[..., _Unpacker] = _msgpack.Unpacker
_ExtraData: type[Exception] = _msgpack.exceptions.ExtraData
_OutOfData: type[Exception] = _msgpack.exceptions.OutOfData
_UNPACK_ERRORS = (ValueError, TypeError, OverflowError, RecursionError)

_STREAM_BUFFER_BYTES = 40 * 1024 * 1024


def pack(value: Value) -> bytes:
    """Pack in the old specification: text and bytes are both `raw`."""
    return _packb(value, use_bin_type=False, unicode_errors="surrogateescape")


def unpack(data: bytes | memoryview) -> object:
    """Unpack the first value of `data`; like the real decoders, ignore what follows it.

    Returns:
        Maps with `bytes` keys, sequences as `list`, text as `bytes`.

    Raises:
        RefusedError: The bytes are no msgpack, or lie about their lengths.
    """
    try:
        return _unpackb(data, raw=True)
    except _UNPACK_ERRORS as error:
        if isinstance(error, _ExtraData):
            return cast("Any", error).unpacked
        raise RefusedError(DropReason.MALFORMED, f"not msgpack: {type(error).__name__}") from error


class StreamUnpacker:
    """Reads msgpack values and raw runs from bytes that arrive piece by piece."""

    def __init__(self) -> None:
        """Start empty."""
        self._unpacker = _make_unpacker(raw=True, max_buffer_size=_STREAM_BUFFER_BYTES)
        self._fed = 0

    def feed(self, data: bytes) -> None:
        """Add bytes from the stream.

        Raises:
            RefusedError: More than 40 MiB wait unread.
        """
        try:
            self._unpacker.feed(data)
        except Exception as error:  # msgpack.BufferFull derives from Exception alone
            raise RefusedError(DropReason.TOO_BIG, "stream buffer over 40 MiB") from error
        self._fed += len(data)

    def value(self) -> tuple[bool, object]:
        """Take one value: `(True, value)`, or `(False, None)` when more bytes are needed.

        Raises:
            RefusedError: The bytes are no msgpack.
        """
        try:
            return True, self._unpacker.unpack()
        except _OutOfData:
            return False, None
        except _UNPACK_ERRORS as error:
            raise RefusedError(
                DropReason.MALFORMED, f"not msgpack: {type(error).__name__}"
            ) from error

    @property
    def position(self) -> int:
        """Bytes consumed so far."""
        return self._unpacker.tell()

    def raw(self, count: int) -> tuple[bool, bytes]:
        """Take `count` raw bytes: `(True, bytes)`, or `(False, b"")` when they have not all arrived."""
        there = self._fed - self._unpacker.tell() >= count
        return there, self._unpacker.read_bytes(count) if there and count else b""
