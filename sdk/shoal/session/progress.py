"""Progress of an attempt: counters and words, which may be lost."""

from dataclasses import dataclass

from shoal.model import StreamCounters
from shoal.names import AttemptRef


@dataclass(frozen=True, slots=True)
class Progress:
    """Counters of an attempt's ports, and what its program says of itself; kept in memory only."""

    ref: AttemptRef
    streams: tuple[StreamCounters, ...] = ()
    text: str = ""
