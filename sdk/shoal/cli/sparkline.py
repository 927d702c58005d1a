"""A line of bars: a series of numbers in the width of a column."""

import math
from collections.abc import Sequence
from typing import Final

_BARS: Final = "▁▂▃▄▅▆▇█"
_GAP: Final = " "


def parts_of(values: Sequence[float], width: int, *, add: bool) -> list[float]:
    """Bring a series to at most so many numbers, each of as many values as the next, but for rounding.

    Args:
        values: NaN where nothing is known.
        width: at least 1.
        add: whether a part is the sum of its values, and not their mean.

    Returns:
        NaN for a part of which nothing is known.
    """
    count = min(width, len(values))
    parts: list[float] = []
    for part in range(count):
        begin, end = part * len(values) // count, (part + 1) * len(values) // count
        known = [value for value in values[begin:end] if not math.isnan(value)]
        total = math.fsum(known)
        parts.append(math.nan if not known else total if add else total / len(known))
    return parts


def sparkline(parts: Sequence[float]) -> str:
    """Draw a bar for each number, the highest for the greatest, and a blank for NaN; all count from 0."""
    most = max((value for value in parts if not math.isnan(value)), default=0.0)
    return "".join(_bar(value, most) for value in parts)


def _bar(value: float, most: float) -> str:
    if math.isnan(value):
        return _GAP
    if most <= 0 or value <= 0:
        return _BARS[0]
    return _BARS[min(math.ceil(value / most * (len(_BARS) - 1)), len(_BARS) - 1)]
