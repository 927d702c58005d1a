"""What the store is asked for when pipelines are listed, page by page."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from shoal.model import JobState
from shoal.names import PipelineRef
from shoal.pipeline_filter import EVERY_PIPELINE, PipelineFilter
from shoal.pipeline_order import PipelineOrder

PageKey = tuple[int, ...]
"""Where a page ends: a position, or when a pipeline ended (microseconds since 1970) and its position."""


@dataclass(frozen=True, slots=True)
class PipelineQuery:
    """Which pipelines of a namespace, in which order.

    The node of the filter is not looked at: `among` has the ids of the pipelines that have an attempt there; None means
    that any will do. With `ever_on` an attempt of it was placed on that node, whenever that was. `job_states` leaves
    out those that have ended and have no job in one of these states.
    """

    namespace: str
    filter: PipelineFilter = EVERY_PIPELINE
    order: PipelineOrder = PipelineOrder.NEWEST
    among: Collection[str] | None = None
    ever_on: str = ""
    job_states: frozenset[JobState] = frozenset()


class PageFound(NamedTuple):
    """Pipelines, each with the key behind which a page goes on that ends with it.

    `behind` is up to where it was looked; None where nothing is left.
    """

    found: tuple[tuple[PageKey, PipelineRef], ...]
    behind: PageKey | None
