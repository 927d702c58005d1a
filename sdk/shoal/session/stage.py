"""A stage of an attempt before its program starts, or after it has ended."""

import enum
from dataclasses import dataclass
from datetime import datetime


class AttemptStage(enum.IntEnum):
    """What an attempt has begun or ended; in this order, with the numbers of the contract."""

    FETCHING = 1
    FETCHED = 2
    INSTALLING = 3
    INSTALLED = 4
    COLLECTING = 5
    COLLECTED = 6


@dataclass(frozen=True, slots=True)
class StageReached:
    """A stage, and when it was taken for the first time; aware, by the clock of the node."""

    stage: AttemptStage
    time: datetime
