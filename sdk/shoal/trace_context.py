"""Where in a trace something happens, as the header `traceparent` says it.

Source: https://www.w3.org/TR/trace-context/, version 00.
"""

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

TRACEPARENT_MAX: Final = 256
"""Most characters of a `traceparent`; one of this version has 55."""

_TRACEPARENT: Final = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII
)
_SAMPLED: Final = 1

NO_SPAN: Final = "0" * 16
"""The id of no span, which a `traceparent` cannot have."""


class TraceContextError(ValueError):
    """A text is no `traceparent`; the message says what one looks like."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span of a trace: what begins under it is its child.

    Attributes:
        trace_id: 32 hexadecimal digits, not all of them 0.
        span_id: 16 hexadecimal digits; `NO_SPAN` before the first span of a trace.
        sampled: whether the spans of the trace are kept.
    """

    trace_id: str
    span_id: str
    sampled: bool = True

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    @classmethod
    def of(cls, text: str) -> "TraceContext":
        """Return what `str` made this text of."""
        _, trace_id, span_id, flags = text.split("-")
        return cls(trace_id, span_id, flags == "01")

    @property
    def parent_id(self) -> str:
        """The id of this span for its children: empty for `NO_SPAN`."""
        return "" if self.span_id == NO_SPAN else self.span_id

    def span_of(self, *path: str) -> "TraceContext":
        """Return the span of a thing in this trace, which has the same id whenever and wherever it is asked for.

        Args:
            path: names the thing.
        """
        said = "\0".join((self.trace_id, *path)).encode()
        return TraceContext(self.trace_id, blake2b(said, digest_size=8).hexdigest(), self.sampled)


def parse_traceparent(text: str) -> TraceContext:
    """Read a `traceparent`, also one of a later version, of which the first parts count.

    Raises:
        TraceContextError: it is none.
    """
    found = _TRACEPARENT.fullmatch(text) if len(text) <= TRACEPARENT_MAX else None
    if found is not None:
        version, trace_id, span_id, flags, more = found.groups()
        known = version != "ff" and not (version == "00" and more)
        if known and trace_id.strip("0") and span_id != NO_SPAN:
            return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))
    raise TraceContextError(
        f"{text[:TRACEPARENT_MAX]!r} is no traceparent: write 00-TRACE-SPAN-01, with 32 and 16 lower-case hexadecimal "
        "digits that are not all 0"
    )


def begun_trace(*path: str) -> TraceContext:
    """Return the trace of a thing that is in no other, before its first span; `path` names it, once in the world."""
    trace_id = blake2b("\0".join(path).encode(), digest_size=16).hexdigest()
    return TraceContext(trace_id, NO_SPAN)
