"""How often a duration was how long, in a few integers."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

YEAR_SECONDS: Final = 366 * 86_400.0
"""No duration of ours is longer: one that looks so was measured over a clock that was set."""


class Distribution:
    """Counts durations by upper bounds, as a histogram of Prometheus has them.

    Args:
        bounds: the upper bounds in seconds, inclusive, rising; what is longer than the last one counts, too.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        """How many fell under each bound and above the one before; the last are those above all."""
        self.sum = 0.0
        """Seconds of all together."""
        self.odd = 0
        """How many durations no clock can have measured: negative, or longer than a year."""

    def add(self, seconds: float) -> None:
        """Count a duration."""
        if not 0.0 <= seconds <= YEAR_SECONDS:
            self.odd += 1
            return
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def copy(self) -> "Distribution":
        """It as it is now."""
        same = Distribution(self.bounds)
        same.counts, same.sum, same.odd = list(self.counts), self.sum, self.odd
        return same
