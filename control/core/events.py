"""Everything that can happen to the control machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from control.core.answers import Submission
from control.core.call_note import CallNote
from control.core.rows import CertificateRow, Holder, SecretRow, StoredVersionRow, TokenRow
from shoal.model import MemberState
from shoal.names import PipelineRef
from shoal.session.messages import Hello, NodeCondition
from shoal.session.observation import Observation
from shoal.session.progress import Progress


@dataclass(frozen=True, slots=True)
class Call:
    """An event whose caller waits for an `Answer` with the same number.

    With a `note`, what it changes is told with the caller that asked for it.
    """

    call: int
    note: CallNote | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Submit(Call):
    """A pipeline is submitted."""

    submission: Submission


@dataclass(frozen=True, slots=True)
class Cancel(Call):
    """A pipeline is to be cancelled."""

    ref: PipelineRef
    reason: str


@dataclass(frozen=True, slots=True)
class Finish(Call):
    """The sources of a pipeline are to end."""

    ref: PipelineRef


@dataclass(frozen=True, slots=True)
class Scale(Call):
    """A job of a spec is to have another number of replicas."""

    ref: PipelineRef
    job: str
    replicas: int


@dataclass(frozen=True, slots=True)
class Revive(Call):
    """The specification of a dead letter is to run again."""

    ref: PipelineRef


@dataclass(frozen=True, slots=True)
class Discard(Call):
    """A dead letter is no longer to be kept."""

    ref: PipelineRef


@dataclass(frozen=True, slots=True)
class Drain(Call):
    """A node is taken out of service, or back into it; after so many seconds what runs there is moved.

    None lets what runs there go on to its end, or changes nothing of what was asked before.
    """

    node: str
    drained: bool
    move_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Adopt(Call):
    """A quarantined node may follow this controller."""

    node: str


@dataclass(frozen=True, slots=True)
class ForgetNode(Call):
    """A node that is gone is no longer remembered."""

    node: str


@dataclass(frozen=True, slots=True)
class CallMade(Call):
    """A call has changed something that is not here: keys, tokens, authorities; `name` says what."""

    name: str


@dataclass(frozen=True, slots=True)
class CallsRefused(Call):
    """Calls of one caller were refused: how often for each reason, and method and address of the last one."""

    caller: str
    reasons: Mapping[str, int]
    method: str
    address: str


@dataclass(frozen=True, slots=True)
class HelloReceived(Call):
    """An agent introduces itself; `address` is where it dialled from, `serial` that of its certificate."""

    hello: Hello
    session_id: str
    address: str = ""
    serial: str = ""


@dataclass(frozen=True, slots=True)
class Observed(Call):
    """An agent says where attempts stand."""

    node: str
    session_id: str
    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class SessionClosed(Call):
    """The stream of a session broke or ended; the lease goes on."""

    node: str
    session_id: str


@dataclass(frozen=True, slots=True)
class StreamWorkerGone(Call):
    """The address of a node's stream worker refuses connections."""

    node: str


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
class BundlesReported:
    """An agent says which bundles its node has, by their SHA-256 (hex)."""

    node: str
    session_id: str
    digests: frozenset[str]


@dataclass(frozen=True, slots=True)
class MemberVerdict:
    """Gossip changed its mind about a member."""

    member: str
    state: MemberState


@dataclass(frozen=True, slots=True)
class CreateToken(Call):
    """A join token is made."""

    token: TokenRow


@dataclass(frozen=True, slots=True)
class RevokeToken(Call):
    """A join token is no longer good."""

    token_id: str


@dataclass(frozen=True, slots=True)
class Join(Call):
    """A token is to be taken for a certificate, which is signed already, and is not handed out yet.

    `secret_hash` is of the secret that was shown, `address` where it came from.
    """

    certificate: CertificateRow
    secret_hash: str = field(repr=False)
    address: str = ""


@dataclass(frozen=True, slots=True)
class Renew(Call):
    """An identity that proved itself by a certificate with this serial gets another one."""

    certificate: CertificateRow
    serial: str


@dataclass(frozen=True, slots=True)
class RevokeIdentity(Call):
    """All certificates of an identity are no longer good; `revoker` is whose decision that is."""

    holder: Holder
    revoker: str = ""


@dataclass(frozen=True, slots=True)
class SetSecret(Call):
    """A secret is to have another value, sealed already, or its first one."""

    secret: SecretRow


@dataclass(frozen=True, slots=True)
class RemoveSecret(Call):
    """A secret is no longer to be there."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class ResealSecrets(Call):
    """The values of secrets are sealed under another key."""

    secrets: tuple[SecretRow, ...]


@dataclass(frozen=True, slots=True)
class StorePipeline(Call):
    """A specification is to be kept under a name; its row gets the number of its version and the time.

    `update_of` is the number of the version that it is an update of; 0 for the first one of a name.
    """

    row: StoredVersionRow
    update_of: int


@dataclass(frozen=True, slots=True)
class DeleteStored(Call):
    """A stored pipeline is no longer to be there, if this is its newest version; 0 for any."""

    namespace: str
    name: str
    version: int


Event = (
    Submit
    | Cancel
    | Finish
    | Scale
    | Revive
    | Discard
    | Drain
    | Adopt
    | ForgetNode
    | CallMade
    | CallsRefused
    | HelloReceived
    | Observed
    | SessionClosed
    | StreamWorkerGone
    | Progressed
    | Conditioned
    | BundlesReported
    | MemberVerdict
    | CreateToken
    | RevokeToken
    | Join
    | Renew
    | RevokeIdentity
    | SetSecret
    | RemoveSecret
    | ResealSecrets
    | StorePipeline
    | DeleteStored
)
"""The closed union of what happens."""
