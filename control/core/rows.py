"""What is written down: rows of the store, each an upsert by its key.

No row changes once the change set has it. Those that each job makes are not frozen, since that costs them twice the
time.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from control.core.presence import Presence
from control.core.standing import JobCounts, Standing
from shoal import model
from shoal.identity import Role
from shoal.names import AttemptRef, JobRef, PipelineRef
from shoal.session.port_hold import PortHold
from shoal.spec import Pipeline
from shoal.view import Event


@dataclass(slots=True)
class PipelineAdded:
    """A submission; `position` orders submissions, and its jobs are queued without rows of theirs.

    `kind` is equal for pipelines that find room in the same places. `data` is the encoded spec, and
    `digest` is its SHA-256 in hex, where the submission had a request id. `creator` is the caller that
    submitted it, described; empty in a cluster without identity. `revived_from` is the id of the dead letter
    that it runs again. `listings` are the digests of what was found for its folder inputs, by `JOB/INPUT`.
    `traceparent` is the span that it was submitted in, or the trace that was begun for it; empty for none. `stored` is
    the name of the stored version that it is of.
    """

    ref: PipelineRef
    position: int
    request_id: str
    spec: Pipeline
    create_time: datetime
    kind: str = field(default="", compare=False)
    data: bytes = field(default=b"", compare=False, repr=False)
    digest: str = field(default="", compare=False)
    creator: str = ""
    revived_from: str = ""
    stored: str = ""
    listings: Mapping[str, str] = field(default_factory=model.no_strings)
    traceparent: str = ""


class Queued(NamedTuple):
    """A pipeline of which no job was ever placed, as short as it can be: a queue may be long.

    `data` is the encoded spec, `create_micros` are microseconds since 1970, `listings` is JSON.
    """

    ref: PipelineRef
    position: int
    request_id: str
    data: bytes
    create_micros: int
    kind: str
    creator: str = ""
    revived_from: str = ""
    listings: str = "{}"
    traceparent: str = ""
    stored: str = ""


@dataclass(slots=True)
class PipelineRow:
    """What changes about a pipeline. `stop` is why its jobs have to end, once they have to.

    `finish_time` is when its sources were asked to end. `job_counts` says how many jobs are in each state, of one
    that has ended; of another one that follows from its jobs.
    """

    ref: PipelineRef
    state: model.PipelineState
    reason: model.Reason = model.NO_REASON
    stop: model.Reason | None = None
    end_time: datetime | None = None
    final_event_id: str = ""
    finish_time: datetime | None = None
    dead_letter: model.DeadLetter = model.DeadLetter.NONE
    revived_by: str = ""
    job_counts: JobCounts = ()


@dataclass(slots=True)
class JobRow:
    """A job: its last epoch and attempt, what it has survived, where it must or should not go.

    While it has a current attempt, the row of that says where it is (`control.core.hydration`).

    `ends` says after how many records the outputs of a source end, once that is known.
    """

    ref: JobRef
    state: model.JobState
    reason: model.Reason = model.NO_REASON
    epoch: int = 0
    number: int = 0
    failures: int = 0
    losses: int = 0
    retry_time: datetime | None = None
    pinned_node: str = ""
    avoid: tuple[str, ...] = ()
    ends: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class ScaleRow:
    """A change of a job's replicas; `number` counts those of the pipeline, from 1.

    Once it is settled, `rounds` is how many rounds each replica of the generation before has.
    """

    ref: PipelineRef
    number: int
    job: str
    replicas: int
    state: model.ScaleState
    create_time: datetime
    rounds: int = 0
    message: str = ""
    end_time: datetime | None = None


@dataclass(slots=True)
class AttemptRow:
    """One try of a job on one node; `still` are the ports that stand still, as it was told last.

    `updates` is how many texts a dashboard was told of it (`control.core.dashboard`).
    """

    ref: AttemptRef
    node: str
    state: model.JobState
    create_time: datetime
    reason: model.Reason = model.NO_REASON
    start_time: datetime | None = None
    end_time: datetime | None = None
    holds: tuple[PortHold, ...] = ()
    ended_inputs: tuple[str, ...] = ()
    artifacts: tuple[model.Artifact, ...] = ()
    still: tuple[str, ...] = ()
    updates: int = 0


@dataclass(slots=True)
class ManifestRow:
    """The one commit of a job."""

    key: str
    attempt: AttemptRef
    artifacts: tuple[model.Artifact, ...]
    commit_time: datetime


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as its agent last introduced itself, whether it is drained, and what was told of it last.

    `move_time` is when what still runs on a drained node is moved; None for never.
    """

    name: str
    agent_id: str
    capacity: model.Capacity
    labels: Mapping[str, str] = field(default_factory=model.no_strings)
    architecture: str = ""
    stream_address: str = ""
    agent_version: str = ""
    member_name: str = ""
    drained: bool = False
    last_seen_time: datetime | None = None
    instance_id: str = ""
    presence: Presence = Presence.UNTOLD
    move_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class StartRow:
    """One start of the control plane on this store: a random id, and how many commits it made.

    It is written with each commit, so that a copy of the store knows how old it is.
    """

    term: int
    id: str
    commits: int = 0


class OutboxKind(enum.StrEnum):
    """What is to be done with an outbox row."""

    MANIFEST = "manifest"
    """Put `data` under `key` into the archive, if nothing is there yet."""
    COPIES = "copies"
    """Copy the results that the manifest under `key` names to where `data`, a prefix, says."""
    EVENT = "event"
    """Publish `data` as a CloudEvent."""
    STATE = "state"
    """The same, unless a newer state of its subject comes before it has left, and takes its place."""
    NOTE = "note"
    """Publish `data` as a CloudEvent; it may come about any number of times, and each one is told."""
    MESSAGE = "message"
    """Publish `data` as it is, on the topic `key`."""
    KEPT_MESSAGE = "kept_message"
    """The same, and the broker retains it for clients that come later."""


@dataclass(frozen=True, slots=True)
class OutboxWaiting:
    """How many rows of the outbox wait, as far as they were counted, and when the first of them was recorded."""

    rows: int
    oldest: datetime | None = None


@dataclass(slots=True)
class OutboxRow:
    """Something that must leave, in the order of `sequence`; `data` is JSON.

    `key` is empty for events, and the topic of messages; `type` is empty for manifests. `id` is stable. The
    change set gives it its `sequence`, from 1, which also ends the id of a state or a note: it may come about
    any number of times.
    """

    kind: OutboxKind
    namespace: str
    subject: str
    id: str
    time: datetime
    data: str
    type: str = ""
    key: str = ""
    sequence: int = 0

    @property
    def is_told(self) -> bool:
        """Whether the broker gets it; the rest is work on the archive, before what comes after it is told."""
        return self.kind not in {OutboxKind.MANIFEST, OutboxKind.COPIES}


@dataclass(slots=True)
class SpansRow:
    """Spans that have to leave, as `services.traces.span` writes them; the store gives it its `sequence`."""

    data: str
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class NodeForgotten:
    """A node that is no longer remembered; rows of it that come later are those of a new one."""

    name: str


@dataclass(frozen=True, slots=True)
class PipelineForgotten:
    """An ended pipeline that is no longer remembered; its outbox rows stay until they have left."""

    ref: PipelineRef


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A join token: `secret_hash` is all that is kept of its secret; without `uses_left` it is used up.

    `name_pattern` (shell wildcards) says which names it is good for; empty for any.
    """

    id: str
    secret_hash: str = field(repr=False)
    role: Role
    name_pattern: str
    namespace: str
    create_time: datetime
    expire_time: datetime
    uses_left: int
    creator: str = ""


@dataclass(frozen=True, slots=True)
class TokenForgotten:
    """A join token that is no longer remembered."""

    id: str


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """A certificate that was issued.

    `serial` is hexadecimal, `key_hash` the SHA-256 of its public key, `authority` the fingerprint of the
    authority that signed it, `pem` the certificate itself. `replaced_by` is the serial of one that took the
    place of this one as its node joined again; that revoked it, too.
    """

    serial: str
    role: Role
    name: str
    namespace: str
    issue_time: datetime
    expire_time: datetime
    key_hash: str
    authority: str
    pem: bytes = field(repr=False)
    token_id: str = ""
    revoke_time: datetime | None = None
    replaced_by: str = ""

    @property
    def holder(self) -> Holder:
        """Whose it is."""
        return Holder(self.role, self.name, self.namespace)


class Holder(NamedTuple):
    """An identity of this cluster."""

    role: Role
    name: str
    namespace: str = ""

    @property
    def described(self) -> str:
        """As events and people name it: `node/cam-1`, `viewer/lab/ann`."""
        return "/".join(filter(None, (self.role, self.namespace, self.name)))


@dataclass(frozen=True, slots=True)
class CertificateForgotten:
    """A certificate that is over, and no longer remembered."""

    serial: str


SEAL_BYTES: Final = 12 + 16
"""How much longer a sealed value is: by its nonce and its tag."""


@dataclass(frozen=True, slots=True)
class SecretRow:
    """A secret, sealed.

    `sealed` begins with the nonce, `key_id` names the key that it is sealed under, `version` counts from 1 how
    often it was set. `text` says whether a variable can hold the value; `creator` is the identity that set it.
    """

    namespace: str
    name: str
    version: int
    key_id: str
    sealed: bytes = field(repr=False)
    text: bool
    create_time: datetime
    update_time: datetime
    creator: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def size_bytes(self) -> int:
        """How long the value is."""
        return len(self.sealed) - SEAL_BYTES


@dataclass(frozen=True, slots=True)
class SecretForgotten:
    """A secret that is no longer there."""

    namespace: str
    name: str


StoredKey = tuple[str, str]
"""A namespace and the name of a stored pipeline."""


@dataclass(frozen=True, slots=True)
class StoredVersionRow:
    """One version of a stored pipeline.

    `content` is an encoded `StoredPipeline` of the contract with source and parameters alone, and `digest` says whether
    two are the same. `bundle_digest` is of the bundle that it names, which is kept for it.
    """

    namespace: str
    name: str
    version: int
    description: str
    digest: str
    bundle_digest: str
    create_time: datetime
    creator: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredVersionForgotten:
    """A version of a stored pipeline that is no longer there."""

    namespace: str
    name: str
    version: int


@dataclass(frozen=True, slots=True)
class StoredDeleted:
    """A stored pipeline was deleted when its newest version had this number; 0 for one that is there again."""

    namespace: str
    name: str
    newest: int


@dataclass(frozen=True, slots=True)
class StoredHead:
    """How far a stored pipeline has come.

    Attributes:
        namespace: where it belongs.
        name: its name.
        newest: number of its newest version; 0 before the first one.
        sizes: bytes of the versions that are kept, up to the newest one; none of one that was deleted.
        digest: of the newest version; empty of one that was deleted.
    """

    namespace: str
    name: str
    newest: int = 0
    sizes: tuple[int, ...] = ()
    digest: str = ""

    @property
    def key(self) -> StoredKey:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def oldest(self) -> int:
        """Number of the oldest version that is kept; behind the newest one if none is."""
        return self.newest - len(self.sizes) + 1

    @property
    def deleted(self) -> bool:
        """Whether there is no version of it."""
        return not self.sizes


Row = (
    PipelineAdded
    | PipelineRow
    | JobRow
    | ScaleRow
    | AttemptRow
    | ManifestRow
    | NodeRow
    | NodeForgotten
    | StartRow
    | OutboxRow
    | PipelineForgotten
    | TokenRow
    | TokenForgotten
    | CertificateRow
    | CertificateForgotten
    | SecretRow
    | SecretForgotten
    | SpansRow
    | StoredVersionRow
    | StoredVersionForgotten
    | StoredDeleted
)
"""Anything that one transaction may contain."""


@dataclass(frozen=True, slots=True)
class PipelineRows:
    """All rows of some pipelines, by position; attempts by job and number, scales by number."""

    added: tuple[PipelineAdded, ...] = ()
    pipelines: tuple[PipelineRow, ...] = ()
    jobs: tuple[JobRow, ...] = ()
    scales: tuple[ScaleRow, ...] = ()
    attempts: tuple[AttemptRow, ...] = ()
    manifests: tuple[ManifestRow, ...] = ()


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """The pipeline that a request id made, and the digest of the spec that came with it.

    `digest` is empty for a request of an earlier version. Once the pipeline is forgotten, `spec` is None and
    `ended` is the state in which it ended.
    """

    ref: PipelineRef
    digest: str
    spec: Pipeline | None
    ended: model.PipelineState | None = None


RequestKey = tuple[str, str]
"""A namespace and a request id."""


@dataclass(frozen=True, slots=True)
class FoundRows:
    """What was found of the pipelines and the requests that were asked for."""

    rows: PipelineRows = PipelineRows()
    requests: Mapping[RequestKey, KnownRequest] = field(
        default_factory=dict[RequestKey, KnownRequest]
    )


@dataclass(frozen=True, slots=True)
class KeptNames:
    """What the store names, in one snapshot: pipelines by namespace and id, content by its SHA-256.

    `spared` have not ended, or are dead letters. `awaited` are the keys of manifests on their way.
    """

    spared: frozenset[tuple[str, str]] = frozenset()
    bundles: frozenset[str] = frozenset()
    listings: frozenset[str] = frozenset()
    awaited: frozenset[str] = frozenset()


class ObjectsWaiting(NamedTuple):
    """What of the outbox waits for the archive, in order: manifests, and copies that are to be made.

    `through` is the sequence up to which that is all of it; behind it there may be `more`.
    """

    rows: Sequence[OutboxRow]
    through: int
    more: bool


class EventsRead(NamedTuple):
    """Events in their order, which may be none.

    `through` is the sequence up to which, or newest first down to which, that is all; behind it there may be `more`.
    """

    events: tuple[Event, ...]
    through: int
    more: bool


def _nothing(_: Queued) -> PipelineAdded | None:
    return None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the control machine starts from: rows of pipelines that are under way, and keys of the others.

    `starts` are those on this store by term, and the last one is this one. `next_sequence` and `next_position` are
    not taken yet. `queued` are the first of those of which no job was ever placed, by position; those behind them
    are read later. `open_of` says how many pipelines each creator has that have not ended. `begin` decodes one of
    them (None if it cannot be read), and `ended` are those that have ended, the longest ended first, but for
    `dead`, which are kept as dead letters, with when they ended. `standings` has all pipelines; how many jobs of one
    are in each state is right but of those under way.
    """

    rows: PipelineRows = PipelineRows()
    cluster_id: str = ""
    starts: tuple[StartRow, ...] = (StartRow(1, ""),)
    next_sequence: int = 1
    next_position: int = 1
    queued: tuple[Queued, ...] = ()
    open_of: Mapping[str, int] = field(default_factory=dict[str, int])
    begin: Callable[[Queued], PipelineAdded | None] = _nothing
    ended: tuple[PipelineRef, ...] = ()
    dead: tuple[tuple[PipelineRef, datetime], ...] = ()
    standings: Mapping[PipelineRef, Standing] = field(default_factory=dict[PipelineRef, Standing])
    nodes: tuple[NodeRow, ...] = ()
    tokens: tuple[TokenRow, ...] = ()
    certificates: tuple[CertificateRow, ...] = ()
    secrets: tuple[SecretRow, ...] = ()
    stored: tuple[StoredHead, ...] = ()
