"""Which events a reader wants: asked of rows in memory here, and of the store in its language."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from control.core.rows import OutboxRow

_PIPELINES = "pipelines/"
_NODES = "nodes/"


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events a reader wants.

    Attributes:
        namespace: of their pipelines; what belongs to no namespace, such as nodes, comes too.
        pipeline: id of the only pipeline that is meant; empty for all.
        identities: whether what is told of callers and identities comes too.
        types: `shoal.job.failed`, or `shoal.job.*` for all that begin so; none means all.
        since: only what was recorded then or later, by the wall clock.
        until: only what was recorded before.
    """

    namespace: str
    pipeline: str = ""
    identities: bool = True
    types: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    @property
    def at_any_time(self) -> EventQuery:
        """The same without regard to when it was recorded."""
        return replace(self, since=None, until=None)

    def wants(self, row: OutboxRow) -> bool:
        """Whether a row of the outbox is such an event."""
        return (
            row.is_told
            and self._is_theirs(row)
            and (not self.types or any(_is_of(row.type, wanted) for wanted in self.types))
            and (self.since is None or row.time >= self.since)
            and (self.until is None or row.time < self.until)
        )

    def _is_theirs(self, row: OutboxRow) -> bool:
        if self.pipeline:
            return row.namespace == self.namespace and pipeline_in(row.subject) == self.pipeline
        if row.namespace:
            return row.namespace == self.namespace
        return self.identities or row.subject.startswith(_NODES)


def pipeline_in(subject: str) -> str:
    """The id of the pipeline that a subject is part of; empty for none."""
    return subject.split("/", 2)[1] if subject.startswith(_PIPELINES) else ""


def _is_of(row_type: str, wanted: str) -> bool:
    return row_type.startswith(wanted[:-1]) if wanted.endswith("*") else row_type == wanted
