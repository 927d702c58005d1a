"""What takes spans, and what may be wrong with it."""

from collections.abc import Sequence
from typing import Protocol

from services.traces.span import Span


class CollectorAwayError(Exception):
    """No spans are taken for now; the message says why."""


class CollectorRefusedError(Exception):
    """These spans are not taken, whenever they are sent; the message says why."""


class SpanTaker(Protocol):
    """Takes spans."""

    async def send(self, spans: Sequence[Span]) -> int:
        """Take spans; returns how many of them it does not, and never will.

        Raises:
            CollectorAwayError: it takes none, and may take them later.
            CollectorRefusedError: it takes none, and never will.
        """
        ...
