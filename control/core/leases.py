"""Leases: how long a node's silence is tolerated, on one monotonic clock.

A lease is per node and renewed by any message. Time in which the controller itself stood still
(paused, starved, stuck on its disk) does not count against a node: the controller could not have listened.
"""

from __future__ import annotations

import heapq


class Leases:
    """The leases of all nodes; times in seconds on the caller's monotonic clock.

    Args:
        lease_seconds: How long a silence may last.
        pause_seconds: A longer time between two calls is a pause of our own.
        now: When this begins.

    Raises:
        ValueError: A time is not positive.
    """

    def __init__(self, lease_seconds: float, pause_seconds: float, now: float) -> None:
        if lease_seconds <= 0 or pause_seconds <= 0:
            raise ValueError(
                f"lease_seconds is {lease_seconds} and pause_seconds {pause_seconds}: "
                "both must be above 0"
            )
        self.lease_seconds = lease_seconds
        self._pause_seconds = pause_seconds
        self._heard: dict[str, float] = {}
        # Lazy: an entry says when to look at the node again, not when its lease runs out.
        self._looks: list[tuple[float, str]] = []
        self._called_at = now
        self._forgiven = 0.0

    def renew(self, node: str, now: float) -> None:
        """Hear from a node; its first time begins its lease."""
        self._listen(now)
        known = node in self._heard
        self._heard[node] = now - self._forgiven
        if not known:
            heapq.heappush(self._looks, (now - self._forgiven + self.lease_seconds, node))

    def end(self, node: str) -> None:
        """Forget a node's lease, expired or not."""
        self._heard.pop(node, None)

    def holds(self, node: str) -> bool:
        """Whether the node has a lease that was not found expired."""
        return node in self._heard

    def silence_seconds(self, node: str, now: float) -> float:
        """How long nothing was heard of a node while the controller listened; 0 without lease."""
        heard = self._heard.get(node)
        return 0.0 if heard is None else max(0.0, now - self._forgiven - heard)

    def expires_at(self, node: str) -> float | None:
        """When the lease runs out if nothing more is heard, or None without lease."""
        heard = self._heard.get(node)
        return None if heard is None else heard + self._forgiven + self.lease_seconds

    def advance(self, now: float) -> tuple[str, ...]:
        """Let time pass: returns the nodes whose leases ran out, by name; these leases have ended.

        A node may hold no lease twice: call `renew` when it is heard again.
        """
        self._listen(now)
        own = now - self._forgiven
        expired: list[str] = []
        while self._looks and self._looks[0][0] <= own:
            _, node = heapq.heappop(self._looks)
            heard = self._heard.get(node)
            if heard is None:
                continue
            if heard + self.lease_seconds <= own:
                del self._heard[node]
                expired.append(node)
            else:
                heapq.heappush(self._looks, (heard + self.lease_seconds, node))
        return tuple(sorted(expired))

    def listened(self, now: float) -> float:
        """A moment on a clock that stands still whenever the controller does."""
        return now - self._forgiven

    def moment(self, listened: float) -> float:
        """The moment that `listened` stands for, if the controller does not stand still again."""
        return listened + self._forgiven

    def forgive(self, seconds: float) -> None:
        """Leave out a time in which what nodes said was not taken."""
        self._forgiven += seconds

    def _listen(self, now: float) -> None:
        """Leave out the time in which the controller did not look at anything, if a node was waited for."""
        gap = now - self._called_at
        self._called_at = now
        if gap > self._pause_seconds and self._heard:
            self._forgiven += gap

    def deadline(self) -> float | None:
        """When `advance` is next wanted, or None while no lease is held."""
        return self._looks[0][0] + self._forgiven if self._looks else None
