"""What the machine of attempts takes: one frozen value for each thing that happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.attempts.local_attempt import LocalAttempt, ProgramExit, ProgramStatus
from shoal.model import Artifact, JobState, Reason
from shoal.names import AttemptRef
from shoal.session.messages import Desired, Fenced
from shoal.session.port_hold import PortHold
from shoal.session.uploads import UploadsGranted


@dataclass(frozen=True, slots=True)
class Restored:
    """The agent has started and knows what its journal, the keeper and the stream worker know.

    `keeper` says which keeper keeps these programs, `rebooted` that the machine itself went down since
    the journal was written; `streams_survived` that the stream worker is the one that the journal knew.
    """

    records: tuple[LocalAttempt, ...]
    keeper: str
    programs: Mapping[AttemptRef, ProgramStatus]
    rebooted: bool
    streams_survived: bool


@dataclass(frozen=True, slots=True)
class DesiredChanged:
    """The controller said what it wants; `sequence` is that of its message."""

    desired: Desired
    sequence: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """The bundle, the environment or the files of an attempt are there."""

    ref: AttemptRef
    turn: int


@dataclass(frozen=True, slots=True)
class WorkFailed:
    """Preparing, starting or archiving failed for good."""

    ref: AttemptRef
    turn: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class ProgramStarted:
    """The keeper has started the program."""

    ref: AttemptRef
    turn: int
    start_time: float


@dataclass(frozen=True, slots=True)
class ProgramEnded:
    """The keeper has seen the end of the program."""

    ref: AttemptRef
    exit: ProgramExit


@dataclass(frozen=True, slots=True)
class ProgramsListed:
    """A keeper was connected to anew: which one it is, and all the programs that it keeps."""

    keeper: str
    programs: Mapping[AttemptRef, ProgramStatus]


@dataclass(frozen=True, slots=True)
class StreamsBroken:
    """The streams of an attempt cannot go on."""

    ref: AttemptRef
    reason: Reason


@dataclass(frozen=True, slots=True)
class DiskFull:
    """The disk of the node is full, and this attempt is why."""

    ref: AttemptRef
    reason: Reason


@dataclass(frozen=True, slots=True)
class StreamsHeld:
    """Outputs of an attempt stand still, as their lanes ask, and these are all that do."""

    ref: AttemptRef
    holds: tuple[PortHold, ...]


@dataclass(frozen=True, slots=True)
class StreamsClosed:
    """No output of an attempt takes anything more: it ended, or nobody is left who wants it."""

    ref: AttemptRef


@dataclass(frozen=True, slots=True)
class StreamsDrained:
    """Nobody needs a record of the attempt any more; of these inputs its program was shown the end."""

    ref: AttemptRef
    ended_inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamWorkerLost:
    """The stream worker is gone, and with it what it retained."""


@dataclass(frozen=True, slots=True)
class StreamWorkerFound:
    """Another stream worker's process is there; what was attached to the one before is not on it."""

    identity: str


@dataclass(frozen=True, slots=True)
class ArtifactsCollected:
    """The files that are archived are known, with sizes and SHA-256.

    `problem` names files that should be and cannot: the attempt fails with it once the others are kept.
    """

    ref: AttemptRef
    turn: int
    artifacts: tuple[Artifact, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class GrantsReceived:
    """The controller said where to store artifacts."""

    granted: UploadsGranted


@dataclass(frozen=True, slots=True)
class Uploaded:
    """These artifacts are stored; `problem` names those that cannot be."""

    ref: AttemptRef
    turn: int
    artifacts: tuple[Artifact, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class GrantsExpired:
    """The store no longer takes the addresses; new ones are needed."""

    ref: AttemptRef
    turn: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The controller has committed what it was told of an attempt."""

    ref: AttemptRef
    state: JobState


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A session stands; what was asked in an earlier one is asked again."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Nothing is left of an attempt on this node."""

    ref: AttemptRef


AttemptsEvent = (
    Restored
    | DesiredChanged
    | Prepared
    | WorkFailed
    | ProgramStarted
    | ProgramEnded
    | ProgramsListed
    | StreamsBroken
    | StreamsHeld
    | DiskFull
    | StreamsClosed
    | StreamsDrained
    | StreamWorkerLost
    | StreamWorkerFound
    | ArtifactsCollected
    | GrantsReceived
    | Uploaded
    | GrantsExpired
    | Acknowledged
    | Fenced
    | SessionOpened
    | Forgotten
)
