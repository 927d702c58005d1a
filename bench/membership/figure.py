"""One measured figure and its bar."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured.

    Attributes:
        key: Short name, such as `m6_converged_seconds`.
        value: What was measured; None for "never".
        bar: What it has to reach.
        most: Whether the bar is the most (or the least) that will do.
        note: How it was measured, or what a peer reached in the same run.
    """

    key: str
    value: float | None
    bar: float
    most: bool = True
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the bar is reached."""
        if self.value is None:
            return False
        return self.value <= self.bar if self.most else self.value >= self.bar

    def line(self) -> str:
        """A line of the table."""
        value = "never" if self.value is None else f"{self.value:10.3f}"
        sign = "<=" if self.most else ">="
        verdict = "ok  " if self.passed else "MISS"
        return f"{verdict} {self.key:34} {value:>12} {sign} {self.bar:<10g} {self.note}"
