"""A span: something that had a beginning and an end, in the trace of a pipeline.

Rule. A span is made once, when it has ended, from times that are recorded anyway, and its id follows from what it is
of. So nothing is measured while a job runs, no span is open when a process dies, and one that is made again after a
crash has the id that it had.
"""

import enum
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from shoal.model import no_strings
from shoal.trace_context import TraceContext

NO_TIME: Final = timedelta()


class SpanKind(enum.IntEnum):
    """What a span is to its parent; the numbers are those of OTLP."""

    INTERNAL = 1
    CONSUMER = 5
    PRODUCER = 4


@dataclass(frozen=True, slots=True)
class Span:
    """A span that has ended.

    Attributes:
        context: its trace and its id.
        parent_id: id of its parent, 16 hexadecimal digits; empty for the first of a trace.
        name: what it is, one of few words.
        start: when it began; aware.
        end: when it ended, not before `start`.
        node: whose agent saw it; empty for the controller.
        kind: what it is to its parent.
        attributes: what else is known, by names of OpenTelemetry or `shoal.`.
        failed: why it did not succeed; empty if it did.
    """

    context: TraceContext
    parent_id: str
    name: str
    start: datetime
    end: datetime
    node: str = ""
    kind: SpanKind = SpanKind.INTERNAL
    attributes: Mapping[str, str | int | float] = field(default_factory=no_strings)
    failed: str = ""


def as_text(spans: Iterable[Span]) -> str:
    """Write spans as JSON, to be kept."""
    return json.dumps([_written(one) for one in spans], separators=(",", ":"))


def from_text(text: str) -> tuple[Span, ...]:
    """Read what `as_text` has written.

    Raises:
        ValueError: it has not.
    """
    try:
        return tuple(_read(one) for one in json.loads(text))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"these are no spans: {error}") from error


def _written(span: Span) -> list[object]:
    return [
        str(span.context),
        span.parent_id,
        span.name,
        span.start.isoformat(),
        span.end.isoformat(),
        span.node,
        int(span.kind),
        dict(span.attributes),
        span.failed,
    ]


def _read(values: list[Any]) -> Span:
    context, parent_id, name, start, end, node, kind, attributes, failed = values
    return Span(
        TraceContext.of(context),
        parent_id,
        name,
        datetime.fromisoformat(start),
        datetime.fromisoformat(end),
        node,
        SpanKind(kind),
        attributes,
        failed,
    )


def shift_into(times: Iterable[datetime], start: datetime, end: datetime) -> timedelta:
    """Return by how much times of another clock have to be moved to lie between two of ours.

    That is nothing if they do, and the least that brings all of them there. If they last longer than that, their first
    is brought to `start`.

    Args:
        times: by the other clock; none of them is no shift.
        start: the first moment at which they may have been.
        end: the last one.
    """
    known = tuple(times)
    if not known:
        return NO_TIME
    first, last = min(known), max(known)
    if first < start or last - first > end - start:
        return start - first
    return end - last if last > end else NO_TIME
