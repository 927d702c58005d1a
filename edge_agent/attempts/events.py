"""What the machine of attempts takes: one frozen value for each thing that happened."""

from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.attempts.local_attempt import LocalAttempt, ProgramExit, ProgramStatus
from shoal.model import Artifact, JobState, Reason
from shoal.names import AttemptRef
from shoal.session.messages import Desired, Fenced
from shoal.session.port_hold import PortHold
from shoal.session.uploads import ArtifactParts, UploadsGranted


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
    unable: bool = False


@dataclass(frozen=True, slots=True)
class DesiredChanged:
    """The controller said what it wants; `sequence` is that of its message, `time` seconds since 1970.

    `at_hand` are those of its attempts for which everything is here: they need no work that may take long.
    """

    desired: Desired
    sequence: int
    time: float = 0.0
    at_hand: frozenset[AttemptRef] = frozenset()


@dataclass(frozen=True, slots=True)
class _OfAttempt:
    """Something about one attempt."""

    ref: AttemptRef


@dataclass(frozen=True, slots=True)
class WorkOutcome(_OfAttempt):
    """What came of the effect with this turn."""

    turn: int


@dataclass(frozen=True, slots=True)
class Prepared(WorkOutcome):
    """The bundle, the files or the environment of an attempt are there; `time` is seconds since 1970."""

    time: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkFailed(WorkOutcome):
    """Preparing, starting or archiving failed for good."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class ProgramStarted(WorkOutcome):
    """The keeper has started the program."""

    start_time: float


@dataclass(frozen=True, slots=True)
class ProgramEnded(_OfAttempt):
    """The keeper has seen the end of the program.

    `left_nothing` says that a look has shown neither files nor words of it; else it is not known.
    """

    exit: ProgramExit
    left_nothing: bool = False


@dataclass(frozen=True, slots=True)
class ProgramsListed:
    """A keeper was connected to anew: which one it is, and all the programs that it keeps.

    `unable` says that it cannot start programs as this node has to: it is of a version before.
    """

    keeper: str
    programs: Mapping[AttemptRef, ProgramStatus]
    unable: bool = False


@dataclass(frozen=True, slots=True)
class KeeperOutdated:
    """This keeper is not what the agent would start; said again until there is another."""

    keeper: str


@dataclass(frozen=True, slots=True)
class StreamWorkerOutdated:
    """The stream worker is not what the agent would start; said again until it is."""


@dataclass(frozen=True, slots=True)
class StreamsBroken(_OfAttempt):
    """The streams of an attempt cannot go on."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class DiskFull(_OfAttempt):
    """The disk of the node is full, and this attempt is why."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class StreamsHeld(_OfAttempt):
    """Outputs of an attempt stand still, as their lanes ask, and these are all that do."""

    holds: tuple[PortHold, ...]


@dataclass(frozen=True, slots=True)
class StreamsClosed(_OfAttempt):
    """No output of an attempt takes anything more: it ended, or no consumer is left that wants it."""


@dataclass(frozen=True, slots=True)
class StreamsDrained(_OfAttempt):
    """No consumer needs a record of the attempt any more; of these inputs its program was shown the end."""

    ended_inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamWorkerLost:
    """The stream worker is gone, and with it what it retained."""


@dataclass(frozen=True, slots=True)
class StreamWorkerFound:
    """Another stream worker's process is there; what was attached to the one before is not on it."""

    identity: str


@dataclass(frozen=True, slots=True)
class ArtifactsCollected(WorkOutcome):
    """The files that are archived are known, with sizes and SHA-256.

    `problem` names files that should be and cannot: the attempt fails with it once the others are kept. `begun` and
    `time` are when it was begun to look for them and when that was over, in seconds since 1970; 0 where that took
    no time.
    """

    artifacts: tuple[Artifact, ...]
    problem: str = ""
    parts: tuple[ArtifactParts, ...] = ()
    begun: float = 0.0
    time: float = 0.0


@dataclass(frozen=True, slots=True)
class Uploaded(WorkOutcome):
    """These artifacts are stored; `problem` names those that cannot be."""

    artifacts: tuple[Artifact, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class GrantsExpired(WorkOutcome):
    """The addresses are used up, or the store no longer takes them; new ones are needed for what is left."""

    left: tuple[Artifact, ...]


@dataclass(frozen=True, slots=True)
class Acknowledged(_OfAttempt):
    """The controller has committed what it was told of an attempt."""

    state: JobState


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A session stands; what was asked in an earlier one is asked again."""


@dataclass(frozen=True, slots=True)
class Forgotten(_OfAttempt):
    """Nothing is left of an attempt on this node."""


AttemptEvent = (
    Prepared
    | WorkFailed
    | ProgramStarted
    | ProgramEnded
    | StreamsBroken
    | StreamsHeld
    | DiskFull
    | StreamsClosed
    | StreamsDrained
    | ArtifactsCollected
    | Uploaded
    | GrantsExpired
    | Acknowledged
    | Forgotten
    | Fenced
    | UploadsGranted
)
"""What happens to one attempt; it counts if the attempt is known, and a `WorkOutcome` if it is in turn."""

AttemptsEvent = (
    AttemptEvent
    | Restored
    | DesiredChanged
    | ProgramsListed
    | KeeperOutdated
    | StreamWorkerOutdated
    | StreamWorkerLost
    | StreamWorkerFound
    | SessionOpened
)
