"""What a tap shows of a port: some of the records, so that looking costs the stream nothing.

Two buckets, of records and of bytes, refill with time (as in RFC 2697, without its second rate);
a record that finds one of them empty is counted as dropped and its bytes are never touched. What
was taken waits in a list whose size the buckets bound.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.streams.block import HEADED, Block, bounds, entries

RECORDS_PER_SECOND = 1000.0
BYTES_PER_SECOND = 1024.0 * 1024
RECORD_BYTES = 64 * 1024

_WAITING_BYTES_MAX = 1024 * 1024
"""More than this does not wait to be fetched, however large the request."""

_RECORD_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """How much of a stream is wanted; see TapWish in the contract. Zeros are the defaults."""

    every: int = 1
    records_per_second: float = RECORDS_PER_SECOND
    bytes_per_second: float = BYTES_PER_SECOND
    record_bytes: int = RECORD_BYTES

    @classmethod
    def of(
        cls, every: int, records_per_second: float, bytes_per_second: float, record_bytes: int
    ) -> SampleRequest:
        """Read a request in which 0 stands for the default."""
        return cls(
            max(1, every),
            records_per_second if records_per_second > 0 else RECORDS_PER_SECOND,
            bytes_per_second if bytes_per_second > 0 else BYTES_PER_SECOND,
            min(record_bytes or RECORD_BYTES, _RECORD_BYTES_MAX),
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One record: its number on the port, its length in bytes, and how it begins."""

    sequence: int
    size: int
    data: bytes
    headers: bool


class Sampler:
    """Takes some of the records that pass.

    Args:
        request: how many of them.
        now: seconds on a monotonic clock.
    """

    def __init__(self, request: SampleRequest, now: float) -> None:
        self._request = request
        self._records = request.records_per_second
        self._bytes = request.bytes_per_second
        self._refilled_at = now
        self._waiting: list[Sample] = []
        self._waiting_bytes = 0
        self.dropped = 0
        """Records that were to be shown and were not."""

    def offer(self, block: Block, first: int, now: float) -> None:
        """Look at the records of a DATA block; `first` is the number of the first one."""
        every = self._request.every
        skip = -first % every
        wanted = (block.count - skip + every - 1) // every if block.count > skip else 0
        if not wanted:
            return
        self._refill(now)
        if self._records < 1 or self._bytes <= 0:
            self.dropped += wanted
            return
        table = entries(block)
        ends = bounds(block, table)
        for index in range(skip, block.count, every):
            start, end = ends[index], ends[index + 1]
            data_bytes = min(end - start, self._request.record_bytes)
            # A bucket that is not empty lets one record through, so that a large one is ever seen.
            if (
                self._records < 1
                or self._bytes <= 0
                or (self._waiting and self._waiting_bytes + data_bytes > _WAITING_BYTES_MAX)
            ):
                self.dropped += 1
                continue
            self._records -= 1
            self._bytes -= data_bytes
            self._waiting_bytes += data_bytes
            self._waiting.append(
                Sample(
                    first + index,
                    end - start,
                    bytes(block.body[start : start + data_bytes]),
                    bool(table[index] & HEADED),
                )
            )

    def take(self) -> list[Sample]:
        """Fetch what was taken."""
        taken, self._waiting = self._waiting, []
        self._waiting_bytes = 0
        return taken

    def _refill(self, now: float) -> None:
        passed = max(0.0, now - self._refilled_at)
        self._refilled_at = now
        request = self._request
        self._records = min(
            max(1.0, request.records_per_second),
            self._records + passed * request.records_per_second,
        )
        self._bytes = min(request.bytes_per_second, self._bytes + passed * request.bytes_per_second)
