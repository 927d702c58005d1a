"""How many calls each of many callers may begin a second, and when one that may not yet may try again."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from services.runtime.token_bucket import TokenBucket

CALLERS_MAX: Final = 10_000
"""Callers whose calls are remembered; beyond it, the one that has called for the longest time not is forgotten."""


class CallRates:
    """Counts calls by their callers; each begins with twice what it may begin a second, and one at least.

    Args:
        per_second: calls that each may begin a second, above 0.
        clock: monotonic seconds.
    """

    def __init__(self, per_second: float, clock: Callable[[], float]) -> None:
        self.per_second: Final = per_second
        self._clock = clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        """How many callers are remembered."""
        return len(self._buckets)

    def count(self, caller: str) -> float:
        """Count a call: 0 if it may begin; else it is not counted, and may begin in so many seconds."""
        now = self._clock()
        bucket = self._buckets.get(caller)
        if bucket is None:
            if len(self._buckets) >= CALLERS_MAX:
                self._buckets.popitem(last=False)
            most = max(1.0, 2 * self.per_second)
            bucket = self._buckets[caller] = TokenBucket(most, self.per_second, most, now)
        else:
            self._buckets.move_to_end(caller)
        return 0.0 if bucket.take(1.0, now) else bucket.seconds_until(1.0)
