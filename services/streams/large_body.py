"""A large body that is put together piece by piece, so that no step takes long."""

import io

from services.streams.checksum import extended, joined, tail

_AHEAD_BYTES = 33 * 1024 * 1024
"""Reserved at once. What is larger lies in pages of its own, which the C library moves uncopied."""


class LargeBody:
    """Bytes whose number is known before they are there, and their CRC-32C.

    The bytes are written where they stay: taking them out copies nothing.

    Args:
        size: how many bytes there will be; above 0.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._bytes = io.BytesIO()
        self._bytes.seek(min(size, _AHEAD_BYTES) - 1)
        self._bytes.write(b"\0")
        self._bytes.seek(0)
        self.filled = 0
        """How many bytes are there."""
        self.crc = 0
        """CRC-32C of the bytes that are there."""

    @property
    def missing(self) -> int:
        """How many bytes are still to come."""
        return self._size - self.filled

    def add(self, piece: bytes) -> None:
        """Take the next bytes; never more than are missing."""
        self.crc = extended(self.crc, piece)
        self._put(piece)

    def add_tail(self, data: bytes, at: int) -> None:
        """Take the bytes from `at` to the end of `data`; never more than are missing."""
        self.crc = joined(self.crc, tail(data, at), len(data) - at)
        self._put(memoryview(data)[at:])

    def take(self) -> bytes:
        """Return the bytes, once all are there; the body is of no use afterwards."""
        data = self._bytes.getvalue()
        self._bytes = io.BytesIO()
        return data

    def _put(self, piece: bytes | memoryview) -> None:
        self._bytes.write(piece)
        self.filled += len(piece)
