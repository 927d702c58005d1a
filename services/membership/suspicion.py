"""One suspicion: a timer that independent confirmations shorten (Lifeguard, section IV-B)."""

from __future__ import annotations

import math


class Suspicion:
    """How long one member may stay suspect before it is declared dead.

    Args:
        accuser: Who accused first; its word does not count again.
        incarnation: The accused's incarnation at the time.
        started: When it began, in seconds.
        wanted: Confirmations `k` that bring it to `least_seconds`.
        least_seconds: Timeout with all confirmations, or at once if `k` is 0.
        most_seconds: Timeout with none.
    """

    __slots__ = ("_accusers", "_least", "_most", "_wanted", "confirmed", "incarnation", "started")

    def __init__(
        self,
        accuser: str,
        incarnation: int,
        started: float,
        *,
        wanted: int,
        least_seconds: float,
        most_seconds: float,
    ) -> None:
        self._accusers = {accuser}
        self.incarnation = incarnation
        self.started = started
        self._wanted = wanted
        self._least = least_seconds
        self._most = most_seconds
        self.confirmed = 0

    def confirm(self, accuser: str) -> bool:
        """Count a further accuser; False if it is known or no more are wanted."""
        if self.confirmed >= self._wanted or accuser in self._accusers:
            return False
        self._accusers.add(accuser)
        self.confirmed += 1
        return True

    def deadline(self) -> float:
        """When the suspicion ends, in seconds on the clock of `started`.

        `max - (max - min) * ln(c + 1) / ln(k + 1)`, cut to milliseconds, never below min.
        """
        if self._wanted < 1:
            return self.started + self._least
        share = math.log(self.confirmed + 1) / math.log(self._wanted + 1)
        timeout = self._most - share * (self._most - self._least)
        return self.started + max(self._least, math.floor(timeout * 1000) / 1000)

    def postpone(self, seconds: float) -> None:
        """Shift it, because this process did not run for that long and could hear no refutation."""
        self.started += seconds
