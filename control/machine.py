"""The control machine: what happens goes in, what is to be recorded and done comes out.

Pure. Its state is a function of the rows that it asked to record, of the sessions since it began,
and of what gossip said; after a restart it begins with the rows, and every node with a new lease.
Placement happens in `tick`, once for all that happened before it, so a shell that takes a batch of
events lets `tick` follow and commits everything at once.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from typing import assert_never

from control import facts, finishing, inbox, lifecycle, scaling
from control.admission import refusal, reused
from control.backlog import Backlog
from control.change import Change
from control.effects import Admitted, Effect, Taken
from control.errors import (
    HelloRefusedError,
    NameTakenError,
    NotQuarantinedError,
    SessionEndedError,
    UnknownJobError,
    UnknownNodeError,
    UnknownPipelineError,
)
from control.lanes import Topology, topology
from control.leases import Leases
from control.pictures import waits_for
from control.quarantine import Claim, Rival, Starts, claim, same_instance
from control.reconcile import reconcile
from control.scheduler.explain import explain
from control.scheduler.plan import plan
from control.scheduler.snapshot import NodeState, Pending, Placed, Snapshot
from control.state import AttemptRecord, Cluster, JobRecord, NodeRecord, PipelineRecord
from control.store.rows import Loaded, ManifestRow, PipelineAdded, ScaleRow
from control.views import Refusal, RefusalCode
from services.archive.manifest import manifest_key
from services.runtime.backoff import Backoff
from shoal.model import (
    NO_REASON,
    Artifact,
    JobState,
    MemberState,
    PipelineState,
    Reason,
    ReasonCode,
    ScaleState,
)
from shoal.names import AttemptRef, InvalidNameError, JobRef, PipelineRef, check_id
from shoal.session.assignment import Assignment
from shoal.session.messages import Fenced
from shoal.session.observation import Observation
from shoal.spec import Placement
from shoal.view import NodeVerdict

ID_SUFFIX = 6
"""Random characters at the end of a pipeline's id."""

LOSS_BACKOFF = Backoff(0.1, 30.0, jitter=0.0)
"""How a job slows down that is lost again and again; the first time costs nothing."""

_ID_MAX = 63
_AVOID_MAX = 8
_SILENT_HEARTBEATS = 2
_CLAIM_HEARTBEATS = 2.5
_RIVAL_RETRIES = 3


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """What an operator may set; times in seconds.

    Attributes:
        lease_seconds: how long a node's silence is tolerated.
        heartbeat_seconds: how often an agent speaks at least.
        sweep_seconds: how often time is looked at while leases are held.
        pause_seconds: a longer time between two looks is a pause of the controller's own.
        assigned_seconds: how long an agent may leave an assignment untouched.
        losses_max: how many attempts of a job may be lost or rewound before it fails.
        stable_seconds: an attempt that lived longer makes earlier losses forgotten.
        loss_backoff: how a job slows down that is lost again and again.
        hold_seconds: how long streams may stand still for a scale before it is abandoned.
        plan_width: how many jobs that ask for the same are looked at in one plan.
        rival_seconds: when an agent may ask again whose name another agent has.
        suspect_suffices: whether a broken session and a mere suspicion replace a node's attempts;
            quicker, but an agent that is being restarted then loses its jobs.
        pipelines_open_max: most pipelines that have not ended.
        pipelines_ended_max: how many ended pipelines are remembered, with their request ids.
        nodes_max: most nodes.
    """

    lease_seconds: float = 6.0
    heartbeat_seconds: float = 1.0
    sweep_seconds: float = 0.25
    pause_seconds: float = 1.0
    assigned_seconds: float = 30.0
    losses_max: int = 100
    stable_seconds: float = 600.0
    hold_seconds: float = 20.0
    loss_backoff: Backoff = LOSS_BACKOFF
    plan_width: int = 256
    rival_seconds: float = 30.0
    suspect_suffices: bool = False
    pipelines_open_max: int = 200_000
    pipelines_ended_max: int = 10_000
    nodes_max: int = 20_000


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An agent whose claim to a name is unclear; monotonic seconds."""

    event: inbox.HelloReceived
    since: float


class ControlMachine:
    """Lifecycle, leases, reconcile and placement of everything (a `Machine`).

    Args:
        config: What may be set.
        loaded: What the store remembers.
        now: Monotonic time, at which every node's lease begins anew.
        wall: The wall clock, aware and in UTC: only written down, never compared.
        ids: Makes a random id of so many characters, `[a-z0-9]`.
    """

    def __init__(
        self,
        config: MachineConfig,
        loaded: Loaded,
        now: float,
        *,
        wall: Callable[[], datetime],
        ids: Callable[[int], str],
    ) -> None:
        self._config = config
        self._wall = wall
        self._ids = ids
        self._now = now
        self._at = wall()
        self._cluster = Cluster()
        self._leases = Leases(config.lease_seconds, config.pause_seconds, now)
        start = loaded.starts[-1]
        self._starts = Starts(loaded.cluster_id, loaded.starts)
        self._change = Change(start, start.term << 32, loaded.next_sequence)
        self._next_position = loaded.next_position
        self._members: dict[str, MemberState] = {}
        self._by_member: dict[str, str] = {}
        self._doubted: set[str] = set()
        self._backlog = Backlog()
        self._fresh: dict[JobRef, JobRecord] = {}
        self._room_grew = True
        self._ties = count()
        self._retries: list[tuple[float, int, int, JobRecord]] = []
        self._untouched: list[tuple[float, int, AttemptRecord]] = []
        self._holding: dict[PipelineRef, float] = {}
        self._claims: list[_Waiting] = []
        self._rivals: dict[str, Rival] = {}
        self._ended: deque[PipelineRef] = deque()
        self._open = 0
        self._swept_at = now
        self._hold_number = finishing.hold_number(start.term)
        self._load(loaded)

    # --- the protocol

    def handle(self, event: inbox.Event, now: float) -> Sequence[Effect]:
        """Take one event; placement waits for `tick`, which is due at once if it is wanted."""
        self._now = now
        self._at = self._wall()
        match event:
            case inbox.Submit():
                self._change.answer(event.call, self._submit(event))
            case inbox.Cancel():
                self._cancel(event)
            case inbox.Finish():
                self._finish(event)
            case inbox.Scale():
                self._scale(event)
            case inbox.Drain():
                self._drain(event)
            case inbox.Adopt():
                self._adopt(event)
            case inbox.HelloReceived():
                self._open_session(event)
            case inbox.Observed():
                self._take_observations(event)
            case inbox.SessionClosed():
                self._close_session(event)
            case inbox.StreamWorkerGone():
                self._lose_streams(event)
            case inbox.HeartbeatReceived():
                self._heard(event.node, event.session_id)
            case inbox.Progressed():
                self._progress(event)
            case inbox.Conditioned():
                self._take_condition(event)
            case inbox.MemberVerdict():
                self._member_verdict(event)
            case _:
                assert_never(event)
        return self._change.effects()

    def tick(self, now: float) -> Sequence[Effect]:
        """Let leases run out, retries begin, doubts be settled; then place what waits."""
        self._now = now
        self._at = self._wall()
        self._swept_at = now
        for name in self._leases.advance(now):
            self._lease_ran_out(self._cluster.nodes[name])
        for name in sorted(self._doubted):
            self._settle_doubt(self._cluster.nodes[name])
        self._settle_claims()
        self._forget_rivals()
        self._begin_retries()
        self._chase_untouched()
        self._end_holds()
        if self._room_grew or self._fresh:
            self._place_all()
        while len(self._ended) > self._config.pipelines_ended_max:
            self._forget(self._ended.popleft())
        return self._change.effects()

    def deadline(self) -> float | None:
        """When `tick` is next wanted."""
        if self._room_grew or self._fresh:
            return self._now
        times = [heap[0][0] for heap in (self._retries, self._untouched) if heap]
        times += self._holding.values()
        times += [self._swept_at + self._config.sweep_seconds for _ in self._claims[:1]]
        times += [self._rival_until(rival) for rival in self._rivals.values()]
        if self._leases.deadline() is not None:
            times.append(self._swept_at + self._config.sweep_seconds)
        return min(times, default=None)

    # --- questions

    @property
    def cluster(self) -> Cluster:
        """Everything that is known; only the machine changes it."""
        return self._cluster

    @property
    def revision(self) -> int:
        """Revision of the last change."""
        return self._change.revision

    @property
    def commits(self) -> int:
        """How many commits this start has made."""
        return self._change.start.commits

    def desired(self, name: str) -> Mapping[AttemptRef, Assignment]:
        """What should run on a node; of one that is quarantined nothing may be wanted."""
        node = self._cluster.nodes.get(name)
        if node is None or node.quarantine:
            return {}
        return {ref: self._cluster.assignment(one) for ref, one in node.attempts.items()}

    def session(self, name: str) -> str:
        """The session of a node, or an empty string."""
        node = self._cluster.nodes.get(name)
        return "" if node is None else node.session_id

    def explain(self, ref: JobRef) -> tuple[NodeVerdict, ...]:
        """One sentence for each node.

        Raises:
            UnknownPipelineError: There is no such pipeline.
            UnknownJobError: It has no such job.
        """
        pipeline = self._cluster.pipelines.get(ref.pipeline_ref)
        if pipeline is None:
            raise _unknown(ref.pipeline_ref)
        job = pipeline.jobs.get(ref.job)
        if job is None:
            raise UnknownJobError(
                f"pipeline {ref.pipeline} has no job {ref.job!r}: "
                f"its jobs are {', '.join(pipeline.jobs)}"
            )
        snapshot = Snapshot(self._nodes(), {pipeline.ref: pipeline.residents()})
        verdicts = explain(snapshot, pipeline.pending(job))
        return tuple(_as_it_stands(pipeline, job, verdict) for verdict in verdicts)

    # --- people

    def _submit(self, event: inbox.Submit) -> Taken | Refusal:
        submission = event.submission
        key = (submission.namespace, submission.request_id)
        first = self._cluster.requests.get(key) if submission.request_id else None
        if first is not None:
            spec = self._cluster.pipelines[first].spec
            if spec == submission.spec:
                return Taken(first, repeated=True)
            return reused(submission, first, spec)
        refused = refusal(submission)
        if refused is not None:
            return refused
        if self._open >= self._config.pipelines_open_max:
            return Refusal(
                RefusalCode.RESOURCE_EXHAUSTED,
                "TOO_MANY_PIPELINES",
                f"{self._open} pipelines have not ended yet: submit again when some have",
            )
        added = PipelineAdded(
            ref=self._new_ref(submission.namespace, submission.spec.name),
            position=self._next_position,
            request_id=submission.request_id,
            spec=submission.spec,
            create_time=self._at,
        )
        self._next_position += 1
        pipeline = PipelineRecord.begin(added, topology(added.spec))
        self._remember(pipeline)
        for job in pipeline.jobs.values():
            self._backlog.add(job, pipeline.kind(job))
            self._fresh[job.ref] = job
        self._change.added(added, pipeline)
        return Taken(added.ref, repeated=False)

    def _new_ref(self, namespace: str, name: str) -> PipelineRef:
        while True:
            ref = PipelineRef(
                namespace, f"{name[: _ID_MAX - ID_SUFFIX - 1]}-{self._ids(ID_SUFFIX)}"
            )
            if ref not in self._cluster.pipelines:
                return ref

    def _remember(self, pipeline: PipelineRecord) -> None:
        self._cluster.pipelines[pipeline.ref] = pipeline
        if pipeline.request_id:
            self._cluster.requests[pipeline.ref.namespace, pipeline.request_id] = pipeline.ref
        if not pipeline.state.terminal:
            self._open += 1

    def _forget(self, ref: PipelineRef) -> None:
        pipeline = self._cluster.pipelines.pop(ref)
        if pipeline.request_id:
            del self._cluster.requests[ref.namespace, pipeline.request_id]
        self._change.forgotten(ref)

    def _cancel(self, event: inbox.Cancel) -> None:
        pipeline = self._cluster.pipelines.get(event.ref)
        if pipeline is None:
            self._change.answer(event.call, _unknown(event.ref))
            return
        why = event.reason or "somebody cancelled it"
        self._stop(pipeline, Reason(ReasonCode.CANCELLED, 0, why))
        self._change.answer(event.call, None)

    def _finish(self, event: inbox.Finish) -> None:
        pipeline = self._cluster.pipelines.get(event.ref)
        if pipeline is None:
            self._change.answer(event.call, _unknown(event.ref))
            return
        ends = pipeline.state.terminal or pipeline.stop is not None
        if pipeline.finish_time is None and not ends:
            pipeline.finish_time = self._at
            self._change.pipeline(pipeline)
            if pipeline.holding is not None:
                self._abandon(pipeline, pipeline.holding, "the pipeline is finishing")
            self._end_sources(pipeline)
        self._change.answer(event.call, None)

    def _end_sources(self, pipeline: PipelineRecord) -> None:
        """Bring the sources of a pipeline that is finishing nearer to their ends (control.finishing)."""
        if pipeline.finish_time is None or pipeline.stop is not None:
            return
        for job in finishing.sources(pipeline):
            attempt = job.attempt
            if attempt is None or job.ends is not None:
                continue
            if unheard := self._unheard(attempt):
                self._wait_for(attempt, f"it ends once it can be said where: {unheard}")
                continue
            if not attempt.held:
                seen = finishing.seen_end(pipeline, job)
                if seen:
                    self._wait_for(attempt, seen)
                    continue
                repeating = finishing.repeating(pipeline, job)
                if repeating:
                    why = f"it ends once {repeating} has sent again what was sent before"
                    self._wait_for(attempt, why)
                    continue
                self._wait_for(attempt, "")
                attempt.held = self._hold_number
            elif finishing.ends(pipeline, job) is None:
                continue
            ends = finishing.ends(pipeline, job)
            if ends is not None:
                attempt.held, job.ends = 0, ends
                self._change.job(pipeline, job)
            attempt.assignment = None
            self._change.set_desired(attempt.node)

    def _drain(self, event: inbox.Drain) -> None:
        node = self._cluster.nodes.get(event.node)
        if node is None:
            known = ", ".join(sorted(self._cluster.nodes)) or "none yet"
            self._change.answer(
                event.call, UnknownNodeError(f"no node {event.node!r}: known nodes are {known}")
            )
            return
        if node.drained != event.drained:
            node.drained = event.drained
            self._room_grew = True  # or shrank: then those who wait learn why
            self._change.node(node)
        self._change.answer(event.call, None)

    def _adopt(self, event: inbox.Adopt) -> None:
        node = self._cluster.nodes.get(event.node)
        if node is None:
            known = ", ".join(sorted(self._cluster.nodes)) or "none yet"
            self._change.answer(
                event.call, UnknownNodeError(f"no node {event.node!r}: known nodes are {known}")
            )
            return
        if not node.quarantine:
            why = node.conflict or "its agent follows this controller already"
            self._change.answer(
                event.call,
                NotQuarantinedError(f"node {node.name} is not quarantined, so not adopted: {why}"),
            )
            return
        node.adopts = node.followed
        node.quarantine = f"node {node.name} was adopted, and its agent has not dialled in since"
        self._end_session(node, f"node {node.name} was adopted: dial again")
        self._change.show_node(node)
        self._change.answer(event.call, None)

    # --- another number of replicas

    def _scale(self, event: inbox.Scale) -> None:
        pipeline = self._cluster.pipelines.get(event.ref)
        if pipeline is None:
            self._change.answer(event.call, _unknown(event.ref))
        elif all(job.name != event.job for job in pipeline.spec.jobs):
            self._change.answer(event.call, _no_job(pipeline, event.job))
        else:
            self._change.answer(event.call, self._begin_scale(pipeline, event))

    def _begin_scale(self, pipeline: PipelineRecord, event: inbox.Scale) -> Refusal | None:
        holding = pipeline.holding
        if holding is not None and (holding.job, holding.replicas) == (event.job, event.replicas):
            return None  # asked for again
        if holding is None and len(pipeline.newest(event.job)) == event.replicas:
            return None
        refused = scaling.refusal(pipeline, event.job, event.replicas)
        if refused is not None:
            return refused
        for job in (*pipeline.newest(event.job), *pipeline.producers(event.job)):
            why = "" if job.attempt is None else self._unheard(job.attempt)
            if why:
                return Refusal(RefusalCode.FAILED_PRECONDITION, "OLD_AGENT", why)
        then = scaling.after(pipeline, event.job, event.replicas, 0)
        why = self._fit(pipeline, then)[1]
        if why:
            return Refusal(RefusalCode.FAILED_PRECONDITION, "NO_ROOM", why)
        scale = ScaleRow(
            ref=pipeline.ref,
            number=len(pipeline.scales) + 1,
            job=event.job,
            replicas=event.replicas,
            state=ScaleState.HOLDING,
            create_time=self._at,
        )
        pipeline.scales.append(scale)
        self._hold(pipeline)
        self._change.scale(pipeline, scale)
        self._tell_all(pipeline)
        return None

    def _unheard(self, attempt: AttemptRecord) -> str:
        """Say of an attempt whose agent is too old to say how far a port is what is to be done."""
        node = self._cluster.nodes[attempt.node]
        if node.says_holds or not node.session_id:
            return ""
        return (
            f"the agent of node {node.name} (version {node.agent_version or 'unknown'}) does not say "
            f"how far {attempt.ref.job} is: update it"
        )

    def _hold(self, pipeline: PipelineRecord) -> None:
        self._holding[pipeline.ref] = self._now + self._config.hold_seconds

    def _fit(self, pipeline: PipelineRecord, then: Topology) -> tuple[tuple[Placed, ...], str]:
        """Where the replicas that a scale adds would go, or why they would go nowhere."""
        new = [one for one in then.replicas.values() if one.id not in pipeline.jobs]
        pending = [
            Pending(
                ref=JobRef(pipeline.ref.namespace, pipeline.ref.pipeline, one.id),
                spec_name=one.job.name,
                gang=then.gangs[one.id],
                resources=one.job.resources,
                place=one.job.place,
                bundle_digest=pipeline.spec.bundle_digest,
            )
            for one in new
        ]
        snapshot = Snapshot(self._nodes(), {pipeline.ref: pipeline.residents()})
        made = plan(snapshot, pending)
        why = next(iter(made.waiting.values()), "")
        if why:
            why = (
                f"{len(new)} new replicas of {new[0].job.name} run beside the old ones until those "
                f"have ended, and they do not fit: {why}"
            )
        return made.placed, why

    def _try_to_settle(self, pipeline: PipelineRecord, scale: ScaleRow) -> None:
        """Record where the new replicas begin and place them, once everybody stands still."""
        why = scaling.stopped_by(pipeline, scale)
        if why:
            self._abandon(pipeline, scale, why)
            return
        rounds = scaling.rounds(pipeline, scale)
        if rounds is None:
            return
        then = scaling.after(pipeline, scale.job, scale.replicas, rounds, number=scale.number)
        placed, why = self._fit(pipeline, then)
        if why:
            self._abandon(pipeline, scale, why)
            return
        self._end_scale(pipeline, replace(scaling.moved(scale, ScaleState.SETTLED), rounds=rounds))
        for job in pipeline.grow(then):
            self._backlog.add(job, pipeline.kind(job))
        for one in placed:
            self._place(one.job, one.node)
        self._change.outbox(
            facts.scale_event(self._change.take_sequence(), pipeline.scales[-1], self._at)
        )

    def _abandon(self, pipeline: PipelineRecord, scale: ScaleRow, why: str) -> None:
        self._end_scale(pipeline, replace(scaling.moved(scale, ScaleState.ABANDONED), message=why))

    def _end_scale(self, pipeline: PipelineRecord, scale: ScaleRow) -> None:
        scale = replace(scale, end_time=self._at)
        pipeline.scales[-1] = scale
        del self._holding[pipeline.ref]
        self._change.scale(pipeline, scale)
        self._tell_all(pipeline)

    def _end_holds(self) -> None:
        """Let streams go on whose scale takes too long."""
        for ref in [ref for ref, at in self._holding.items() if at <= self._now]:
            pipeline = self._cluster.pipelines[ref]
            scale = pipeline.holding
            if scale is not None:
                self._abandon(
                    pipeline,
                    scale,
                    f"{scaling.silent(pipeline, scale)} did not say within "
                    f"{self._config.hold_seconds:g} s how far it is: try again when all jobs run",
                )

    def _tell_all(self, pipeline: PipelineRecord) -> None:
        """Tell the agents of all attempts of a pipeline what their lanes are now."""
        for job in pipeline.jobs.values():
            if job.attempt is not None:
                job.attempt.assignment = None
                self._change.set_desired(job.attempt.node)

    # --- sessions

    def _heard(self, name: str, session_id: str) -> NodeRecord | None:
        """The node of a live session, whose lease is renewed; None if the session is over."""
        node = self._cluster.nodes.get(name)
        if node is None or not session_id or node.session_id != session_id:
            return None
        self._leases.renew(name, self._now)
        node.last_seen_time = self._at
        node.heard_at = self._now
        return node

    def _open_session(self, event: inbox.HelloReceived) -> None:
        hello = event.hello
        node = self._cluster.nodes.get(hello.node)
        if node is None:
            problem = self._refuse_node(hello.node)
            if problem is not None:
                self._change.answer(event.call, problem)
                return
            node = self._cluster.nodes[hello.node] = NodeRecord(hello.node)
        match claim(node, hello, leased=self._leases.holds(node.name)):
            case Claim.TAKEN:
                self._refuse_rival(node, event)
            case Claim.UNCLEAR:
                self._claims.append(_Waiting(event, self._now))
            case Claim.FREE:
                self._admit(node, event)

    def _settle_claims(self) -> None:
        """Tell agents that were restarted from those that run twice, by who is heard."""
        waiting, self._claims = self._claims, []
        for one in waiting:
            node = self._cluster.nodes[one.event.hello.node]
            silence = self._leases.silence_seconds(node.name, self._now)
            if not node.session_id or one.event.hello.agent_id == node.agent_id:
                self._open_session(one.event)
            elif node.heard_at > one.since:
                self._refuse_rival(node, one.event)
            elif silence > _CLAIM_HEARTBEATS * self._config.heartbeat_seconds:
                self._admit(node, one.event)
            else:
                self._claims.append(one)

    def _refuse_rival(self, node: NodeRecord, event: inbox.HelloReceived) -> None:
        """Quarantine an agent whose name another one has; both are told."""
        hello = event.hello
        copied = bool(hello.instance_id) and same_instance(node, hello)
        rival = Rival(hello.agent_id, event.address, copied, self._now)
        before = self._rivals.get(node.name)
        known = before is not None and before.agent_id == rival.agent_id
        why = rival.conflict(node)
        retry_seconds = self._config.rival_seconds
        if not node.session_id:
            # Its lease will tell whether it is gone.
            expires_at = self._leases.expires_at(node.name) or self._now
            retry_seconds = max(expires_at - self._now, 0.0) + self._config.heartbeat_seconds
            why = f"{why}; the former is silent now, and the name is free when its lease is over"
        elif copied and not known:
            # What was heard may have been under way still when the agent before ended.
            retry_seconds = 2 * _CLAIM_HEARTBEATS * self._config.heartbeat_seconds
        self._rivals[node.name] = rival
        if node.conflict != why:
            node.conflict = why
            self._change.show_node(node)
            if node.session_id:
                self._change.tell(node, why)
        self._change.answer(event.call, NameTakenError(why, retry_seconds))

    def _forget_rivals(self) -> None:
        """A rival that asks no more is gone, or has another name now."""
        for name, rival in tuple(self._rivals.items()):
            if self._rival_until(rival) <= self._now:
                del self._rivals[name]
                self._cluster.nodes[name].conflict = ""
                self._change.show_node(self._cluster.nodes[name])

    def _rival_until(self, rival: Rival) -> float:
        return rival.at + _RIVAL_RETRIES * self._config.rival_seconds

    def _admit(self, node: NodeRecord, event: inbox.HelloReceived) -> None:
        """Let an agent have the name of a node, and compare what both sides know."""
        hello = event.hello
        rival = self._rivals.get(node.name)
        if rival is not None and rival.agent_id == hello.agent_id:
            del self._rivals[node.name]
            node.conflict = ""
        if node.session_id and node.session_id != event.session_id:
            self._change.end_session(
                node, f"agent {hello.agent_id} opened another session for node {node.name}"
            )
        moved = node.stream_address != hello.stream_address
        same_agent = node.agent_id == hello.agent_id
        node.agent_id = hello.agent_id
        node.instance_id = hello.instance_id
        node.address = event.address
        node.followed = hello.followed
        node.capacity = hello.capacity
        node.labels = hello.labels
        node.architecture = hello.architecture
        node.stream_address = hello.stream_address
        node.agent_version = hello.agent_version
        node.bundles = hello.bundles
        node.refuses = hello.refuses
        node.says_holds = hello.says_holds
        node.session_id = event.session_id
        node.last_seen_time = self._at
        node.heard_at = self._now
        self._name_member(node, hello.member_name or node.name)
        self._leases.renew(node.name, self._now)
        self._change.node(node)
        self._change.set_desired(node.name)
        why = self._starts.against(node.name, hello.followed)
        adopted = bool(why) and node.adopts is not None and node.adopts == hello.followed
        node.quarantine = "" if adopted else why
        if node.quarantine:
            for attempt in node.attempts.values():
                self._wait_for(attempt, node.quarantine)
            self._change.answer(event.call, Admitted((), self._starts.welcome(), why))
            return
        if not why:
            node.adopts = None  # until it follows us, it may dial again with what it knows
        self._room_grew = True
        known = {ref: attempt.state for ref, attempt in node.attempts.items()}
        outcome = reconcile(known, [one.ref for one in hello.attempts], same_agent=same_agent)
        fenced = self._observe_all(node, hello.attempts)
        for ref in outcome.missing:
            self._lose(
                node.attempts[ref], f"the agent of node {node.name} knows nothing of it any more"
            )
        for attempt in node.attempts.values():
            self._wait_for(attempt, "")
            if moved:
                self._lanes_changed(attempt.ref.job_ref)
            self._end_sources(self._pipeline(attempt))
        self._change.answer(event.call, Admitted(fenced, self._starts.welcome(), adopted=adopted))

    def _take_condition(self, event: inbox.Conditioned) -> None:
        node = self._heard(event.node, event.session_id)
        if node is not None and node.refuses != event.refuses:
            node.refuses = event.refuses
            self._room_grew = True  # or shrank: then those who wait learn why
            self._change.show_node(node)

    def _refuse_node(self, name: str) -> HelloRefusedError | None:
        try:
            check_id("node", name)
        except InvalidNameError as error:
            return HelloRefusedError(str(error))
        if len(self._cluster.nodes) >= self._config.nodes_max:
            return HelloRefusedError(
                f"node {name} is one too many: at most {self._config.nodes_max} are recorded"
            )
        return None

    def _name_member(self, node: NodeRecord, member_name: str) -> None:
        if self._by_member.get(node.member_name) == node.name:
            del self._by_member[node.member_name]
        node.member_name = member_name
        self._by_member[member_name] = node.name
        self._believe(node, self._members.get(member_name, MemberState.UNKNOWN))

    def _close_session(self, event: inbox.SessionClosed) -> None:
        self._claims = [one for one in self._claims if one.event.session_id != event.session_id]
        node = self._cluster.nodes.get(event.node)
        if node is not None and event.session_id and node.session_id == event.session_id:
            node.session_id = ""
            self._change.node(node)
            self._settle_doubt(node)
        self._change.answer(event.call, None)

    def _lose_streams(self, event: inbox.StreamWorkerGone) -> None:
        """Replace at once what streamed through a dead worker, unless its agent is back."""
        node = self._cluster.nodes.get(event.node)
        if node is not None and not node.session_id:
            for attempt in _present(node):
                pipeline, job = self._pipeline(attempt), self._job(attempt)
                streams = bool(pipeline.topology.ends[attempt.ref.job])
                if streams and job.spec.placement is Placement.AT_LEAST_ONCE:
                    self._lose(attempt, f"the stream worker of node {node.name} died")
        self._change.answer(event.call, None)

    def _end_session(self, node: NodeRecord, why: str) -> None:
        if node.session_id:
            self._change.end_session(node, why)
            node.session_id = ""
            self._change.node(node)

    def _lease_ran_out(self, node: NodeRecord) -> None:
        why = f"node {node.name} was silent for {self._config.lease_seconds:g} s"
        self._end_session(node, why)
        self._change.node(node)
        for attempt in _present(node):
            job = self._job(attempt)
            pinned = job.spec.placement is Placement.PINNED
            if pinned and self._pipeline(attempt).stop is None:
                self._wait_for(attempt, f"{why}, and the job is pinned to it: start its agent")
            else:
                self._lose(attempt, why)

    # --- gossip

    def _member_verdict(self, event: inbox.MemberVerdict) -> None:
        if event.state is MemberState.UNKNOWN:
            self._members.pop(event.member, None)
        else:
            self._members[event.member] = event.state
        name = self._by_member.get(event.member)
        if name is not None:
            node = self._cluster.nodes[name]
            if node.member_state is not event.state:
                self._believe(node, event.state)
                self._change.show_node(node)
                self._settle_doubt(node)

    def _believe(self, node: NodeRecord, state: MemberState) -> None:
        node.member_state = state
        node.snapshot = None
        if state in {MemberState.DEAD, MemberState.SUSPECT}:
            self._doubted.add(node.name)
        else:
            self._doubted.discard(node.name)

    def _settle_doubt(self, node: NodeRecord) -> None:
        """Replace the attempts of a node that is believed dead and does not speak either."""
        if node.name not in self._doubted or not node.attempts:
            return
        dead = node.member_state is MemberState.DEAD
        silence = self._leases.silence_seconds(node.name, self._now)
        silent = silence > _SILENT_HEARTBEATS * self._config.heartbeat_seconds
        broken = not node.session_id
        if not (dead and (broken or silent)) and not (broken and self._config.suspect_suffices):
            return
        why = f"gossip found node {node.name} {node.member_state.name.lower()}"
        self._end_session(node, why)
        for attempt in _present(node):
            pipeline, job = self._pipeline(attempt), self._job(attempt)
            placement = job.spec.placement
            if pipeline.stop is not None or placement is Placement.AT_LEAST_ONCE:
                self._lose(attempt, why)
            elif placement is Placement.AT_MOST_ONE_RUNNING:
                self._wait_for(attempt, f"{why}; it may only run elsewhere when its lease is over")
            else:
                self._wait_for(attempt, f"{why}, and the job is pinned to it: start its agent")

    # --- observations

    def _take_observations(self, event: inbox.Observed) -> None:
        node = self._heard(event.node, event.session_id)
        if node is None:
            self._change.answer(
                event.call,
                SessionEndedError(f"this session of node {event.node} is over: dial again"),
            )
            return
        seen = () if node.quarantine else event.observations
        self._change.answer(event.call, self._observe_all(node, seen))

    def _observe_all(
        self, node: NodeRecord, observations: Sequence[Observation]
    ) -> tuple[Fenced, ...]:
        return tuple(
            fenced for one in observations if (fenced := self._observe(node, one)) is not None
        )

    def _observe(self, node: NodeRecord, seen: Observation) -> Fenced | None:
        job = self._cluster.job(seen.ref.job_ref)
        if job is None:
            return Fenced(seen.ref, f"there is no {seen.ref.job_ref.name}")
        attempt = job.attempt
        if attempt is not None and attempt.ref == seen.ref and attempt.node == node.name:
            attempt.ended_inputs = (
                seen.ended_inputs or attempt.ended_inputs
            )  # recorded as it moves on
            self._advance(job, attempt, seen)
            self._take_holds(attempt, seen)
            return None
        for old in job.attempts:
            # What was committed is said again because the answer was lost: that is no intruder.
            if old.ref == seen.ref and old.node == node.name and old.state in lifecycle.ENDED:
                if seen.state is old.state or seen.state not in lifecycle.ENDED:
                    return None
                break
        return Fenced(
            seen.ref,
            f"{seen.ref.name} with epoch {seen.ref.epoch} on node {node.name} is stale: "
            f"the job is {job.state.name} with epoch {job.epoch}",
        )

    def _advance(self, job: JobRecord, attempt: AttemptRecord, seen: Observation) -> None:
        if not lifecycle.grows(attempt.state, seen.state):
            return  # a repetition
        before = attempt.state
        attempt.start_time = seen.start_time or attempt.start_time
        if seen.state is JobState.SUCCEEDED:
            problem = _artifact_problem(attempt.ref, seen.artifacts)
            if problem:
                self._fail_attempt(attempt, Reason(ReasonCode.ARCHIVE, 0, problem), seen.end_time)
            else:
                self._succeed(attempt, seen)
        elif seen.state is JobState.FAILED:
            kept = () if _artifact_problem(attempt.ref, seen.artifacts) else seen.artifacts
            self._fail_attempt(attempt, seen.reason, seen.end_time, kept)
        elif seen.state is JobState.CANCELLED:
            self._cancelled(attempt, seen)
        elif seen.state is JobState.LOST:
            self._lose(attempt, seen.reason.message or "its agent lost it")
        else:
            attempt.move(seen.state)
            job.move(seen.state)
            if (before, seen.state) != (JobState.ASSIGNED, JobState.PREPARING):
                job.progress = ""  # it was about the state before
            self._change.attempt(attempt)
            self._change.job(self._pipeline(attempt), job)
            node = self._cluster.nodes[attempt.node]
            if seen.state in lifecycle.STARTED and before not in lifecycle.STARTED:
                self._started(job, attempt, node)
            if before in lifecycle.CLAIMING and seen.state not in lifecycle.CLAIMING:
                self._room_grew = True
                self._change.show_node(node)

    def _take_holds(self, attempt: AttemptRecord, seen: Observation) -> None:
        """Record how far the outputs of an attempt are that stand still, and act on all of them."""
        pipeline, job = self._pipeline(attempt), self._job(attempt)
        if job.attempt is attempt and seen.holds and attempt.holds != seen.holds:
            attempt.holds = seen.holds
            self._change.attempt(attempt)
            self._end_sources(pipeline)
        if pipeline.holding is not None:  # an end may be what it waits for no longer
            self._try_to_settle(pipeline, pipeline.holding)

    def _started(self, job: JobRecord, attempt: AttemptRecord, node: NodeRecord) -> None:
        pipeline = self._pipeline(attempt)
        if pipeline.spec.bundle_digest:
            node.bundles |= {pipeline.spec.bundle_digest}
        self._job_event(job, "running")
        if pipeline.state is PipelineState.QUEUED:
            pipeline.state = PipelineState.RUNNING
            self._change.pipeline(pipeline)
            self._change.outbox(
                facts.pipeline_event(
                    self._change.take_sequence(),
                    pipeline,
                    pipeline.state,
                    pipeline.reason,
                    self._at,
                )
            )

    def _succeed(self, attempt: AttemptRecord, seen: Observation) -> None:
        pipeline, job = self._pipeline(attempt), self._job(attempt)
        self._end_attempt(attempt, JobState.SUCCEEDED, NO_REASON, seen.end_time)
        job.move(JobState.SUCCEEDED)
        job.reason = NO_REASON
        self._commit_artifacts(pipeline, job, attempt.ref, seen.artifacts)
        self._job_event(job, "succeeded")
        self._job_ended(pipeline)

    def _commit_artifacts(
        self,
        pipeline: PipelineRecord,
        job: JobRecord,
        attempt: AttemptRef,
        artifacts: Sequence[Artifact],
    ) -> None:
        """Let a job that has ended have these artifacts, all of one attempt, for good."""
        job.manifest = ManifestRow(
            key=manifest_key(job.ref),
            attempt=attempt,
            artifacts=tuple(sorted(artifacts, key=lambda one: one.path)),
            commit_time=self._at,
        )
        self._change.job(pipeline, job)
        self._change.manifest(job.manifest)
        # In this order the manifest can be read before anybody hears of it.
        self._change.outbox(
            facts.manifest_object(self._change.take_sequence(), job.manifest, self._at)
        )

    def _fail_attempt(
        self,
        attempt: AttemptRecord,
        reason: Reason,
        end_time: datetime | None,
        kept: Sequence[Artifact] = (),
    ) -> None:
        pipeline, job = self._pipeline(attempt), self._job(attempt)
        self._end_attempt(attempt, JobState.FAILED, reason, end_time)
        if pipeline.stop is not None:
            self._cancel_job(pipeline, job)
        else:
            self._try_again(pipeline, job, reason, kept)

    def _cancelled(self, attempt: AttemptRecord, seen: Observation) -> None:
        pipeline, job = self._pipeline(attempt), self._job(attempt)
        self._end_attempt(attempt, JobState.CANCELLED, seen.reason, seen.end_time)
        if pipeline.stop is not None:
            self._cancel_job(pipeline, job)
        else:
            # Nobody here asked for it, so it was something at the node.
            message = seen.reason.message or f"node {attempt.node} ended it on its own"
            self._try_again(pipeline, job, Reason(ReasonCode.LOST, 0, message))

    def _lose(self, attempt: AttemptRecord, why: str) -> None:
        pipeline, job = self._pipeline(attempt), self._job(attempt)
        reason = Reason(ReasonCode.LOST, 0, why)
        self._end_attempt(attempt, JobState.LOST, reason, None)
        job.avoid = (attempt.node, *(name for name in job.avoid if name != attempt.node))[
            :_AVOID_MAX
        ]
        if pipeline.stop is not None:
            self._cancel_job(pipeline, job)
        else:
            self._try_again(pipeline, job, reason)

    def _end_attempt(
        self, attempt: AttemptRecord, state: JobState, reason: Reason, end_time: datetime | None
    ) -> None:
        job, node = self._job(attempt), self._cluster.nodes[attempt.node]
        attempt.move(state)
        attempt.reason = reason
        attempt.end_time = end_time or self._at
        job.progress = ""
        job.attempt = None
        del node.attempts[attempt.ref]
        self._room_grew = True
        self._change.attempt(attempt)
        self._change.show_node(node)
        self._change.set_desired(node.name)
        self._lanes_changed(attempt.ref.job_ref)

    # --- what becomes of jobs

    def _try_again(
        self,
        pipeline: PipelineRecord,
        job: JobRecord,
        reason: Reason,
        kept: Sequence[Artifact] = (),
    ) -> None:
        """Queue a job anew, or let it fail, then with what its last attempt has in the archive."""
        job.reason = reason
        job.pending = None
        job.waiting_for = ""
        if reason.code in lifecycle.UNCOUNTED:
            lived = (self._at - job.attempts[-1].create_time).total_seconds()
            # Losses that lie far apart say nothing about the job.
            job.losses = 1 if lived > self._config.stable_seconds else job.losses + 1
            last = job.losses > self._config.losses_max
            # The first loss costs nothing; a job that is lost again and again slows down.
            delay = self._config.loss_backoff.delay_seconds(job.losses - 1, 0.0)
        else:
            job.failures += 1
            last = job.failures >= job.spec.retry.attempts
            delay = _retry_backoff(job).delay_seconds(job.failures, 0.0)
        if last:
            self._fail_job(pipeline, job, kept)
            return
        if delay > 0:
            job.move(JobState.RETRY_WAIT)
            job.retry_time = self._at + timedelta(seconds=delay)
            self._retry_at(job, self._now + delay)
        else:
            self._queue_again(pipeline, job)
        self._change.job(pipeline, job)
        self._job_event(job, "retry")

    def _queue_again(self, pipeline: PipelineRecord, job: JobRecord) -> None:
        job.move(JobState.QUEUED)
        self._backlog.add(job, pipeline.kind(job))
        self._room_grew = True  # those of its gang that wait already have to be looked at too

    def _retry_at(self, job: JobRecord, at: float) -> None:
        heapq.heappush(self._retries, (at, next(self._ties), job.epoch, job))

    def _fail_job(self, pipeline: PipelineRecord, job: JobRecord, kept: Sequence[Artifact]) -> None:
        job.move(JobState.FAILED)
        if kept:
            self._commit_artifacts(pipeline, job, job.attempts[-1].ref, kept)
        self._change.job(pipeline, job)
        self._job_event(job, "failed")
        self._stop(
            pipeline,
            Reason(ReasonCode.NEIGHBOUR, 0, f"job {job.ref.job} failed ({job.reason.short})"),
        )
        self._job_ended(pipeline)

    def _stop(self, pipeline: PipelineRecord, reason: Reason) -> None:
        """End all jobs of a pipeline: at once what runs nowhere, else by its agent."""
        if pipeline.stop is not None or pipeline.state.terminal:
            return
        pipeline.stop = reason
        self._change.pipeline(pipeline)
        if pipeline.holding is not None:
            self._abandon(pipeline, pipeline.holding, "the pipeline is ending")
        for job in pipeline.jobs.values():
            attempt = job.attempt
            if attempt is None:
                if not job.ended:
                    self._cancel_job(pipeline, job)
            elif not self._leases.holds(attempt.node):
                self._lose(attempt, f"node {attempt.node} is away")
            else:
                attempt.assignment = None
                self._change.set_desired(attempt.node)

    def _cancel_job(self, pipeline: PipelineRecord, job: JobRecord) -> None:
        job.move(JobState.CANCELLED)
        job.reason = pipeline.stop or Reason(ReasonCode.CANCELLED)
        job.waiting_for = ""
        job.retry_time = None
        self._backlog.remove(job.ref)
        self._fresh.pop(job.ref, None)
        self._change.job(pipeline, job)
        self._job_event(job, "cancelled")
        self._job_ended(pipeline)

    def _job_ended(self, pipeline: PipelineRecord) -> None:
        pipeline.open_jobs -= 1
        if pipeline.open_jobs:
            return
        jobs = pipeline.jobs.values()
        failure = facts.first_failure(jobs)
        if failure is not None:
            pipeline.state, pipeline.reason = PipelineState.FAILED, failure
        elif any(job.state is JobState.CANCELLED for job in jobs):
            pipeline.state = PipelineState.CANCELLED
            pipeline.reason = pipeline.stop or Reason(ReasonCode.CANCELLED)
        else:
            pipeline.state = PipelineState.SUCCEEDED
        if pipeline.holding is not None:
            self._abandon(pipeline, pipeline.holding, "the pipeline has ended")
        pipeline.end_time = self._at
        pipeline.final_event_id = facts.pipeline_event_id(pipeline, pipeline.state)
        self._change.pipeline(pipeline)
        self._change.outbox(
            facts.pipeline_event(
                self._change.take_sequence(), pipeline, pipeline.state, pipeline.reason, self._at
            )
        )
        self._ended.append(pipeline.ref)
        self._open -= 1

    # --- time

    def _begin_retries(self) -> None:
        while self._retries and self._retries[0][0] <= self._now:
            _, _, epoch, job = heapq.heappop(self._retries)
            if job.state is JobState.RETRY_WAIT and job.epoch == epoch:
                job.retry_time = None
                job.waiting_for = ""
                pipeline = self._pipeline_of(job.ref)
                self._queue_again(pipeline, job)
                self._change.job(pipeline, job)

    def _chase_untouched(self) -> None:
        """End the session of an agent that leaves an assignment alone, so that both compare."""
        while self._untouched and self._untouched[0][0] <= self._now:
            _, _, attempt = heapq.heappop(self._untouched)
            node = self._cluster.nodes[attempt.node]
            if attempt.state is JobState.ASSIGNED:
                if not node.quarantine:
                    self._end_untouched(node, attempt)
                self._chase(attempt)

    def _end_untouched(self, node: NodeRecord, attempt: AttemptRecord) -> None:
        self._end_session(
            node,
            f"node {attempt.node} did not take up {attempt.ref.name} within "
            f"{self._config.assigned_seconds:g} s",
        )

    def _chase(self, attempt: AttemptRecord) -> None:
        at = self._now + self._config.assigned_seconds
        heapq.heappush(self._untouched, (at, next(self._ties), attempt))

    # --- placement

    def _nodes(self) -> tuple[NodeState, ...]:
        cluster = self._cluster
        return tuple(cluster.snapshot(cluster.nodes[name]) for name in sorted(cluster.nodes))

    def _place_all(self) -> None:
        jobs = self._candidates()
        self._room_grew = False
        self._fresh = {}
        if not jobs:
            return
        pipelines = {job.ref.pipeline_ref: self._pipeline_of(job.ref) for job in jobs}
        residents = {ref: pipeline.residents() for ref, pipeline in pipelines.items()}
        pending = [pipelines[job.ref.pipeline_ref].pending(job) for job in jobs]
        made = plan(Snapshot(self._nodes(), residents), pending)
        for placed in made.placed:
            self._place(placed.job, placed.node)
        if made.placed and len(jobs) < len(self._backlog) + len(made.placed):
            self._room_grew = True  # there may be room for those that were not looked at
        for ref, why in made.waiting.items():
            job = pipelines[ref.pipeline_ref].jobs[ref.job]
            if job.waiting_for != why:
                job.waiting_for = why
                self._change.show_job(pipelines[ref.pipeline_ref], job)

    def _candidates(self) -> list[JobRecord]:
        """Jobs that may find room now, with the rest of their gangs, in the order of the queue."""
        found = dict(self._fresh)
        if self._room_grew:  # else what waited before cannot have found any
            found |= {job.ref: job for job in self._backlog.heads(self._config.plan_width)}
        for job in tuple(found.values()):
            pipeline = self._pipeline_of(job.ref)
            if len(pipeline.jobs) > 1:
                gang = pipeline.topology.gangs[job.ref.job]
                for other in pipeline.jobs.values():
                    if (
                        other.ref in self._backlog
                        and pipeline.topology.gangs[other.ref.job] == gang
                    ):
                        found[other.ref] = other
        return sorted(found.values(), key=lambda job: self._backlog.ticket(job.ref))

    def _place(self, ref: JobRef, name: str) -> None:
        pipeline, node = self._pipeline_of(ref), self._cluster.nodes[name]
        job = pipeline.jobs[ref.job]
        self._backlog.remove(ref)
        job.move(JobState.ASSIGNED)
        job.epoch += 1
        job.number += 1
        job.waiting_for = ""
        job.streams = ()
        job.progress = ""
        if job.spec.placement is Placement.PINNED:
            job.pinned_node = name
        attempt = AttemptRecord(
            ref=AttemptRef(ref.namespace, ref.pipeline, ref.job, job.number, job.epoch),
            node=name,
            state=JobState.ASSIGNED,
            create_time=self._at,
        )
        job.attempt = attempt
        job.attempts.append(attempt)
        node.attempts[attempt.ref] = attempt
        self._chase(attempt)
        self._change.job(pipeline, job)
        self._change.attempt(attempt)
        self._change.show_node(node)
        self._change.set_desired(name)
        self._lanes_changed(ref)
        self._end_sources(pipeline)

    def _lanes_changed(self, ref: JobRef) -> None:
        """Tell the agents of a job's neighbours where it stands now."""
        pipeline = self._pipeline_of(ref)
        for neighbour in pipeline.topology.neighbours[ref.job]:
            attempt = pipeline.jobs[neighbour].attempt
            if attempt is not None:
                attempt.assignment = None
                self._change.set_desired(attempt.node)
            if pipeline.jobs[neighbour].state is JobState.DRAINING:
                self._change.show_job(pipeline, pipeline.jobs[neighbour])  # for whom it waits

    # --- small things

    def _progress(self, event: inbox.Progressed) -> None:
        node = self._heard(event.node, event.session_id)
        said = event.progress
        job = self._cluster.job(said.ref.job_ref)
        if node is None or node.quarantine or job is None or job.attempt is None:
            return
        if job.attempt.ref != said.ref or job.attempt.node != node.name:
            return
        # Who has nothing but words to say does not know the streams.
        job.streams = said.streams or job.streams
        job.progress = said.text
        pipeline = self._pipeline_of(job.ref)
        self._change.show_job(pipeline, job)
        self._end_sources(pipeline)

    def _wait_for(self, attempt: AttemptRecord, why: str) -> None:
        job = self._job(attempt)
        if job.waiting_for != why:
            job.waiting_for = why
            self._change.show_job(self._pipeline(attempt), job)

    def _job_event(self, job: JobRecord, what: str) -> None:
        self._change.outbox(
            facts.job_event(self._change.take_sequence(), job, what, job.reason, self._at)
        )

    def _job(self, attempt: AttemptRecord) -> JobRecord:
        return self._pipeline(attempt).jobs[attempt.ref.job]

    def _pipeline(self, attempt: AttemptRecord) -> PipelineRecord:
        return self._cluster.pipelines[attempt.ref.job_ref.pipeline_ref]

    def _pipeline_of(self, ref: JobRef) -> PipelineRecord:
        return self._cluster.pipelines[ref.pipeline_ref]

    # --- the beginning

    def _load(self, loaded: Loaded) -> None:
        cluster = self._cluster
        for node_row in loaded.nodes:
            node = cluster.nodes[node_row.name] = NodeRecord.load(node_row)
            self._by_member[node.member_name] = node.name
            self._leases.renew(node.name, self._now)
        rows = {row.ref: row for row in loaded.pipelines}
        topologies: dict[int, Topology] = {}
        scales: dict[PipelineRef, list[ScaleRow]] = {}
        for scale in loaded.scales:
            scales.setdefault(scale.ref, []).append(scale)
        for added in loaded.added:
            shared = topologies.get(id(added.spec))  # equal specs are one object
            if shared is None:
                shared = topologies[id(added.spec)] = topology(added.spec)
            pipeline = PipelineRecord.begin(added, shared)
            if added.ref in scales:
                pipeline.scales = scales[added.ref]
                pipeline.grow(topology(added.spec, scaling.grown(pipeline)))
                if pipeline.holding is not None:
                    self._hold(pipeline)
            row = rows.get(added.ref)
            if row is not None:
                pipeline.state = row.state
                pipeline.reason = row.reason
                pipeline.stop = row.stop
                pipeline.end_time = row.end_time
                pipeline.final_event_id = row.final_event_id
                pipeline.finish_time = row.finish_time
            pipeline.revision = self._change.revision
            self._remember(pipeline)
        self._load_jobs(loaded)
        ended = [one for one in cluster.pipelines.values() if one.state.terminal]
        ended.sort(key=lambda one: (one.end_time or one.create_time, one.position))
        self._ended.extend(one.ref for one in ended)
        for pipeline in cluster.pipelines.values():
            pipeline.open_jobs = sum(not job.ended for job in pipeline.jobs.values())
            self._end_sources(pipeline)
            for job in pipeline.jobs.values():
                if job.state is JobState.QUEUED:
                    self._backlog.add(job, pipeline.kind(job))

    def _load_jobs(self, loaded: Loaded) -> None:
        cluster = self._cluster
        for row in loaded.jobs:
            job = self._pipeline_of(row.ref).jobs[row.ref.job]
            job.state = row.state
            job.reason = row.reason
            job.epoch = row.epoch
            job.number = row.number
            job.failures = row.failures
            job.losses = row.losses
            job.retry_time = row.retry_time
            job.pinned_node = row.pinned_node
            job.avoid = row.avoid
            job.ends = row.ends
            if row.state is JobState.RETRY_WAIT:
                self._load_retry(job)
        for seen in loaded.attempts:
            job = self._pipeline_of(seen.ref.job_ref).jobs[seen.ref.job]
            attempt = AttemptRecord(
                ref=seen.ref,
                node=seen.node,
                state=seen.state,
                create_time=seen.create_time,
                reason=seen.reason,
                start_time=seen.start_time,
                end_time=seen.end_time,
                holds=seen.holds,
                ended_inputs=seen.ended_inputs,
            )
            job.attempts.append(attempt)
            if seen.state in lifecycle.PLACED:
                job.attempt = attempt
                cluster.nodes[seen.node].attempts[seen.ref] = attempt
                if seen.state is JobState.ASSIGNED:
                    self._chase(attempt)
        for manifest in loaded.manifests:
            self._pipeline_of(manifest.attempt.job_ref).jobs[
                manifest.attempt.job
            ].manifest = manifest

    def _load_retry(self, job: JobRecord) -> None:
        # The wall clock may have been set meanwhile, so it may shorten the wait but not stretch it.
        left = (job.retry_time - self._at).total_seconds() if job.retry_time else 0.0
        longest = max(
            job.spec.retry.backoff_limit_seconds, self._config.loss_backoff.maximum_seconds
        )
        self._retry_at(job, self._now + min(max(left, 0.0), longest))


def _as_it_stands(pipeline: PipelineRecord, job: JobRecord, verdict: NodeVerdict) -> NodeVerdict:
    """Say what matters more than room: the job has ended, or is somewhere already."""
    attempt = job.attempt
    if job.ended:
        sentence = f"Node {verdict.node} is not asked: the job is {job.state.name} already."
        return NodeVerdict(verdict.node, feasible=False, sentence=sentence)
    if attempt is None:
        return verdict
    if attempt.node == verdict.node:
        said = waits_for(pipeline, job)
        waits = f"; {said}" if said else ""
        sentence = (
            f"Node {verdict.node} has it: attempt {attempt.ref.number} is {attempt.state.name}"
            f"{waits}."
        )
        return NodeVerdict(verdict.node, feasible=True, sentence=sentence, score=verdict.score)
    return NodeVerdict(
        verdict.node,
        feasible=verdict.feasible,
        sentence=f"{verdict.sentence} The job is on node {attempt.node}.",
        score=verdict.score,
    )


def _present(node: NodeRecord) -> Iterator[AttemptRecord]:
    """The attempts on a node; losing one may end others before their turn comes."""
    for attempt in tuple(node.attempts.values()):
        if attempt.ref in node.attempts:
            yield attempt


def _retry_backoff(job: JobRecord) -> Backoff:
    retry = job.spec.retry
    first = max(retry.backoff_seconds, 0.001)
    return Backoff(first, max(retry.backoff_limit_seconds, first), jitter=0.0)


def _unknown(ref: PipelineRef) -> UnknownPipelineError:
    return UnknownPipelineError(
        f"namespace {ref.namespace!r} has no pipeline {ref.pipeline!r}: "
        "it was never submitted there, or it ended long ago"
    )


def _no_job(pipeline: PipelineRecord, name: str) -> UnknownJobError:
    jobs = ", ".join(job.name for job in pipeline.spec.jobs)
    return UnknownJobError(
        f"the specification of {pipeline.ref.pipeline} has no job {name!r}: its jobs are {jobs}; "
        "replicas are scaled together, by the name of their job"
    )


def _artifact_problem(ref: AttemptRef, artifacts: Sequence[Artifact]) -> str:
    """What is wrong with a list of artifacts: an attempt may only write under its own prefix."""
    paths: set[str] = set()
    for artifact in artifacts:
        if not artifact.key.startswith(f"{ref.prefix}/"):
            return f"artifact {artifact.path} has key {artifact.key!r} outside {ref.prefix}/"
        if artifact.path in paths:
            return f"artifact {artifact.path} is listed twice"
        if len(artifact.sha256) != 64:
            return f"artifact {artifact.path} has no SHA-256: {artifact.sha256!r}"
        paths.add(artifact.path)
    return ""
