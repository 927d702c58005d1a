"""An overview: several watches as one, for programs that show a cluster."""

import enum
from dataclasses import dataclass

from shoal.pipeline_filter import PipelineFilter
from shoal.view import (
    Event,
    MemberView,
    NodeView,
    PipelineSummary,
    PipelineTotals,
    Unlisted,
)


class OverviewPart(enum.Enum):
    """A part of an overview; the values are the numbers in the contract."""

    PIPELINES = 1
    NODES = 2
    MEMBERS = 3
    EVENTS = 4


@dataclass(frozen=True, slots=True)
class OverviewWish:
    """What an overview is to show; what is None or False is left out.

    `pipelines` are summed up, those that match. `events` are types, such as `shoal.job.*`; the empty tuple means all.
    Of events that are there the `last_events` come first, at most 1,000; 0 means all. `counts` says which pipelines
    are counted, with their jobs. `facts` shows those of nodes, too.
    """

    pipelines: PipelineFilter | None = None
    nodes: bool = False
    facts: bool = False
    members: bool = False
    events: tuple[str, ...] | None = None
    last_events: int = 0
    counts: PipelineFilter | None = None


@dataclass(frozen=True, slots=True)
class OverviewNews:
    """What an overview tells at once.

    Parts in `begun` begin anew: of what was known of them nothing is left but what comes until they are `complete`.
    Events come in order and each once; with `events_missing` some before these are not remembered any more.
    `resume_token` goes on after this, in another watch of the same.
    """

    begun: frozenset[OverviewPart] = frozenset()
    pipelines: tuple[PipelineSummary | Unlisted, ...] = ()
    nodes: tuple[NodeView, ...] = ()
    members: tuple[MemberView, ...] = ()
    events: tuple[Event, ...] = ()
    counts: PipelineTotals | None = None
    complete: frozenset[OverviewPart] = frozenset()
    events_missing: bool = False
    resume_token: str = ""
