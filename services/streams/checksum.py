"""CRC-32C, whole, continued and put together from parts without looking at the bytes again.

Source: RFC 3720, appendix B.4 (the polynomial); M. Adler's crc32_combine in zlib (that a CRC is a
remainder, so that bytes which follow only multiply it by a power of x).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import google_crc32c

_POLYNOMIAL = 0x82F63B78  # of CRC-32C, the highest power in the lowest bit
_ONE = 1 << 31
_PIECE_BYTES = 256 * 1024
_COPY_BYTES = 16 * 1024  # copying fewer bytes costs less than doing without

# The package is without annotations of its own, and takes nothing but bytes.
_value: Callable[[bytes], int] = cast("Any", google_crc32c).value
_extend: Callable[[int, bytes], int] = cast("Any", google_crc32c).extend


def crc32c(data: bytes | memoryview) -> int:
    """Return CRC-32C of `data`; a view is never copied as a whole."""
    if isinstance(data, bytes):
        return _value(data)
    crc = 0
    for at in range(0, len(data), _PIECE_BYTES):
        crc = _extend(crc, bytes(data[at : at + _PIECE_BYTES]))
    return crc


def extended(crc: int, data: bytes) -> int:
    """Return CRC-32C of what `crc` is of, followed by `data`."""
    return _extend(crc, data)


def joined(first: int, second: int, second_bytes: int) -> int:
    """Return CRC-32C of two strings of bytes, one after the other, from that of each.

    Args:
        first: CRC-32C of the first.
        second: CRC-32C of the second.
        second_bytes: length of the second.
    """
    return _product(first, _power(second_bytes)) ^ second


def tail(data: bytes, at: int) -> int:
    """Return CRC-32C of `data` from `at` to its end."""
    length = len(data) - at
    if length < _COPY_BYTES:
        return _value(data[at:])
    return _value(data) ^ _product(_value(data[:at]), _power(length))


def _power(length: int) -> int:
    """Return x to the power of 8 * `length`, modulo the polynomial."""
    power, byte = _ONE, 0
    while length:
        if length & 255:
            power = _product(power, _byte_power(byte, length & 255))
        length >>= 8
        byte += 1
    return power


@lru_cache(maxsize=1024)
def _byte_power(byte: int, value: int) -> int:
    """Return x to the power of 8 * `value` * 256 to the power of `byte`, modulo the polynomial."""
    power, square = _ONE, _ONE >> 8
    exponent = value << 8 * byte
    while exponent:
        if exponent & 1:
            power = _product(power, square)
        square = _product(square, square)
        exponent >>= 1
    return power


def _product(one: int, two: int) -> int:
    """Return the product of two polynomials over GF(2), modulo the polynomial."""
    product = 0
    while one:
        if one & _ONE:
            product ^= two
        one = one << 1 & 0xFFFF_FFFF
        two = two >> 1 ^ _POLYNOMIAL if two & 1 else two >> 1
    return product
