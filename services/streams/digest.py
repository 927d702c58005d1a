"""A digest over the records of a lane, whichever way they were cut into blocks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from services.streams.block import Block, Body, lengths, plain
from services.streams.checksum import crc32c, extended, joined

_LARGE_BYTES = 16 * 1024  # from here on it costs less to reckon with the checksum of the block


@dataclass(frozen=True, slots=True)
class Digest:
    """Two CRC-32C over consecutive records, `first` being the sequence of the first one.

    `table` is that of their entries in the tables of blocks, `data` that of their bytes.
    """

    first: int
    table: int = 0
    data: int = 0

    def with_bytes(self, table: bytes, data: bytes) -> Digest:
        """Return the digest with these entries and these records behind those so far."""
        return Digest(self.first, extended(self.table, table), extended(self.data, data))

    def after(self, block: Block) -> Digest:
        """Return the digest with the records of a DATA block behind those so far."""
        at = 4 * block.count
        body = block.body
        table = bytes(body[:at])
        size = len(body) - at
        if size < _LARGE_BYTES:
            data = extended(self.data, bytes(body[at:]))
        else:
            crc = crc32c(body) if block.crc is None else block.crc
            # What the checksum of the body owes to the table goes out again.
            data = joined(self.data, joined(crc32c(table), crc, size), size)
        return Digest(self.first, extended(self.table, table), data)

    def after_some(self, block: Block, count: int) -> Digest:
        """Return the digest with the first `count` records of a DATA block behind those so far."""
        if count >= block.count:
            return self.after(block)
        body = plain(block.body)
        at = 4 * block.count
        data = body[at : at + sum(lengths(block)[:count])]
        return self.with_bytes(body[: 4 * count], data)


class Checked(Protocol):
    """A block whose checksum is reckoned when it is first sent between nodes."""

    count: int
    size: int
    crc: int | None


@dataclass(slots=True)
class _Known:
    """Records after a block that is not reckoned yet: checksums and lengths of both strings."""

    digest: Digest
    table_bytes: int
    data_bytes: int


@dataclass(slots=True)
class _Open:
    """A block that is not reckoned yet, and the checksum of its table."""

    block: Checked
    table: int


class RunningDigest:
    """Counts the blocks of a log, also those whose checksum was not needed so far.

    A large block that only ever passes within one node is never reckoned; then there is no digest.

    Args:
        first: sequence of the first record.
    """

    def __init__(self, first: int = 0) -> None:
        self._digest: Digest | None = Digest(first)
        self._waiting: deque[_Known | _Open] = deque()

    def add(self, table: Body, data: Body) -> None:
        """Count a small block, given as its table and its records."""
        self._settle()
        if self._digest is None:
            return
        if not self._waiting:
            self._digest = self._digest.with_bytes(plain(table), plain(data))
            return
        last = self._waiting[-1]
        if isinstance(last, _Open):
            last = _Known(Digest(0), 0, 0)
            self._waiting.append(last)
        last.digest = last.digest.with_bytes(plain(table), plain(data))
        last.table_bytes += len(table)
        last.data_bytes += len(data)

    def add_later(self, block: Checked, body: Body) -> None:
        """Count a large block, whose checksum is known once it has been sent between nodes."""
        if self._digest is not None:
            self._waiting.append(_Open(block, crc32c(body[: 4 * block.count])))
            self._settle()

    def gone(self, block: Checked) -> None:
        """Drop a block; if its checksum was never reckoned, there is no digest from now on."""
        if block.crc is None and any(
            isinstance(one, _Open) and one.block is block for one in self._waiting
        ):
            self._digest = None
            self._waiting.clear()

    def digest(self) -> Digest | None:
        """Return the digest of everything so far, if it is known."""
        self._settle()
        return None if self._waiting else self._digest

    def _settle(self) -> None:
        while self._waiting and self._digest is not None:
            one = self._waiting[0]
            digest = self._digest
            if isinstance(one, _Known):
                table, table_bytes = one.digest.table, one.table_bytes
                data, data_bytes = one.digest.data, one.data_bytes
            elif one.block.crc is not None:
                table, table_bytes = one.table, 4 * one.block.count
                data_bytes = one.block.size - table_bytes
                data = joined(one.table, one.block.crc, data_bytes)
            else:
                return
            self._waiting.popleft()
            self._digest = Digest(
                digest.first,
                joined(digest.table, table, table_bytes),
                joined(digest.data, data, data_bytes),
            )
