"""A piece of what an attempt printed."""

from dataclasses import dataclass
from datetime import datetime

from shoal.names import AttemptRef
from shoal.view import LogStream


@dataclass(frozen=True, slots=True)
class LogPiece:
    """What an attempt printed; `offset` says where in the whole log it begins, in bytes.

    `print_time` says when the last of it was printed, by the clock of the node; None if that is not known.
    """

    ref: AttemptRef
    stream: LogStream
    offset: int
    data: bytes
    print_time: datetime | None = None
