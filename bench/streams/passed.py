"""What came of passing records once, by whatever way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Passed:
    """What came through: records, seconds from the first sending to the last arrival, milliseconds.

    `sent` is how many were sent: more than came, where a way loses some.
    """

    records: int
    seconds: float
    sent: int
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0

    @classmethod
    def told(cls, start: float, told: Mapping[str, Any], sent: int) -> Self:
        """Read what a taker printed: `end`, `records`, and how long each was on its way."""
        return cls(
            told["records"],
            told["end"] - start,
            sent,
            told.get("p50_ms", 0.0),
            told.get("p99_ms", 0.0),
            told.get("max_ms", 0.0),
        )

    @property
    def per_second(self) -> float:
        """Records a second."""
        return self.records / self.seconds

    @property
    def lost(self) -> float:
        """Share of the records that did not come."""
        return 1 - self.records / self.sent
