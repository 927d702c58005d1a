"""The store: what the control plane remembers across its own end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from control.core.event_query import EventQuery
from control.core.pipeline_query import PageFound, PageKey, PipelineQuery
from control.core.rows import (
    EventsRead,
    FoundRows,
    KeptNames,
    Loaded,
    ObjectsWaiting,
    OutboxRow,
    Queued,
    RequestKey,
    Row,
    SpansRow,
    StoredVersionRow,
)
from shoal.names import PipelineRef
from shoal.view import PipelineSummary

OUTBOX_BYTES: Final = 16 * 1024**2
"""About the most that is read of the outbox at once: a manifest alone may have some MiB."""


class Store(Protocol):
    """Rows in transactions. Every method raises StoreFailedError when the medium fails.

    Every method that writes raises TermOverError once another controller has loaded from the same
    store, and has written nothing then.
    """

    async def load(self, new_id: Callable[[], str], queue_page: int) -> Loaded:
        """Read what the control machine starts from, and begin a term durably.

        `new_id` draws the random id of the start; `queue_page` is how many of the queue are read.
        """
        ...

    async def queued(self, after: int, limit: int) -> Sequence[Queued]:
        """Return pipelines of which no job was ever placed, above the position `after`, in order."""
        ...

    async def find(
        self, refs: Sequence[PipelineRef], requests: Sequence[RequestKey] = ()
    ) -> FoundRows:
        """Read pipelines and requests by their keys; what is not there is left out."""
        ...

    async def page(
        self, query: PipelineQuery, limit: int, behind: PageKey | None = None
    ) -> PageFound:
        """Return the names of the next pipelines behind a key, `limit` at most.

        There may be none although more are left: then it is asked again from where it looked to.
        """
        ...

    async def summaries(
        self, refs: Sequence[PipelineRef], revision: int = 0
    ) -> Sequence[PipelineSummary]:
        """Sum up pipelines as of a revision, in any order; what is not there is left out.

        How many jobs are in each state is right of those that have ended and those of which no job was ever placed.
        """
        ...

    async def commit(self, rows: Sequence[Row]) -> None:
        """Write all rows in one transaction; they survive a power cut once this returns.

        Raises:
            RowError: One of them can be written nowhere, so that another try is in vain.
        """
        ...

    async def outbox(self, limit: int = 100, after: int = 0) -> Sequence[OutboxRow]:
        """Return what has not left yet with a sequence above `after`, in order.

        It is fewer than `limit` where no more are there, or where these have `OUTBOX_BYTES`: `may_go_on` says that.
        """
        ...

    async def objects_waiting(self, limit: int, after: int) -> ObjectsWaiting:
        """Return what waits for the archive with a sequence above `after`, at most `limit` rows."""
        ...

    async def kept_names(self) -> KeptNames:
        """Return, in one snapshot, what pipelines and manifests name in the archive."""
        ...

    async def stored(
        self, keys: Sequence[tuple[str, str, int]], *, content: bool
    ) -> Sequence[StoredVersionRow]:
        """Return versions of stored pipelines by namespace, name and number; what is not there is left out.

        Without `content`, that is empty.
        """
        ...

    async def mark_published(
        self, sequences: Sequence[int], aside: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        """Let go of rows that have left; events stay readable for a while.

        Those of `aside` have not left and never will, for the reason beside them.
        """
        ...

    async def spans(self, limit: int) -> Sequence[SpansRow]:
        """Return spans that have not left yet, the oldest first."""
        ...

    async def drop_spans(self, through: int, kept: int) -> int:
        """Let go of spans up to a sequence, and of the oldest beyond `kept` rows; returns how many those had."""
        ...

    async def events(
        self, query: EventQuery, place: int, limit: int, *, newest_first: bool = False
    ) -> EventsRead:
        """Return events, kept and published, behind a place, oldest first; or before it, newest first.

        A place is a sequence; 0 is before the first one, or behind the last one. Of one pipeline all events are looked
        at, of a namespace only so many, so that there may be none and `more`.
        """
        ...

    async def events_forgotten_through(self) -> int:
        """Return up to which sequence events may have been let go of; 0 for none."""
        ...


def may_go_on(rows: Sequence[OutboxRow], limit: int) -> bool:
    """Whether there may be rows of the outbox behind these, which were read with this limit."""
    return len(rows) >= limit or sum(len(row.data) for row in rows) >= OUTBOX_BYTES
