"""Single fields of decoded msgpack: taken out of maps or arrays, and checked against their bounds.

Reading is as tolerant as the real decoders were seen to be: maps or positional arrays, missing and
unknown fields, nil for zero, any integer form, `bin` as well as `raw`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from services.membership.refusal import DropReason, RefusedError

META_BYTES_MAX: Final = 512
"""Most bytes of `meta`, as upstream's MetaMaxSize."""
NAME_BYTES_MAX: Final = 1024
U16_MAX: Final = 0xFFFF
U32_MAX: Final = 0xFFFFFFFF
U64_MAX: Final = 0xFFFFFFFFFFFFFFFF


def fields(value: object, names: Sequence[bytes]) -> list[object]:
    """Lay a decoded map or positional array out in the order of `names`, None where absent.

    Raises:
        RefusedError: The value is neither.
    """
    if isinstance(value, dict):
        return [value.get(name) for name in names]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(value, list):
        row: list[object] = list(value[: len(names)])  # pyright: ignore[reportUnknownArgumentType]
        row.extend([None] * (len(names) - len(row)))
        return row
    raise RefusedError(DropReason.MALFORMED, f"body is {type(value).__name__}, not a map or array")


def number(value: object, most: int, name: str) -> int:
    """Check an integer field against 0..`most`; nil is 0.

    Raises:
        RefusedError: Not an integer, or out of range.
    """
    if value is None:
        return 0
    if not isinstance(value, int):
        raise RefusedError(
            DropReason.MALFORMED, f"{name} is {type(value).__name__}, not an integer"
        )
    if not 0 <= value <= most:
        raise RefusedError(DropReason.OUT_OF_RANGE, f"{name} is outside 0..{most}")
    return int(value)


def octets(value: object, most: int, name: str) -> bytes:
    """Check a byte field against `most` bytes; nil is empty.

    Raises:
        RefusedError: Not bytes, or too long.
    """
    if value is None:
        return b""
    if isinstance(value, str):  # a new-specification `str8` never comes out as text here
        value = value.encode("utf-8", "surrogateescape")
    if isinstance(value, list):
        value = _octets_of_list(value, name)  # pyright: ignore[reportUnknownArgumentType]
    if not isinstance(value, bytes):
        raise RefusedError(DropReason.MALFORMED, f"{name} is {type(value).__name__}, not bytes")
    if len(value) > most:
        raise RefusedError(DropReason.TOO_BIG, f"{name} has {len(value)} bytes, over {most}")
    return value


def _octets_of_list(value: list[object], name: str) -> bytes:
    """Accept an array of small integers where bytes are due, as newer Go decoders do."""
    try:
        return bytes(value)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError) as error:
        raise RefusedError(DropReason.MALFORMED, f"{name} is an array of non-bytes") from error


def text(value: object, name: str, most: int = NAME_BYTES_MAX) -> str:
    """Decode a text field; bytes that are not UTF-8 survive as surrogate escapes.

    Raises:
        RefusedError: Not text, or too long.
    """
    return octets(value, most, name).decode("utf-8", "surrogateescape")


def flag(value: object, name: str) -> bool:
    """Check a boolean field; nil is False.

    Raises:
        RefusedError: Not a boolean.
    """
    if value is None:
        return False
    if not isinstance(value, bool):
        raise RefusedError(DropReason.MALFORMED, f"{name} is {type(value).__name__}, not a boolean")
    return value


def items(value: object, most: int, name: str) -> list[object]:
    """Check an array field against `most` elements; nil is empty.

    Raises:
        RefusedError: Not an array, or too long.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise RefusedError(DropReason.MALFORMED, f"{name} is {type(value).__name__}, not an array")
    found: list[object] = value  # pyright: ignore[reportUnknownVariableType]
    if len(found) > most:
        raise RefusedError(DropReason.TOO_BIG, f"{name} has over {most} elements")
    return found


def mapping(value: object, name: str) -> dict[object, object]:
    """Check a map field; nil is empty.

    Raises:
        RefusedError: Not a map.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RefusedError(DropReason.MALFORMED, f"{name} is {type(value).__name__}, not a map")
    return value  # pyright: ignore[reportUnknownVariableType]


@lru_cache(maxsize=16384)
def host_to_octets(host: str) -> bytes:
    """Turn an address in text into 4 or 16 bytes; IPv4 always 4, empty stays empty.

    Upstream compares addresses byte by byte, so the v4-mapped form would be a conflict.

    Raises:
        ValueError: The text is no IP address.
    """
    return ipaddress.ip_address(host).packed if host else b""


@lru_cache(maxsize=16384)
def octets_to_host(packed: bytes) -> str:
    """Turn 0, 4 or 16 bytes into text; v4-mapped IPv6 becomes plain IPv4.

    Raises:
        RefusedError: Any other length.
    """
    if not packed:
        return ""
    try:
        address = ipaddress.ip_address(packed)
    except ValueError as error:
        raise RefusedError(
            DropReason.MALFORMED, f"address has {len(packed)} bytes, not 4 or 16"
        ) from error
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
