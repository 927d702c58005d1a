"""What the machine of attempts wants done: one frozen value for each thing to do, in order."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.attempts.local_attempt import LocalAttempt
from shoal.model import Artifact
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.session.lane import Lane
from shoal.session.observation import Observation
from shoal.session.uploads import UploadGrant


@dataclass(frozen=True, slots=True)
class WriteJournal:
    """Record an attempt durably; later effects of the same attempt wait for it."""

    record: LocalAttempt


@dataclass(frozen=True, slots=True)
class NoteStreamWorker:
    """Write down which process of the stream worker carries what is attached from now on."""

    identity: str


@dataclass(frozen=True, slots=True)
class DesiredRecorded:
    """Tell the controller, once everything before is durable, that its message is recorded."""

    sequence: int


@dataclass(frozen=True, slots=True)
class _OfAssignment:
    assignment: Assignment

    @property
    def ref(self) -> AttemptRef:
        """Which attempt it is about."""
        return self.assignment.ref


@dataclass(frozen=True, slots=True)
class PrepareBundle(_OfAssignment):
    """Lay the bundle out in a fresh folder."""

    turn: int


@dataclass(frozen=True, slots=True)
class PrepareEnvironment(_OfAssignment):
    """Build the environment, or find it built."""

    turn: int


@dataclass(frozen=True, slots=True)
class PrepareFiles(_OfAssignment):
    """Fetch the file inputs and check them."""

    turn: int


@dataclass(frozen=True, slots=True)
class StartProgram(_OfAssignment):
    """Let this keeper and no other start the program; harmless when it runs already."""

    turn: int
    keeper: str


@dataclass(frozen=True, slots=True)
class StopProgram:
    """SIGTERM to the whole group, SIGKILL after the grace (seconds)."""

    ref: AttemptRef
    grace_seconds: float


@dataclass(frozen=True, slots=True)
class AttachStreams(_OfAssignment):
    """Let the stream worker take over the ports; harmless when it has them."""


@dataclass(frozen=True, slots=True)
class UpdateLanes:
    """Tell the stream worker where the peers are now."""

    ref: AttemptRef
    lanes: tuple[Lane, ...]


@dataclass(frozen=True, slots=True)
class Conclude:
    """Tell the stream worker how the program ended."""

    ref: AttemptRef
    succeeded: bool


@dataclass(frozen=True, slots=True)
class CollectArtifacts(_OfAssignment):
    """Find the files that are archived."""

    turn: int


@dataclass(frozen=True, slots=True)
class WantUploads:
    """Ask the controller where to store artifacts."""

    ref: AttemptRef
    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True, slots=True)
class Upload(_OfAssignment):
    """Store the artifacts, for as long as it takes."""

    turn: int
    artifacts: tuple[Artifact, ...]
    grants: tuple[UploadGrant, ...]


@dataclass(frozen=True, slots=True)
class CancelWork:
    """Give up what is being prepared, collected or uploaded for an attempt."""

    ref: AttemptRef


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the controller where an attempt stands."""

    observation: Observation

    @property
    def ref(self) -> AttemptRef:
        """Which attempt it is about."""
        return self.observation.ref


@dataclass(frozen=True, slots=True)
class Forget:
    """Leave nothing of an attempt: streams, keeper's record, folder, journal."""

    ref: AttemptRef
    has_ports: bool


AttemptEffect = (
    PrepareBundle
    | PrepareEnvironment
    | PrepareFiles
    | StartProgram
    | StopProgram
    | AttachStreams
    | UpdateLanes
    | Conclude
    | CollectArtifacts
    | WantUploads
    | Upload
    | CancelWork
    | Report
    | Forget
)
"""What is done for one attempt by its own shell."""

AttemptsEffect = AttemptEffect | WriteJournal | NoteStreamWorker | DesiredRecorded
