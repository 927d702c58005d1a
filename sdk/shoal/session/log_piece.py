"""A piece of what an attempt printed."""

from dataclasses import dataclass

from shoal.names import AttemptRef
from shoal.view import LogStream


@dataclass(frozen=True, slots=True)
class LogPiece:
    """What an attempt printed; `offset` says where in the whole log it begins, in bytes."""

    ref: AttemptRef
    stream: LogStream
    offset: int
    data: bytes
