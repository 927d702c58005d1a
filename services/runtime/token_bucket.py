"""How much a caller may take: so much at once, and what refills since."""

import math
from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """A bucket that begins full.

    Attributes:
        capacity: what it holds at most, above 0.
        per_second: what it gains.
        left: what is in it at `at`.
        at: monotonic seconds of the last look.
    """

    capacity: float
    per_second: float
    left: float
    at: float

    def take(self, amount: float, now: float) -> bool:
        """Take an amount if it is there; nothing otherwise."""
        self.left = min(self.capacity, self.left + (now - self.at) * self.per_second)
        self.at = now
        if amount > self.left:
            return False
        self.left -= amount
        return True

    def seconds_until(self, amount: float) -> float:
        """Say how long after the last look an amount will be there; infinite for more than it ever holds."""
        if amount > self.capacity:
            return math.inf
        return max(0.0, amount - self.left) / self.per_second
