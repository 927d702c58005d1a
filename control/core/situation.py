"""What all parts of the control machine share: settings, records, leases, the queue, the moment.

It is the one object that they change together. It decides nothing; it answers the few questions
that several of them ask.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from control.core import outbox_rows
from control.core.backlog import Backlog
from control.core.call_note import CallNote
from control.core.change_set import ChangeSet
from control.core.end_counts import EndCounts
from control.core.kept_rooms import KeptRooms
from control.core.leases import Leases
from control.core.machine_config import MachineConfig
from control.core.rows import KnownRequest, RequestKey
from control.core.state import AttemptRecord, Cluster, JobRecord, NodeRecord, PipelineRecord
from shoal.names import JobRef, PipelineRef


@dataclass(eq=False)
class Situation:
    """The shared state of the control machine.

    Attributes:
        config: What may be set.
        ids: Makes a random id of so many characters, `[a-z0-9]`.
        now: Monotonic seconds of the step under way.
        wall_time: The wall clock of the step under way, in UTC; written down, and compared only with when
            identities end.
        cluster: All records.
        leases: How long each node may still be silent.
        change: What this step changes.
        backlog: The jobs that wait for a node, in their order.
        fresh: Those of them that no plan has looked at yet.
        kept_rooms: Room on nodes that is kept for jobs that are tried again.
        room_grew: Whether jobs that found no room may find some now.
        ended: Names of the ended pipelines that are remembered, the longest ended first.
        dead: Names of the dead letters, with when they ended, the first to die first.
        recent: Those ended pipelines and dead letters that are in memory.
        requests: The requests that were taken or found last; the store knows the others.
        open: How many pipelines have not ended.
        open_of: How many of them each identity has that submitted any.
        end_counts: How much has ended, for figures.
    """

    config: MachineConfig
    change: ChangeSet
    now: float
    wall_time: datetime
    ids: Callable[[int], str]
    cluster: Cluster
    leases: Leases = field(init=False)
    backlog: Backlog = field(default_factory=Backlog)
    fresh: dict[JobRef, JobRecord] = field(default_factory=dict[JobRef, JobRecord])
    kept_rooms: KeptRooms = field(default_factory=KeptRooms)
    room_grew: bool = True
    ended: OrderedDict[PipelineRef, None] = field(default_factory=OrderedDict[PipelineRef, None])
    dead: dict[PipelineRef, datetime] = field(default_factory=dict[PipelineRef, datetime])
    recent: deque[PipelineRef] = field(default_factory=deque[PipelineRef])
    requests: OrderedDict[RequestKey, KnownRequest] = field(
        default_factory=OrderedDict[RequestKey, KnownRequest]
    )
    open: int = 0
    open_of: Counter[str] = field(default_factory=Counter[str])
    end_counts: EndCounts = field(default_factory=EndCounts)

    def __post_init__(self) -> None:
        config = self.config
        self.leases = Leases(config.lease_seconds, config.pause_seconds, self.now)

    def heard(self, name: str, session_id: str) -> NodeRecord | None:
        """The node of a live session, whose lease is renewed; None if the session is over."""
        node = self.cluster.nodes.get(name)
        if node is None or not session_id or node.session_id != session_id:
            return None
        self.leases.renew(name, self.now)
        node.last_seen_time = self.wall_time
        node.heard_at = self.now
        return node

    def wait_for(self, attempt: AttemptRecord, why: str) -> None:
        """Say what a job with an attempt waits for."""
        job = self.job(attempt)
        if job.waiting_for != why:
            job.waiting_for = why
            self.change.show_job(self.pipeline(attempt), job)

    def job_event(self, job: JobRecord, what: str) -> None:
        """Tell the world of a job."""
        pipeline = self.pipeline_of(job)
        self.change.outbox(
            outbox_rows.job_event(job, what, self.wall_time, traceparent=pipeline.traceparent)
        )

    def count_of(self, creator: str, more: int) -> None:
        """Count that a creator has so many open pipelines more, or fewer; one without a name is not counted."""
        if creator:
            identity = CallNote.counted_as(creator)
            self.open_of[identity] += more
            if not self.open_of[identity]:
                del self.open_of[identity]

    def job(self, attempt: AttemptRecord) -> JobRecord:
        """The job of an attempt."""
        return self.cluster.pipelines[attempt.pipeline].jobs[attempt.ref.job]

    def pipeline(self, attempt: AttemptRecord) -> PipelineRecord:
        """The pipeline of an attempt."""
        return self.cluster.pipelines[attempt.pipeline]

    def pipeline_of(self, job: JobRecord) -> PipelineRecord:
        """The pipeline of a job."""
        return self.cluster.pipelines[job.pipeline]

    def end_session(self, node: NodeRecord, why: str) -> None:
        """End the session of a node, if it has one."""
        if node.session_id:
            self.change.end_session(node, why)
            node.session_id = ""
            self.cluster.prefetch_changed = True
            self.change.node(node)

    def unheard(self, attempt: AttemptRecord) -> str:
        """Say of an attempt whose agent is too old to say how far a port is what is to be done."""
        node = self.cluster.nodes[attempt.node]
        if node.says_holds or not node.session_id:
            return ""
        return (
            f"the agent of node {node.name} (version {node.agent_version or 'unknown'}) does not say "
            f"how far {attempt.ref.job} is: update it"
        )
