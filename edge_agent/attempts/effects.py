"""What the machine of attempts wants done: one frozen value for each thing to do, in order."""

from dataclasses import dataclass

from edge_agent.attempts.local_attempt import LocalAttempt
from shoal.model import Artifact
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.session.lane import Lane
from shoal.session.observation import Observation
from shoal.session.uploads import ArtifactParts, UploadGrant


@dataclass(frozen=True, slots=True)
class WriteJournal:
    """Record an attempt durably; later effects of the same attempt wait for it."""

    record: LocalAttempt


@dataclass(frozen=True, slots=True)
class NoteStreamWorker:
    """Write down which process of the stream worker carries what is attached from now on."""

    identity: str


@dataclass(frozen=True, slots=True)
class DismissKeeper:
    """Let this keeper end, with the stream worker: nothing runs there, and another one is to follow."""

    keeper: str


@dataclass(frozen=True, slots=True)
class DismissStreamWorker:
    """Let the stream worker end: it carries nothing, and another one is to follow."""


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
class _Work(_OfAssignment):
    """Work whose outcome carries this turn."""

    turn: int


@dataclass(frozen=True, slots=True)
class Prepare(_OfAssignment):
    """Make everything ready that the program needs, which is at hand; `StartProgram` follows, and has the outcome."""


@dataclass(frozen=True, slots=True)
class PrepareBundle(_Work):
    """Lay the bundle out in a fresh folder."""


@dataclass(frozen=True, slots=True)
class PrepareEnvironment(_Work):
    """Build the environment, or find it built."""


@dataclass(frozen=True, slots=True)
class PrepareFiles(_Work):
    """Fetch the file inputs and check them."""


@dataclass(frozen=True, slots=True)
class StartProgram(_Work):
    """Let this keeper and no other start the program; harmless when it runs already.

    What is not prepared yet, of an attempt for which everything is at hand, is prepared before.
    """

    keeper: str


@dataclass(frozen=True, slots=True)
class _OfAttempt:
    """Something to do about one attempt."""

    ref: AttemptRef


@dataclass(frozen=True, slots=True)
class StopProgram(_OfAttempt):
    """SIGTERM to the whole group, SIGKILL after the grace (seconds)."""

    grace_seconds: float


@dataclass(frozen=True, slots=True)
class AttachStreams(_OfAssignment):
    """Let the stream worker take over the ports; harmless when it has them."""


@dataclass(frozen=True, slots=True)
class UpdateLanes(_OfAttempt):
    """Tell the stream worker where the peers are now."""

    lanes: tuple[Lane, ...]


@dataclass(frozen=True, slots=True)
class Conclude(_OfAttempt):
    """Tell the stream worker how the program ended."""

    succeeded: bool


@dataclass(frozen=True, slots=True)
class CollectArtifacts(_Work):
    """Find the files that are archived after such an end."""

    succeeded: bool


@dataclass(frozen=True, slots=True)
class WantUploads(_OfAttempt):
    """Ask the controller where to store artifacts, and parts of those that are large."""

    artifacts: tuple[Artifact, ...]
    parts: tuple[ArtifactParts, ...] = ()


@dataclass(frozen=True, slots=True)
class Upload(_Work):
    """Store the artifacts, for as long as it takes; `salvaged` are those of what did not succeed."""

    artifacts: tuple[Artifact, ...]
    grants: tuple[UploadGrant, ...]
    parts: tuple[ArtifactParts, ...] = ()
    salvaged: bool = False


@dataclass(frozen=True, slots=True)
class CancelWork(_OfAttempt):
    """Give up what is being prepared, collected or uploaded for an attempt."""


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the controller where an attempt stands."""

    observation: Observation

    @property
    def ref(self) -> AttemptRef:
        """Which attempt it is about."""
        return self.observation.ref


@dataclass(frozen=True, slots=True)
class Forget(_OfAttempt):
    """Leave nothing of an attempt: streams, keeper's record, folder, journal; `keep` its folder."""

    has_ports: bool
    keep: bool


AttemptEffect = (
    Prepare
    | PrepareBundle
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

AttemptsEffect = (
    AttemptEffect
    | WriteJournal
    | NoteStreamWorker
    | DismissKeeper
    | DismissStreamWorker
    | DesiredRecorded
)
