"""The queue of rumours to pass on: fewest transmits first, largest that fits, newest first.

Tiers by transmits, buckets by size within a tier: taking a packet's worth never sorts.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Entry(Generic[T]):
    """One broadcast and how often it was sent."""

    key: Hashable
    item: T
    size: int
    transmits: int = 0


class _Tier(Generic[T]):
    """The broadcasts that were sent equally often, in buckets by size."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.buckets: dict[int, dict[Hashable, _Entry[T]]] = {}

    def add(self, entry: _Entry[T]) -> None:
        bucket = self.buckets.get(entry.size)
        if bucket is None:
            self.buckets[entry.size] = bucket = {}
            insort(self.sizes, entry.size)
        bucket[entry.key] = entry

    def remove(self, entry: _Entry[T]) -> None:
        bucket = self.buckets[entry.size]
        del bucket[entry.key]
        if not bucket:
            del self.buckets[entry.size]
            self.sizes.remove(entry.size)

    def take(self, budget: int, overhead: int, most: int, taken: list[_Entry[T]]) -> int:
        """Move the largest that fit, the newest first, to `taken`; returns the budget left."""
        sizes = self.sizes
        while sizes and len(taken) < most:
            place = bisect_right(sizes, budget - overhead)
            if not place:
                break
            size = sizes[place - 1]
            bucket = self.buckets[size]
            taken.append(bucket.popitem()[1])
            budget -= size + overhead
            if not bucket:
                del self.buckets[size]
                del sizes[place - 1]
        return budget


class BroadcastQueue(Generic[T]):
    """Broadcasts that wait to be sent a limited number of times each.

    Args:
        capacity: Most that may wait; beyond it the most-sent ones are dropped.
    """

    def __init__(self, capacity: int = 65536) -> None:
        self._capacity = capacity
        self._tiers: list[_Tier[T]] = []
        self._entries: dict[Hashable, _Entry[T]] = {}
        self.dropped = 0

    def __len__(self) -> int:
        """Count what waits."""
        return len(self._entries)

    def __contains__(self, key: Hashable) -> bool:
        """Whether a broadcast under `key` still waits."""
        return key in self._entries

    def put(self, key: Hashable, item: T, size: int) -> None:
        """Queue `item` of `size` bytes; an older one under the same `key` is dropped."""
        self.discard(key)
        if len(self._entries) >= self._capacity:
            self._drop_most_sent()
        entry = _Entry(key, item, size)
        self._entries[key] = entry
        self._tier(0).add(entry)

    def discard(self, key: Hashable) -> None:
        """Drop what waits under `key`, if anything."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._tiers[entry.transmits].remove(entry)

    def take(self, budget: int, overhead: int, limit: int, most: int = 127) -> list[T]:
        """Fill a packet; what has been sent `limit` times is dropped.

        Args:
            budget: Bytes left in the packet.
            overhead: Bytes that every part costs besides its own.
            limit: Sends per broadcast.
            most: Parts left in the packet.
        """
        if not self._entries:
            return []
        taken: list[_Entry[T]] = []
        for tier in self._tiers:
            if tier.sizes:
                budget = tier.take(budget, overhead, most, taken)
        # Oldest first, so that a bucket's newest entry stays its last.
        for entry in reversed(taken):
            entry.transmits += 1
            if entry.transmits >= limit:
                del self._entries[entry.key]
            else:
                self._tier(entry.transmits).add(entry)
        return [entry.item for entry in taken]

    def _tier(self, transmits: int) -> _Tier[T]:
        while len(self._tiers) <= transmits:
            self._tiers.append(_Tier())
        return self._tiers[transmits]

    def _drop_most_sent(self) -> None:
        for tier in reversed(self._tiers):
            if tier.sizes:
                entry = next(iter(tier.buckets[tier.sizes[-1]].values()))
                self.discard(entry.key)
                self.dropped += 1
                return
