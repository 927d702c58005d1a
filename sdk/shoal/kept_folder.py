"""A folder of an attempt that did not succeed, kept on its node for people."""

from dataclasses import dataclass
from datetime import datetime

from shoal.names import AttemptRef


@dataclass(frozen=True, slots=True)
class KeptFolder:
    """What an attempt left: `work` in `path` is the job's folder, beside its `stdout` and `stderr`.

    `size_bytes` is the room that it takes on its node, `until_time` (aware) when it goes at the latest.
    """

    ref: AttemptRef
    path: str
    size_bytes: int
    until_time: datetime | None = None
