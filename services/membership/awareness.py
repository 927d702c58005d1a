"""How well this member itself is: 0 is well (Lifeguard's local health, section IV-A)."""

from __future__ import annotations


class Awareness:
    """A score that stretches the probe interval of a member that answers badly itself.

    Args:
        most: Scores run from 0 to `most - 1`.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.score = 0

    def apply(self, delta: int) -> None:
        """Move the score by `delta` within its range."""
        self.score = max(0, min(self._most - 1, self.score + delta))

    def scale(self, seconds: float) -> float:
        """Stretch an interval: `seconds * (score + 1)`."""
        return seconds * (self.score + 1)
