"""How many accusations one accuser may make: a well member makes one a probe interval at most."""

from __future__ import annotations


class SuspectRateLimit:
    """A token bucket for each accuser, so that one sick member cannot storm the cluster.

    Args:
        burst: Accusations at once.
        refill_seconds: One more for each of these.
        most: Accusers remembered; the longest silent is forgotten first, which only gives it
            a full bucket again.
    """

    def __init__(self, burst: int, refill_seconds: float, most: int = 1024) -> None:
        self._burst = float(burst)
        self._refill = refill_seconds
        self._most = most
        self._buckets: dict[str, tuple[float, float]] = {}

    def admit(self, accuser: str, now: float) -> bool:
        """Take a token of `accuser` if it has one left."""
        tokens, at = self._buckets.pop(accuser, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) / self._refill)
        admitted = tokens >= 1.0
        self._buckets[accuser] = (tokens - 1.0 if admitted else tokens, now)
        if len(self._buckets) > self._most:
            del self._buckets[next(iter(self._buckets))]
        return admitted
