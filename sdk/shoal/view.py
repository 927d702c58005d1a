"""What the system knows of what was asked for: pipelines, jobs, nodes and events for clients.

Frozen values. Times are aware datetimes in UTC, or None while the thing has not happened.
"""

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from shoal import model
from shoal.kept_folder import KeptFolder
from shoal.node_facts import NodeFacts
from shoal.sandbox import NodeSandbox
from shoal.spec import Pipeline


def no_counts() -> Mapping[model.JobState, int]:
    """No jobs in any state."""
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Manifest:
    """The committed list of a job's artifacts.

    `key` is the manifest's own key in the archive; `attempt` the hierarchical name of the attempt
    that wrote the artifacts, `epoch` the epoch of its placement.
    """

    key: str
    attempt: str
    epoch: int
    artifacts: tuple[model.Artifact, ...] = ()
    commit_time: datetime | None = None
    left_out: int = 0
    """How many more there are than `artifacts` lists."""


@dataclass(frozen=True, slots=True)
class ListedArtifact:
    """An artifact in a list, with the id of its job.

    `attempt` is the hierarchical name of the attempt that wrote it, empty where the controller did not say it; `url`
    an address under which it can be read until `url_end_time`, empty where none was asked for.
    """

    artifact: model.Artifact
    job: str
    attempt: str = ""
    url: str = ""
    url_end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One try of a job on one node."""

    name: str
    number: int
    epoch: int
    state: model.JobState
    node: str = ""
    reason: model.Reason = model.NO_REASON
    create_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    manifest: Manifest | None = None
    """What it has in the archive, if it did not succeed and is not that of its job's manifest."""


@dataclass(frozen=True, slots=True)
class JobView:
    """One job (one replica) with its attempts, oldest first.

    `name` is `pipelines/{p}/jobs/{j}`; `spec_name` the name in the spec that it came from;
    `waiting_for` says for what it waits and until when; it is empty while it does not.
    """

    name: str
    spec_name: str
    state: model.JobState
    replica: int = 0
    reason: model.Reason = model.NO_REASON
    node: str = ""
    epoch: int = 0
    attempts: tuple[AttemptView, ...] = ()
    streams: tuple[model.StreamCounters, ...] = ()
    manifest: Manifest | None = None
    progress: str = ""
    waiting_for: str = ""
    generation: int = 0

    @property
    def id(self) -> str:
        """The last part of the name: `detector-1`."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def artifacts(self) -> tuple[model.Artifact, ...]:
        """What it has in the archive; those that a manifest left out are missing here too."""
        return () if self.manifest is None else self.manifest.artifacts


@dataclass(frozen=True, slots=True)
class ScaleView:
    """A change of the number of replicas of a job, by its name in the spec.

    `rounds` is how many rounds each replica of the generation before has, once it is settled;
    `message` says why it was abandoned.
    """

    number: int
    job: str
    replicas: int
    state: model.ScaleState
    rounds: int = 0
    message: str = ""
    create_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class PrefetchView:
    """How many connected nodes are to have the bundle of a pipeline, and how many of them have it."""

    nodes: int
    present: int


@dataclass(frozen=True, slots=True)
class PipelineView:
    """A submitted pipeline: its spec, its derived state and its jobs at one revision.

    `creator` is the identity that submitted it, such as `submitter/ann` or `gateway/web for ann`; empty in a
    cluster without identity. `dead_letter` says whether a person is to look at it; `revived_by` is the id of
    the pipeline that runs the same again, and `revived_from` that of the one that this one runs again.
    `prefetch` counts nodes while it runs, if its bundle is fetched before it is needed. `traceparent` is its span,
    empty if it is in no trace. `stored` is the name of the
    stored version that it is of (`stored/{name}/versions/{number}`); empty if it was submitted as a specification.
    """

    id: str
    namespace: str
    state: model.PipelineState
    spec: Pipeline
    reason: model.Reason = model.NO_REASON
    create_time: datetime | None = None
    end_time: datetime | None = None
    jobs: tuple[JobView, ...] = ()
    revision: int = 0
    final_event_id: str = ""
    scales: tuple[ScaleView, ...] = ()
    finish_time: datetime | None = None
    creator: str = ""
    dead_letter: model.DeadLetter = model.DeadLetter.NONE
    revived_from: str = ""
    revived_by: str = ""
    prefetch: PrefetchView | None = None
    traceparent: str = ""
    stored: str = ""

    @property
    def name(self) -> str:
        """`pipelines/{id}`."""
        return f"pipelines/{self.id}"

    @property
    def spec_name(self) -> str:
        """The name in its specification."""
        return self.spec.name

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of its specification."""
        return self.spec.labels


@dataclass(frozen=True, slots=True)
class PipelineSummary:
    """A pipeline without its spec and its jobs, as short as a line of a list: how many jobs are in each state.

    `spec_name` is the name in its specification. The other fields are as those of `PipelineView`, but that a long
    sentence of the reason may be cut.
    """

    id: str
    namespace: str
    state: model.PipelineState
    spec_name: str = ""
    labels: Mapping[str, str] = field(default_factory=model.no_strings)
    job_counts: Mapping[model.JobState, int] = field(default_factory=no_counts)
    reason: model.Reason = model.NO_REASON
    create_time: datetime | None = None
    end_time: datetime | None = None
    revision: int = 0
    final_event_id: str = ""
    finish_time: datetime | None = None
    creator: str = ""
    dead_letter: model.DeadLetter = model.DeadLetter.NONE
    revived_from: str = ""
    revived_by: str = ""
    stored: str = ""

    @classmethod
    def of(cls, pipeline: PipelineView) -> "PipelineSummary":
        """Sum a pipeline up."""
        counts = Counter([job.state for job in pipeline.jobs])
        return cls(
            pipeline.id,
            pipeline.namespace,
            pipeline.state,
            pipeline.spec.name,
            pipeline.spec.labels,
            MappingProxyType(dict(sorted(counts.items()))),
            pipeline.reason,
            pipeline.create_time,
            pipeline.end_time,
            pipeline.revision,
            pipeline.final_event_id,
            pipeline.finish_time,
            pipeline.creator,
            pipeline.dead_letter,
            pipeline.revived_from,
            pipeline.revived_by,
            pipeline.stored,
        )

    @property
    def name(self) -> str:
        """`pipelines/{id}`."""
        return f"pipelines/{self.id}"


@dataclass(frozen=True, slots=True)
class Unlisted:
    """In a watch with a filter: a pipeline does not match now, or was forgotten; whether it did before is not said."""

    id: str
    namespace: str
    revision: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        """`pipelines/{id}`."""
        return f"pipelines/{self.id}"


@dataclass(frozen=True, slots=True)
class PipelineTotals:
    """How many pipelines are in each state, how many jobs of them are, and how many are kept as dead letters."""

    pipelines: Mapping[model.PipelineState, int]
    jobs: Mapping[model.JobState, int]
    dead_letters: int = 0


@dataclass(frozen=True, slots=True)
class NodeView:
    """A machine that can run attempts, as the controller records it.

    `quarantine` and `conflict` are sentences for people, empty while all is well: why nothing may be
    wanted of its agent, and which other agent claims its name. `kept` is known of a single node alone.
    In a watch, `forgotten` says that there is no such node any more. `outdated` says which of its
    keeper and its stream worker are not what its agent would start, and until when. `facts` are known of a
    single node, and in a watch that asks for them; `facts_time` is when the controller was told them, and
    `facts_problem` says why there are none, or no fresh ones. `move_time` is when what still runs on a drained
    node is moved. `sandbox` is what it can do to keep jobs apart, None where that is not known.
    """

    name: str
    connected: bool = False
    drained: bool = False
    member_state: model.MemberState = model.MemberState.UNKNOWN
    capacity: model.Capacity = model.NO_CAPACITY
    claimed: model.Capacity = model.NO_CAPACITY
    labels: Mapping[str, str] = field(default_factory=model.no_strings)
    attempts: tuple[str, ...] = ()
    agent_version: str = ""
    architecture: str = ""
    stream_address: str = ""
    last_seen_time: datetime | None = None
    revision: int = 0
    quarantine: str = ""
    conflict: str = ""
    refuses: str = ""
    kept: tuple[KeptFolder, ...] = ()
    forgotten: bool = False
    keeper_version: str = ""
    stream_worker_version: str = ""
    outdated: str = ""
    facts: NodeFacts | None = None
    facts_time: datetime | None = None
    facts_problem: str = ""
    move_time: datetime | None = None
    sandbox: NodeSandbox | None = None


@dataclass(frozen=True, slots=True)
class MemberView:
    """A participant in gossip, as the controller's own member sees it.

    In a watch, the state UNKNOWN says that it was forgotten.
    """

    name: str
    address: str
    port: int
    state: model.MemberState
    incarnation: int = 0
    tags: Mapping[str, str] = field(default_factory=model.no_strings)
    state_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyHolders:
    """A key that seals gossip, by its name: how many members have it, and how many seal with it."""

    id: str
    installed: int
    primary: int


@dataclass(frozen=True, slots=True)
class KeysReport:
    """What the members said about their keys: how many were asked, answered, and refused.

    `messages` says by member why; `keys` is filled when keys were asked for, the one in use first.
    """

    members: int
    answered: int
    failed: int
    messages: Mapping[str, str] = field(default_factory=model.no_strings)
    keys: tuple[KeyHolders, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every member did what was asked."""
        return self.answered >= self.members and not self.failed


@dataclass(frozen=True, slots=True)
class Event:
    """A fact that leaves over MQTT; `sequence` is its place in the outbox.

    `problem` says why one that is not published waits, or, where it is set aside, cannot leave.
    """

    id: str
    type: str
    subject: str
    time: datetime | None = None
    data_json: str = "{}"
    sequence: int = 0
    published: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class NodeVerdict:
    """What the scheduler thinks of one node for one job; a higher score is better."""

    node: str
    feasible: bool
    sentence: str
    score: float = 0.0


class LogStream(enum.IntEnum):
    """Which of a program's two outputs; the numbers are those of the contract."""

    STDOUT = 1
    STDERR = 2


LIVE_LOG_BYTES_MAX = 16 << 20
"""How much of one output of an attempt comes live; the archive has all of what succeeded."""


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A piece of what an attempt printed; `offset` is where it begins in the whole log, in bytes.

    `print_time` is when the last of it was printed, by the clock of its node; None if that was not asked
    for, or is not known.
    """

    attempt: str
    stream: LogStream
    offset: int
    data: bytes
    epoch: int = 0
    print_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class TapRecord:
    """A record as it passed: its number on the port, its length, and how it begins (`data`).

    `data` is all of it unless the record is longer than what was asked for. With `headers` it
    begins with a u16 and so many bytes of JSON (docs/architecture.md, section 3).
    """

    sequence: int
    size_bytes: int
    data: bytes
    headers: bool = False


@dataclass(frozen=True, slots=True)
class TapConsumer:
    """How far a consumer is behind on its lane: records that its job has not taken, bytes unsent."""

    lane: str
    behind_records: int = 0
    behind_bytes: int = 0
    done: bool = False


@dataclass(frozen=True, slots=True)
class TapNews:
    """What a tap has to say of one replica: records and counters, or a sentence why none come.

    `dropped` counts what was to be shown and was not, since the tap opened on this epoch.
    """

    job: str
    epoch: int
    sentence: str = ""
    records: tuple[TapRecord, ...] = ()
    dropped: int = 0
    port: model.StreamCounters | None = None
    consumers: tuple[TapConsumer, ...] = ()
    ended: bool = False


@dataclass(frozen=True, slots=True)
class TapWish:
    """How much of a stream a tap shows; zeros leave it to the worker (1,000 records, 1 MiB a second).

    `every` shows records whose number is a multiple of it, `record_bytes` how much of each.
    """

    every: int = 1
    records_per_second: float = 0.0
    bytes_per_second: float = 0.0
    record_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    """In a watch: everything up to `revision` has been shown; changes follow."""

    revision: int
