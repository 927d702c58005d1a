"""What is taken once and remembered for a while: user events, which are replayed to members that join, and queries."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

ItemT = TypeVar("ItemT")

_SLOTS: Final = 512
"""Lamport times remembered, and things remembered of each; what is older is not accepted any more."""


class RecentLog(Generic[ItemT]):
    """What was heard in the recent past, by Lamport time and a key."""

    def __init__(self) -> None:
        self._heard: dict[int, dict[Hashable, ItemT]] = {}

    @property
    def recent(self) -> tuple[ItemT, ...]:
        """What is remembered, oldest first."""
        return tuple(item for time in sorted(self._heard) for item in self._heard[time].values())

    def note(self, time: int, key: Hashable, item: ItemT, clock: int) -> bool:
        """Remember an item; False if its key is known at that time, or the time is too old for `clock`."""
        if time + _SLOTS < clock:
            return False
        at = self._heard.setdefault(time, {})
        if key in at or len(at) >= _SLOTS:
            return False
        at[key] = item
        if len(self._heard) > _SLOTS:
            del self._heard[min(self._heard)]
        return True
