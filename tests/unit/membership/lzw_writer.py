"""Writes LZW as memberlist's members in Go do, for what reads it."""

from __future__ import annotations

from typing import Final

_CLEAR: Final = 256
_END: Final = 257
_TABLE_MAX: Final = 4096


def compress(data: bytes) -> bytes:
    """Compress; the output equals Go's byte for byte."""
    out = bytearray()
    bits = _CLEAR
    filled = 9
    width = 9
    counter = _END
    grow_at = 512
    table: dict[int, int] = {}
    prefix = -1
    for value in data:
        if prefix < 0:
            prefix = value
            continue
        key = prefix << 8 | value
        found = table.get(key)
        if found is not None:
            prefix = found
            continue
        bits |= prefix << filled
        filled += width
        while filled >= 8:
            out.append(bits & 0xFF)
            bits >>= 8
            filled -= 8
        prefix = value
        counter += 1
        if counter == grow_at:
            width += 1
            grow_at <<= 1
        if counter == _TABLE_MAX - 1:
            bits |= _CLEAR << filled
            filled += width
            width, counter, grow_at = 9, _END, 512
            table.clear()
            continue
        table[key] = counter
    if prefix >= 0:
        bits |= prefix << filled
        filled += width
        counter += 1
        if counter == grow_at:
            width += 1
        if counter == _TABLE_MAX - 1:
            # A full table is cleared before the end mark, at the width of the table.
            bits |= _CLEAR << filled
            filled += width
            width = 9
    bits |= _END << filled
    filled += width
    while filled > 0:
        out.append(bits & 0xFF)
        bits >>= 8
        filled -= 8
    return bytes(out)
