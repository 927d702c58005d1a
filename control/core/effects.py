"""What the control machine asks for, always in this order: record first, then act.

No effect changes once it is made. Those that each job makes are not frozen, since that costs them twice the time.
"""

from __future__ import annotations

from dataclasses import dataclass

from control.core.answers import Refusal
from control.core.errors import ControlError
from control.core.rows import CertificateRow, OutboxRow, Row
from shoal.model import Followed, PipelineState
from shoal.names import PipelineRef
from shoal.session.messages import Fenced


@dataclass(frozen=True, slots=True)
class CommitRows:
    """Write these rows in one transaction before anything that follows.

    `tells` says whether the outbox grows, `objects` are its new rows for the archive, and `through` is
    the last sequence that was given to any; `traces` says whether there are spans among the rows.
    """

    rows: tuple[Row, ...]
    tells: bool = False
    objects: tuple[OutboxRow, ...] = ()
    through: int = 0
    traces: bool = False


@dataclass(frozen=True, slots=True)
class EndSession:
    """This session of a node is over; its stream is to be ended."""

    node: str
    session_id: str
    why: str


@dataclass(frozen=True, slots=True)
class SetDesired:
    """What should run on a node has changed."""

    node: str


@dataclass(slots=True)
class ShowPipeline:
    """People see a pipeline differently from now on; `gone` when it was forgotten."""

    ref: PipelineRef
    gone: bool = False


@dataclass(frozen=True, slots=True)
class ShowNode:
    """People see a node differently from now on; `gone` when it was forgotten."""

    name: str
    gone: bool = False


@dataclass(slots=True)
class Taken:
    """A submission is recorded under this name, by this call or by an earlier one.

    `ended` is the state in which a pipeline ended that is forgotten.
    """

    ref: PipelineRef
    repeated: bool
    ended: PipelineState | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """A session is open: which observations are stale, and what the agent follows from now on.

    With `quarantine` nothing is wanted of it or taken from it. `adopted` says that a person had it
    give up what it followed before.
    """

    fenced: tuple[Fenced, ...]
    following: Followed
    quarantine: str = ""
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class Tell:
    """The agent of a session should say something in its log."""

    node: str
    session_id: str
    text: str


@dataclass(frozen=True, slots=True)
class TrustChanged:
    """Other certificates are revoked than before."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate is recorded, and may be handed out."""

    certificate: CertificateRow


@dataclass(frozen=True, slots=True)
class Revoked:
    """So many certificates were revoked."""

    certificates: int


@dataclass(frozen=True, slots=True)
class VersionStored:
    """A stored pipeline has this version, by this call or by an earlier one."""

    version: int
    repeated: bool


AnswerValue = (
    Taken
    | Admitted
    | Issued
    | Revoked
    | VersionStored
    | Refusal
    | tuple[Fenced, ...]
    | ControlError
    | None
)
"""What a caller may be answered with."""


@dataclass(slots=True)
class Answer:
    """The caller `call` may know now."""

    call: int
    value: AnswerValue


Effect = (
    CommitRows | TrustChanged | EndSession | Tell | SetDesired | ShowPipeline | ShowNode | Answer
)
"""The closed union of effects."""
