"""How fast all uploads of a node together may be: decided here.

A bucket of tokens that is written as the moment from which the next byte may go (the "virtual
scheduling" of GCRA, ITU-T I.371): each amount moves that moment on by what it takes at the rate. What
was not used is lost after `burst_seconds`, so that a pause is not made up for by a flood.
"""

import math
from dataclasses import dataclass


@dataclass(slots=True)
class UploadRate:
    """Attributes say bytes per second (infinite for no limit) and how much of a pause may be made up for."""

    bytes_per_second: float = math.inf
    burst_seconds: float = 0.25
    _free_at: float = -math.inf

    def delay_seconds(self, size_bytes: int, now: float) -> float:
        """Take an amount, and return how long to wait before it is sent."""
        begin = max(self._free_at, now - self.burst_seconds)
        self._free_at = begin + size_bytes / self.bytes_per_second
        return max(0.0, begin - now)

    def piece_bytes(self, most: int) -> int:
        """Return how much to send in one go: at most so much, and no more than a tenth of a second's."""
        if math.isinf(self.bytes_per_second):
            return most
        return max(1, min(most, int(self.bytes_per_second / 10)))
