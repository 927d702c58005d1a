"""What the control machine holds in memory: pipelines, jobs, attempts and nodes.

Mutable, and changed by the machine alone. Monotonic times end in `_at`, wall times in `_time`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from hashlib import blake2b
from operator import attrgetter
from typing import Any

from control.core import lifecycle, rows
from control.core.presence import Presence
from control.core.scheduler.plan import asked
from control.core.scheduler.snapshot import NodeSnapshot, Pending, Resident
from control.core.standing import JobCounts
from control.core.topology import LaneEnd, Replica, Topology, topology
from shoal import model
from shoal.names import AttemptRef, JobRef, PipelineRef
from shoal.sandbox import NodeSandbox
from shoal.session.assignment import Assignment, Goal
from shoal.session.feature import Feature, needed_features
from shoal.session.lane import LanePeer
from shoal.session.messages import WELL, NodeCondition
from shoal.session.port_hold import PortHold
from shoal.session.stage import StageReached
from shoal.spec import Job, Pipeline
from shoal.trace_context import TraceContext
from shoal.view import JobView, PrefetchView

_Row = rows.AttemptRow | rows.JobRow | rows.PipelineRow | rows.NodeRow


def _written(row: type[_Row]) -> Callable[[object], Any]:
    """Return a function for the attributes of a record that are written down, in the order of a row."""
    return attrgetter(*(field.name for field in fields(row)))


_ATTEMPT = _written(rows.AttemptRow)
_JOB = _written(rows.JobRow)
_PIPELINE = _written(rows.PipelineRow)
_NODE = _written(rows.NodeRow)


def take(record: object, row: _Row) -> None:
    """Let a record be as it was written down."""
    for attribute in fields(row):
        setattr(record, attribute.name, getattr(row, attribute.name))


@dataclass(slots=True, eq=False)
class AttemptRecord:
    """One try of a job on one node; `assignment` is what its agent is told, until that changes.

    `held` is the number under which the outputs of a source stand still, since it is to end;
    `holds` says which of its outputs do stand still, and how far they are, as its agent observed it,
    and `ended_inputs` of which inputs a program that has ended well was shown the end. `artifacts` is
    what it has in the archive, if it did not succeed, and the job has no manifest of it.
    `still` are the ports that stand still, as it was told last.
    """

    ref: AttemptRef
    node: str
    state: model.JobState
    create_time: datetime
    reason: model.Reason = model.NO_REASON
    start_time: datetime | None = None
    end_time: datetime | None = None
    assignment: Assignment | None = None
    held: int = 0
    holds: tuple[PortHold, ...] = ()
    ended_inputs: tuple[str, ...] = ()
    artifacts: tuple[model.Artifact, ...] = ()
    still: tuple[str, ...] = ()
    updates: int = 0
    moving: bool = False
    """Whether its node is drained and its agent has to end it, so that its job goes elsewhere; follows from the
    node's `move_time`."""
    stages: tuple[StageReached, ...] = ()
    """Which stages its agent told last; said again with each observation, and so not written down."""
    pipeline: PipelineRef = field(init=False)

    def __post_init__(self) -> None:
        self.pipeline = self.ref.pipeline_ref

    def hold(self, port: str, number: int) -> PortHold | None:
        """How far an output is that stands still under this number; None if it has not been said."""
        return next((one for one in self.holds if (one.port, one.number) == (port, number)), None)

    def move(self, state: model.JobState) -> None:
        """Go to another state of the table.

        Raises:
            IllegalTransitionError: It is not on the table.
        """
        table = lifecycle.ATTEMPT
        if state not in table[self.state]:
            raise lifecycle.off_table("attempt", self.ref.name, table, self.state, state)
        self.state = state

    def row(self) -> rows.AttemptRow:
        """What is written down."""
        return rows.AttemptRow(*_ATTEMPT(self))


@dataclass(slots=True, eq=False)
class JobRecord:
    """One replica of a job: `attempt` is the current one, `attempts` all of them.

    `spec.replicas` is how many there are in its generation. `ends` says after how many records the
    outputs of a source end, once it was asked to and that is known.
    """

    ref: JobRef
    spec: Job
    replica: int
    generation: int = 0
    state: model.JobState = model.JobState.QUEUED
    reason: model.Reason = model.NO_REASON
    epoch: int = 0
    number: int = 0
    failures: int = 0
    losses: int = 0
    retry_time: datetime | None = None
    pinned_node: str = ""
    avoid: tuple[str, ...] = ()
    ends: Mapping[str, int] | None = None
    attempts: list[AttemptRecord] = field(default_factory=list[AttemptRecord])
    attempt: AttemptRecord | None = None
    manifest: rows.ManifestRow | None = None
    streams: tuple[model.StreamCounters, ...] = ()
    progress: str = ""
    waiting_for: str = ""
    pending: Pending | None = None
    view: JobView | None = None
    pipeline: PipelineRef = field(init=False)

    def __post_init__(self) -> None:
        self.pipeline = self.ref.pipeline_ref

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in lifecycle.ENDED

    def move(self, state: model.JobState) -> None:
        """Go to another state of the table.

        Raises:
            IllegalTransitionError: It is not on the table.
        """
        table = lifecycle.JOB
        if state not in table[self.state]:
            raise lifecycle.off_table("job", self.ref.name, table, self.state, state)
        self.state = state

    def row(self) -> rows.JobRow:
        """What is written down."""
        return rows.JobRow(*_JOB(self))


@dataclass(slots=True, eq=False)
class PipelineRecord:
    """A submitted pipeline; `stop` is why its jobs have to end, `open_jobs` how many have not.

    `finish_time` is when its sources were asked to end.
    """

    ref: PipelineRef
    position: int
    request_id: str
    creator: str
    spec: Pipeline
    create_time: datetime
    topology: Topology
    jobs: dict[str, JobRecord]
    open_jobs: int
    state: model.PipelineState = model.PipelineState.QUEUED
    reason: model.Reason = model.NO_REASON
    stop: model.Reason | None = None
    finish_time: datetime | None = None
    end_time: datetime | None = None
    final_event_id: str = ""
    dead_letter: model.DeadLetter = model.DeadLetter.NONE
    revived_from: str = ""
    revived_by: str = ""
    job_counts: JobCounts = ()
    """How many jobs are in each state, once it has ended."""
    stored: str = ""
    prefetched: PrefetchView | None = None
    """On how many nodes its bundle is, while it is fetched before it is needed."""
    revision: int = 0
    scales: list[rows.ScaleRow] = field(default_factory=list[rows.ScaleRow])
    listings: Mapping[str, str] = field(default_factory=model.no_strings)
    traceparent: str = ""
    gang_kinds: dict[str, frozenset[object]] = field(default_factory=dict[str, frozenset[object]])
    attempts: dict[str, AttemptRecord] = field(default_factory=dict[str, AttemptRecord])
    """The current attempts, by job; of many jobs few may have one."""

    @classmethod
    def begin(cls, added: rows.PipelineAdded, topology: Topology) -> PipelineRecord:
        """A pipeline as it is right after its submission: all its jobs are queued."""
        jobs = {replica.id: _job(added.ref, replica) for replica in topology.replicas.values()}
        return cls(
            ref=added.ref,
            position=added.position,
            request_id=added.request_id,
            creator=added.creator,
            spec=added.spec,
            create_time=added.create_time,
            topology=topology,
            jobs=jobs,
            open_jobs=len(jobs),
            revived_from=added.revived_from,
            stored=added.stored,
            listings=added.listings,
            traceparent=added.traceparent,
        )

    def row(self) -> rows.PipelineRow:
        """What is written down."""
        return rows.PipelineRow(*_PIPELINE(self))

    def span(self, ref: PipelineRef | JobRef | AttemptRef, *step: str) -> TraceContext:
        """The span of the pipeline or of a thing in it, or of a step of that; it has to be in a trace."""
        return TraceContext.of(self.traceparent).span_of(ref.namespace, ref.name, *step)

    @property
    def holding(self) -> rows.ScaleRow | None:
        """The scale that is under way, if there is one."""
        last = self.scales[-1] if self.scales else None
        return last if last is not None and last.state is model.ScaleState.HOLDING else None

    def newest(self, name: str) -> tuple[JobRecord, ...]:
        """The replicas of the newest generation of a job of the spec."""
        found = [job for job in self.jobs.values() if job.spec.name == name]
        last = max(job.generation for job in found)
        return tuple(job for job in found if job.generation == last)

    def producers(self, name: str) -> tuple[JobRecord, ...]:
        """The newest replicas of all jobs that stream into a job of the spec."""
        jobs = dict.fromkeys(stream.job for stream in self.spec.job(name).streams)
        return tuple(replica for job in jobs for replica in self.newest(job))

    def holds(self, job: JobRecord) -> Callable[[LaneEnd], int]:
        """For a lane of a job: the number under which its producer stands still, or 0."""
        held = 0 if job.attempt is None else job.attempt.held
        if held:
            return lambda end: held if end.lane.output and end.peer else 0
        scale = self.holding
        if scale is None:
            return lambda _: 0
        number, newest = scale.number, {one.ref.job for one in self.newest(scale.job)}
        if job.ref.job in newest:
            return lambda end: number if end.lane.output else 0
        if job in self.producers(scale.job):
            return lambda end: number if end.lane.output and end.peer in newest else 0
        return lambda _: 0

    def grow(self, topology: Topology) -> tuple[JobRecord, ...]:
        """Take the lanes after a scale, with new replicas, which are queued; return those."""
        new = [
            _job(self.ref, replica)
            for replica in topology.replicas.values()
            if replica.id not in self.jobs
        ]
        jobs = self.jobs | {job.ref.job: job for job in new}
        self.jobs = {job: jobs[job] for job in topology.replicas}
        self.topology = topology
        self.open_jobs += len(new)
        self.gang_kinds = {}
        for job in self.jobs.values():
            job.pending = None
        return tuple(new)

    def residents(self) -> tuple[Resident, ...]:
        """Where its attempts are."""
        return tuple(
            Resident(attempt.node, self.jobs[name].spec.name)
            for name, attempt in self.attempts.items()
        )

    def pending(self, job: JobRecord) -> Pending:
        """What the scheduler has to know of one of its jobs."""
        if job.pending is None:
            name, spec = job.ref.job, job.spec
            known = self.topology.asked.get(name)
            pending = job.pending = Pending(
                ref=job.ref,
                spec_name=spec.name,
                gang=self.topology.gangs[name],
                resources=spec.resources,
                place=spec.place,
                bundle_digest=self.spec.bundle_digest,
                pinned_node=job.pinned_node,
                avoid=frozenset(job.avoid),
                features=known.features if known else needed_features(self.spec, spec),
                sandbox=spec.sandbox,
                secrets=spec.secrets,
                alone=len(self.jobs) == 1,
            )
            if known is None or job.pinned_node:
                known = asked(pending)
                # A secret is another one in another namespace.
                if not (job.pinned_node or spec.secrets):
                    self.topology.asked[name] = known
            pending.asks, pending.shape = known.feasibility, known.shape
        return job.pending

    def kind(self, job: JobRecord) -> Hashable:
        """What decides whether a job finds room: what it asks for, and what its gang does."""
        gang = self.topology.gangs[job.ref.job]
        members = self.topology.members[gang]
        if len(members) == 1:
            return self.pending(job).asks
        if gang not in self.gang_kinds:
            asks = Counter(self.pending(self.jobs[other]).asks for other in members)
            self.gang_kinds[gang] = frozenset(asks.items())
        return (self.pending(job).asks, self.gang_kinds[gang])

    def shape(self) -> str:
        """A digest that is equal for pipelines whose jobs find room in the same places."""
        asks = [
            (self.pending(job).asks, self.topology.gangs[name]) for name, job in self.jobs.items()
        ]
        return blake2b(repr(asks).encode(), digest_size=16).hexdigest()


class Residents(Mapping[PipelineRef, tuple[Resident, ...]]):
    """Where the attempts of each pipeline are, found when it is asked for."""

    def __init__(self, pipelines: Mapping[PipelineRef, PipelineRecord]) -> None:
        self._pipelines = pipelines

    def __getitem__(self, ref: PipelineRef) -> tuple[Resident, ...]:
        return self._pipelines[ref].residents()

    def __iter__(self) -> Iterator[PipelineRef]:
        return iter(self._pipelines)

    def __len__(self) -> int:
        return len(self._pipelines)


def _job(pipeline: PipelineRef, replica: Replica) -> JobRecord:
    return JobRecord(
        ref=JobRef(pipeline.namespace, pipeline.pipeline, replica.id),
        spec=replica.job,
        replica=replica.number,
        generation=replica.generation,
    )


@dataclass(slots=True, eq=False)
class NodeRecord:
    """A machine that can run attempts; `attempts` are the current ones on it, by reference.

    `quarantine` says why nothing may be wanted of its agent, `followed` what that one followed last,
    and `adopts` with what of it a person wants it in spite of that. `conflict` says which other agent claims
    its name.
    """

    name: str
    agent_id: str = ""
    capacity: model.Capacity = model.NO_CAPACITY
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
    """When what still runs on it is moved, of one that is drained."""
    address: str = ""
    bundles: frozenset[str] = frozenset()
    session_id: str = ""
    heard_at: float = 0.0
    quarantine: str = ""
    followed: model.Followed | None = None
    adopts: model.Followed | None = None
    conflict: str = ""
    condition: NodeCondition = WELL
    """How it stands; not written down, since each Hello says it."""
    member_state: model.MemberState = model.MemberState.UNKNOWN
    attempts: dict[AttemptRef, AttemptRecord] = field(
        default_factory=dict[AttemptRef, AttemptRecord]
    )
    says_holds: bool = False
    """Whether its agent says how far ports are that stand still; one of before does not."""
    features: frozenset[str] = frozenset()
    """What its agent can do; see `shoal.session.feature`."""
    sandbox: NodeSandbox | None = None
    """What it can do to keep jobs apart; not written down, since each Hello says it."""
    prefetch: tuple[str, ...] = ()
    """Digests of the bundles that it shall have before they are needed."""
    revision: int = 0
    snapshot: NodeSnapshot | None = None

    def row(self) -> rows.NodeRow:
        """What is written down."""
        return rows.NodeRow(*_NODE(self))

    @classmethod
    def load(cls, row: rows.NodeRow) -> NodeRecord:
        """A node as it was written down: no agent is connected."""
        node = cls(row.name)
        take(node, row)
        return node


_TOPOLOGIES_KEPT = 256


class Cluster:
    """Pipelines and nodes, with the questions that concern several of them.

    Attributes:
        pipelines: Those that are under way, that were looked at, and those that ended last.
        queued: Those of which no job was ever placed, as short as they can be.
        nodes: All nodes by name.
        prefetching: Those pipelines whose bundle is fetched before it is needed; some may have ended.
        prefetch_changed: Whether what nodes shall have, or have, of these may be another now.
        revision: The revision of what was loaded.
        standings: How all pipelines stood when they were loaded; empty once that was taken.
    """

    def __init__(self, loaded: rows.Loaded, revision: int) -> None:
        self.pipelines: dict[PipelineRef, PipelineRecord] = {}
        self.queued: dict[PipelineRef, rows.Queued] = {}
        self.nodes: dict[str, NodeRecord] = {}
        self.prefetching: dict[PipelineRef, PipelineRecord] = {}
        self.prefetch_changed = False
        self.revision = revision
        self.standings = loaded.standings
        self._begin = loaded.begin
        # By the identity of a spec, which is kept beside it: equal specs of a queue are one object.
        self._topologies: dict[int, tuple[Pipeline, Topology]] = {}

    def pipeline(self, ref: PipelineRef) -> PipelineRecord | None:
        """The pipeline of that name, if it is in memory; one of the queue becomes a record."""
        found = self.pipelines.get(ref)
        if found is not None or ref not in self.queued:
            return found
        added = self._begin(self.queued[ref])
        if added is None:
            return None
        found = PipelineRecord.begin(added, self.topology(added.spec))
        self.keep(found)
        found.revision = self.revision
        del self.queued[ref]
        return found

    def keep(self, pipeline: PipelineRecord) -> None:
        """Have a pipeline in memory."""
        self.pipelines[pipeline.ref] = pipeline
        if pipeline.spec.prefetch and pipeline.spec.bundle_digest and not pipeline.state.terminal:
            self.prefetching[pipeline.ref] = pipeline
            self.prefetch_changed = True

    def topology(self, spec: Pipeline) -> Topology:
        """The lanes of a spec as it was submitted."""
        known = self._topologies.get(id(spec))
        if known is None:
            if len(self._topologies) >= _TOPOLOGIES_KEPT:
                self._topologies.clear()
            known = self._topologies[id(spec)] = (spec, topology(spec))
        return known[1]

    def job(self, ref: JobRef | AttemptRef) -> JobRecord | None:
        """The job of that name, or that an attempt of that name tries, if there is one."""
        pipeline = self.pipelines.get(ref.pipeline_ref)
        return None if pipeline is None else pipeline.jobs.get(ref.job)

    def claimed(self, node: NodeRecord) -> model.Capacity:
        """What attempts on a node have claimed: those whose programs have not ended."""
        cpus, memory_bytes = 0.0, 0
        devices: list[str] = []
        pipelines, claiming = self.pipelines, lifecycle.CLAIMING
        for attempt in node.attempts.values():
            if attempt.state in claiming:
                resources = pipelines[attempt.pipeline].jobs[attempt.ref.job].spec.resources
                cpus += resources.cpus
                memory_bytes += resources.memory_bytes
                if resources.devices:
                    devices += resources.devices
        return model.Capacity(cpus, memory_bytes, tuple(sorted(devices)))

    def snapshot(self, node: NodeRecord) -> NodeSnapshot:
        """What the scheduler has to know of a node; kept until `node.snapshot` is cleared."""
        if node.snapshot is None:
            node.snapshot = NodeSnapshot(
                name=node.name,
                connected=bool(node.session_id),
                drained=node.drained,
                refuses=node.condition.refuses,
                heat=node.condition.heat,
                capacity=node.capacity,
                claimed=self.claimed(node),
                labels=node.labels,
                bundles=node.bundles,
                suspected=node.member_state in _DOUBTED,
                quarantine=node.quarantine,
                features=node.features,
                sandbox=node.sandbox,
            )
        return node.snapshot

    def peer(self, pipeline: PipelineRecord, job_id: str) -> LanePeer:
        """Where a job of a pipeline stands, for the other ends of its lanes."""
        job = pipeline.jobs[job_id]
        done = job.state is model.JobState.SUCCEEDED
        attempt = job.attempt
        if attempt is None:
            return LanePeer(epoch=job.epoch, done=done)
        return LanePeer(self.nodes[attempt.node].stream_address, attempt.ref.name, job.epoch, done)

    def assignment(self, attempt: AttemptRecord) -> Assignment:
        """What the agent of a current attempt is told; kept until `attempt.assignment` is cleared."""
        if attempt.assignment is None:
            pipeline = self.pipelines[attempt.pipeline]
            job = pipeline.jobs[attempt.ref.job]
            attempt.assignment = Assignment(
                ref=attempt.ref,
                job=job.spec,
                replica=job.replica,
                replicas=job.spec.replicas,
                bundle_digest="" if job.spec.local else pipeline.spec.bundle_digest,
                goal=_goal(pipeline, job),
                lanes=pipeline.topology.lanes(
                    attempt.ref.job,
                    lambda other: self.peer(pipeline, other),
                    pipeline.holds(job),
                    job.ends or {},
                ),
                replacement=attempt.ref.number > 1,
                tells_stages=Feature.STAGES in pipeline.pending(job).features,
                listings={
                    folder.name: pipeline.listings.get(f"{job.spec.name}/{folder.name}", "")
                    for folder in job.spec.folders
                },
                traceparent=pipeline.traceparent and str(pipeline.span(attempt.ref, "run")),
            )
        return attempt.assignment


def _goal(pipeline: PipelineRecord, job: JobRecord) -> Goal:
    moving = job.attempt is not None and job.attempt.moving
    if pipeline.stop is not None or moving:
        return Goal.STOP
    return Goal.RUN if job.ends is None else Goal.FINISH


_DOUBTED = frozenset({model.MemberState.SUSPECT, model.MemberState.DEAD, model.MemberState.LEFT})
