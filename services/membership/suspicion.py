"""One suspicion: a timer that independent confirmations shorten (Lifeguard, section IV-B)."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Final

_WARNINGS: Final = (0.4, 0.65, 0.85)
"""Shares of the timeout after which the accused is asked once more, by the member that suspects it.

An accused that has refuted already answers with its record. The last time it is asked over a stream, which
loses nothing. Upstream does not ask, and under heavy loss a member that missed the refutation buries the
living.
"""
_ENOUGH_MEMBERS: Final = 1000
"""From here on a refutation is sent so often that hardly any member misses it; none asks again."""


@dataclass(slots=True, eq=False)
class Suspicion:
    """How long one member may stay suspect before it is declared dead.

    Args:
        accuser: The first accuser; its word does not count again.
        incarnation: The accused's incarnation at the time.
        started: When it began, in seconds.
        wanted: Confirmations `k` that bring it to `least_seconds`.
        least_seconds: Timeout with all confirmations, or at once if `k` is 0.
        most_seconds: Timeout with none.
        members: How many there are.
    """

    accuser: InitVar[str]
    incarnation: int
    started: float
    _: KW_ONLY
    wanted: int
    least_seconds: float
    most_seconds: float
    members: InitVar[int] = 0
    confirmed: int = 0
    warned: int = field(init=False)
    _accusers: set[str] = field(init=False)

    def __post_init__(self, accuser: str, members: int) -> None:
        self._accusers = {accuser}
        self.warned = 0 if members < _ENOUGH_MEMBERS else len(_WARNINGS)

    def wants(self, accuser: str) -> bool:
        """Whether this accuser's word would count."""
        return self.confirmed < self.wanted and accuser not in self._accusers

    def confirm(self, accuser: str) -> bool:
        """Count a further accuser; False if it is known or no more are wanted."""
        if not self.wants(accuser):
            return False
        self._accusers.add(accuser)
        self.confirmed += 1
        return True

    def deadline(self) -> float:
        """When the suspicion ends, in seconds on the clock of `started`.

        `max - (max - min) * ln(c + 1) / ln(k + 1)`, cut to milliseconds, never below min.
        """
        if self.wanted < 1:
            return self.started + self.least_seconds
        share = math.log(self.confirmed + 1) / math.log(self.wanted + 1)
        timeout = self.most_seconds - share * (self.most_seconds - self.least_seconds)
        return self.started + max(self.least_seconds, math.floor(timeout * 1000) / 1000)

    def due(self) -> float:
        """When something is to be done: a warning to the accused, or at last the verdict."""
        deadline = self.deadline()
        if self.warned >= len(_WARNINGS):
            return deadline
        return self.started + _WARNINGS[self.warned] * (deadline - self.started)

    @property
    def last_warning(self) -> bool:
        """Whether the warning that was just counted is the last one."""
        return self.warned >= len(_WARNINGS)

    def postpone(self, seconds: float) -> None:
        """Shift it, because this process did not run for that long and could receive no refutation."""
        self.started += seconds
