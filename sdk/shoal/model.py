"""States, reasons and stored things: nouns that command, controller and agents share."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from shoal.redaction import redacted


def no_strings() -> Mapping[str, str]:
    """An empty mapping that cannot be filled: the default of labels, variables and addresses."""
    return MappingProxyType({})


class JobState(enum.IntEnum):
    """State of a job or of one of its attempts; the numbers are those of the contract."""

    __hash__ = (
        int.__hash__
    )  # that of an enum is no built-in one, and states are looked up all the time
    QUEUED = 1
    ASSIGNED = 2
    PREPARING = 3
    RUNNING = 4
    DRAINING = 5
    ARCHIVING = 6
    SUCCEEDED = 7
    FAILED = 8
    CANCELLED = 9
    LOST = 10
    RETRY_WAIT = 11

    @property
    def terminal(self) -> bool:
        """Whether nothing comes after it for an attempt."""
        return self in _TERMINAL


_TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.LOST})


class PipelineState(enum.IntEnum):
    """State of a pipeline, derived from its jobs; the numbers are those of the contract."""

    QUEUED = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5

    @property
    def terminal(self) -> bool:
        """Whether the pipeline has ended."""
        return self >= PipelineState.SUCCEEDED


class DeadLetter(enum.IntEnum):
    """Whether a pipeline of which a job failed for good is kept for a person; the numbers are those of the contract."""

    NONE = 0
    KEPT = 1
    REVIVED = 2
    DISCARDED = 3


class MemberState(enum.IntEnum):
    """State of a member, as in SWIM; the numbers are those of the contract."""

    UNKNOWN = 0
    ALIVE = 1
    SUSPECT = 2
    DEAD = 3
    LEFT = 4


class ReasonCode(enum.StrEnum):
    """Why an attempt, a job or a pipeline ended as it did."""

    NONE = ""
    EXIT = "EXIT"
    SIGNAL = "SIGNAL"
    OOM = "OOM"
    PROCESSES = "PROCESSES"
    TIMEOUT = "TIMEOUT"
    INSTALL = "INSTALL"
    BUNDLE = "BUNDLE"
    FETCH = "FETCH"
    ARTIFACT_CHECKSUM = "ARTIFACT_CHECKSUM"
    START = "START"
    STREAM = "STREAM"
    REWIND = "REWIND"
    ARCHIVE = "ARCHIVE"
    DISK = "DISK"
    LOST = "LOST"
    NEIGHBOUR = "NEIGHBOUR"
    CANCELLED = "CANCELLED"
    FENCED = "FENCED"


@dataclass(frozen=True, slots=True)
class Reason:
    """A code for programs, its number (exit status, signal), and one sentence for people.

    The sentence may carry foreign words, and many read it, so it never holds a secret of an address.
    """

    code: ReasonCode = ReasonCode.NONE
    number: int = 0
    message: str = ""

    def __post_init__(self) -> None:
        """Leave secrets of addresses out of the message."""
        object.__setattr__(self, "message", redacted(self.message))

    @property
    def short(self) -> str:
        """`EXIT 3`, `INSTALL`: the form shown in tables."""
        return f"{self.code} {self.number}" if self.number else str(self.code)


NO_REASON = Reason()
"""Nothing to say: it has not ended, or it ended well."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One stored object.

    `path` is relative to the job's folder, `sha256` is in hex, `key` is its key in the archive.
    """

    path: str
    size_bytes: int
    sha256: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a node has, or what is claimed of it: cores, bytes, device classes."""

    cpus: float = 0.0
    memory_bytes: int = 0
    devices: tuple[str, ...] = ()


NO_CAPACITY = Capacity()
"""Nothing at all."""


@dataclass(frozen=True, slots=True)
class Followed:
    """How much an agent knows of a controller: cluster, start of the controller, commit of that start.

    `term` counts the starts on one store, and `start_id` is drawn at random for each, because a
    store that was restored from a backup counts up to the same term again.
    """

    cluster_id: str
    term: int
    start_id: str
    commit: int = 0


class ScaleState(enum.IntEnum):
    """Where the change of a job's replicas stands; the numbers are those of the contract."""

    HOLDING = 1
    SETTLED = 2
    ABANDONED = 3


@dataclass(frozen=True, slots=True)
class StreamCounters:
    """Counters of one port of a job, summed over its lanes.

    `repeating` is the output of a replacement that has not sent again yet all that its consumers have.
    """

    port: str
    output: bool
    records: int = 0
    bytes: int = 0
    acknowledged: int = 0
    retained_bytes: int = 0
    blocked_seconds: float = 0.0
    duplicates: int = 0
    ended: bool = False
    dropped: int = 0
    refused: int = 0
    broken: int = 0
    mismatches: int = 0
    repeating: bool = False
