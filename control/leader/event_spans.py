"""The spans of events: from the transaction that records one to the broker's word that it has it."""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

from control.core.rows import OutboxRow, SpansRow
from control.store.store import Store
from services.traces.span import Span, SpanKind, as_text
from shoal.trace_context import TraceContext

_MARK: Final = '"traceparent":"'
"""What the data of an event has that is in a trace."""


class EventSpans:
    """Remembers which events of traces are on their way.

    Args:
        store: where spans wait.
        wall: now, in UTC.
        waits: set when there are more.
    """

    def __init__(self, store: Store, wall: Callable[[], datetime], waits: asyncio.Event) -> None:
        self._store = store
        self._wall = wall
        self._waits = waits
        # As many as were read and have not left, which the publisher bounds.
        self._on_their_way: dict[int, OutboxRow] = {}

    def read(self, rows: Iterable[OutboxRow]) -> None:
        """Note the events among rows that are about to leave."""
        self._on_their_way |= {row.sequence: row for row in rows if _MARK in row.data}

    async def left(self, sequences: Sequence[int]) -> None:
        """Record the spans of those of them that the broker has.

        Raises:
            StoreFailedError: they cannot be recorded.
        """
        rows = [self._on_their_way.pop(one) for one in sequences if one in self._on_their_way]
        now = self._wall()
        spans = [span for row in rows if (span := _span(row, now)) is not None]
        if spans:
            await self._store.commit([SpansRow(as_text(spans))])
            self._waits.set()


def _span(row: OutboxRow, now: datetime) -> Span | None:
    context = TraceContext.of(json.loads(row.data)["traceparent"])
    if not context.sampled:
        return None
    return Span(
        context,
        context.span_of(row.namespace, row.subject).span_id,
        "event",
        row.time,
        max(row.time, now),
        kind=SpanKind.PRODUCER,
        attributes={
            "messaging.system": "mqtt",
            "messaging.operation.type": "send",
            "cloudevents.event_id": row.id,
            "cloudevents.event_type": row.type,
            "shoal.name": row.subject,
            "shoal.namespace": row.namespace,
        },
    )
