"""Everything that can happen to the control machine.

`call` names the caller that waits for an `Answer` with the same number.
"""

from __future__ import annotations

from dataclasses import dataclass

from control.core.answers import Submission
from shoal.model import MemberState
from shoal.names import PipelineRef
from shoal.session.messages import Hello, NodeCondition
from shoal.session.observation import Observation
from shoal.session.progress import Progress


@dataclass(frozen=True, slots=True)
class Submit:
    """A pipeline is submitted."""

    call: int
    submission: Submission


@dataclass(frozen=True, slots=True)
class Cancel:
    """A pipeline is to be cancelled."""

    call: int
    ref: PipelineRef
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The sources of a pipeline are to end."""

    call: int
    ref: PipelineRef


@dataclass(frozen=True, slots=True)
class Scale:
    """A job of a spec is to have another number of replicas."""

    call: int
    ref: PipelineRef
    job: str
    replicas: int


@dataclass(frozen=True, slots=True)
class Drain:
    """A node is taken out of service, or back into it."""

    call: int
    node: str
    drained: bool


@dataclass(frozen=True, slots=True)
class Adopt:
    """A quarantined node may follow this controller."""

    call: int
    node: str


@dataclass(frozen=True, slots=True)
class ForgetNode:
    """A node that is gone is no longer remembered."""

    call: int
    node: str


@dataclass(frozen=True, slots=True)
class HelloReceived:
    """An agent introduces itself; `address` is where it dialled from."""

    call: int
    hello: Hello
    session_id: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """An agent says where attempts stand."""

    call: int
    node: str
    session_id: str
    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The stream of a session broke or ended; the lease goes on."""

    call: int
    node: str
    session_id: str


@dataclass(frozen=True, slots=True)
class StreamWorkerGone:
    """The address of a node's stream worker refuses connections."""

    call: int
    node: str


@dataclass(frozen=True, slots=True)
class HeartbeatReceived:
    """An agent is alive; has no effects."""

    node: str
    session_id: str


@dataclass(frozen=True, slots=True)
class Progressed:
    """An agent reports counters."""

    node: str
    session_id: str
    progress: Progress


@dataclass(frozen=True, slots=True)
class Conditioned:
    """An agent says how its node stands."""

    node: str
    session_id: str
    condition: NodeCondition


@dataclass(frozen=True, slots=True)
class MemberVerdict:
    """Gossip changed its mind about a member."""

    member: str
    state: MemberState


Event = (
    Submit
    | Cancel
    | Finish
    | Scale
    | Drain
    | Adopt
    | ForgetNode
    | HelloReceived
    | Observed
    | SessionClosed
    | StreamWorkerGone
    | HeartbeatReceived
    | Progressed
    | Conditioned
    | MemberVerdict
)
"""The closed union of what happens."""
