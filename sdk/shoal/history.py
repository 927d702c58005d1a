"""Coarse figures of a week, as a controller keeps them by itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ClusterHistory:
    """Series by name, a number for each slot from `begin_time` on; NaN where nothing was written."""

    begin_time: datetime
    slot_seconds: int
    series: Mapping[str, tuple[float, ...]]
