"""Reads LZW as Go's `compress/lzw` writes it: least significant bit first, eight-bit literals.

Codes start at nine bits, 256 clears the table, 257 ends the stream, and the width grows when the
count of codes reaches the next power of two. Source: the GIF89a specification, appendix F, and
the golden vectors in `tests/unit/membership`. We send nothing compressed: small gossip packets
hardly shrink, and LZW in Python costs 0.2 ms for a full packet.
"""

from __future__ import annotations

from typing import Final

from services.membership.refusal import DropReason, RefusedError

_CLEAR: Final = 256
_END: Final = 257
_FIRST: Final = 258
_WIDTH_MAX: Final = 12
_TABLE_MAX: Final = 1 << _WIDTH_MAX
_LITERALS: Final = tuple(bytes((value,)) for value in range(256))


class Decompressor:
    """Decompresses piece by piece, so that a large exchange need not hold the event loop.

    Args:
        most: Most bytes that may come out; a bomb is refused as soon as it passes them.
    """

    def __init__(self, most: int) -> None:
        """Start with an empty table."""
        self._most = most
        self._bits = 0
        self._filled = 0
        self._width = 9
        self._table: list[bytes] = [*_LITERALS, b"", b""]
        self._previous = b""
        self._out = bytearray()
        self.ended = False

    @property
    def output(self) -> bytes:
        """Everything decompressed so far."""
        return bytes(self._out)

    def feed(self, data: bytes) -> None:
        """Decompress more; what follows the end mark is ignored.

        Raises:
            RefusedError: An impossible code, or more output than allowed.
        """
        bits, filled, width = self._bits, self._filled, self._width
        table, previous, out = self._table, self._previous, self._out
        for value in data:
            bits |= value << filled
            filled += 8
            if filled < width:
                continue
            code = bits & ((1 << width) - 1)
            bits >>= width
            filled -= width
            if code < len(table) and code not in (_CLEAR, _END):
                entry = table[code]
            elif code == _CLEAR:
                del table[_FIRST:]
                width = 9
                previous = b""
                continue
            elif code == _END:
                self.ended = True
                break
            elif code == len(table) and previous and len(table) < _TABLE_MAX:
                entry = previous + previous[:1]
            else:
                raise RefusedError(
                    DropReason.BAD_COMPRESSION, f"LZW code {code} is not in the table"
                )
            out += entry
            if len(out) > self._most:
                raise RefusedError(DropReason.TOO_BIG, f"decompresses to over {self._most} bytes")
            if previous and len(table) < _TABLE_MAX:
                table.append(previous + entry[:1])
            if len(table) >= 1 << width and width < _WIDTH_MAX:
                width += 1
            previous = entry
        self._bits, self._filled, self._width = bits, filled, width
        self._previous = previous


def decompress(data: bytes, most: int) -> bytes:
    """Decompress at once.

    Raises:
        RefusedError: Malformed, not ended, or larger than `most` bytes.
    """
    stream = Decompressor(most)
    stream.feed(data)
    if not stream.ended:
        raise RefusedError(DropReason.BAD_COMPRESSION, "LZW stream has no end mark")
    return stream.output
