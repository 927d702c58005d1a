"""The control machine: what happens goes in, what is to be recorded and done comes out.

Pure. Its state is a function of the rows that it asked to record, of the sessions since it began,
and of what gossip said; after a restart it begins with the rows, and every node with a new lease.
Placement happens in `tick`, once for all that happened before it, so a shell that takes a batch of
events lets `tick` follow and commits everything at once.

Rule: one event, or one look at the time, changes the records in memory and returns the effects: the
rows first, then what is shown, sent and answered. The shell commits the rows, and acts only then.

Invariants:
1. At most one attempt of a job is current. Each one has a higher epoch than those before it, and what
   another attempt reports is answered with `Fenced`.
2. What has been committed never changes: a job that has ended stays as it ended.
3. Every state in which something waits names the party that acts next, and a moment (`lifecycle.WAITS`).
4. Nothing is decided by what may be lost: counters, words and heartbeats change no row, but for what is
   told of streams that stand still (`job_news.py`).

Why a machine: hundreds of histories with crashes, cut links and clocks that jump run in minutes, without
sockets and without waiting (tests/simulation/mesh). Why in memory: a plan looks at all nodes and at the
head of the queue, thousands of times a second; a table would be asked for both each time.

Example: an agent reports SUCCEEDED twice, as it saw no acknowledgement. The first report ends the
attempt, commits its artifacts and writes manifest and event to the outbox, in one transaction. The
second one finds the same attempt in the same state, and is acknowledged without a row.

Each kind of event is taken by the part that has its noun. A part calls those below it alone:
sessions -> gossip, observations -> outcomes -> scales -> placement -> sources, news -> situation.

Source: the leader of Raft (https://raft.github.io) for the term and for "commit, then apply"; fencing by
epoch as in https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias, assert_never

from control.core import events, outbox_rows
from control.core.answers import Refusal
from control.core.change_set import ChangeSet
from control.core.dashboard import Dashboard
from control.core.effects import AnswerValue, Effect, Taken, VersionStored
from control.core.errors import ControlError
from control.core.gossip import GossipVerdicts
from control.core.identities import Identities
from control.core.job_news import JobNews
from control.core.job_secrets import JobSecrets
from control.core.letter_office import LetterOffice
from control.core.loading import Loading
from control.core.machine_config import MachineConfig
from control.core.memory import Memory
from control.core.node_news import NodeNews
from control.core.nodes import Nodes
from control.core.observations import Observations
from control.core.outcomes import Outcomes
from control.core.placement import Placer
from control.core.prefetching import Prefetching
from control.core.quarantine import Starts
from control.core.rows import Loaded, Queued, RequestKey
from control.core.scales import Scales
from control.core.sessions import Sessions
from control.core.situation import Situation
from control.core.sources import Sources
from control.core.state import Cluster
from control.core.stored_pipelines import StoredPipelines
from control.core.submissions import Submissions
from control.core.tracing import Tracing
from shoal.names import AttemptRef, JobRef, PipelineRef, stored_name
from shoal.session.assignment import Assignment
from shoal.session.feature import Feature
from shoal.view import NodeVerdict

_Asked: TypeAlias = (
    events.Submit
    | events.Cancel
    | events.Finish
    | events.Scale
    | events.Revive
    | events.Discard
    | events.Drain
    | events.Adopt
    | events.ForgetNode
    | events.CallMade
    | events.SetSecret
    | events.RemoveSecret
    | events.StorePipeline
    | events.DeleteStored
)


class ControlMachine:
    """Lifecycle, leases, reconcile and placement of everything (a `Machine`).

    Args:
        config: What may be set.
        loaded: What the store remembers.
        now: Monotonic time, at which every node's lease begins anew.
        wall: The wall clock, aware and in UTC: written down, and compared only with when identities end.
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
        self._wall = wall
        self._swept_at = now
        start = loaded.starts[-1]
        self.cluster_id = loaded.cluster_id
        change = ChangeSet(start, start.term << 32, loaded.next_sequence)
        cluster = Cluster(loaded, change.revision)
        situation = self._situation = Situation(config, change, now, wall(), ids, cluster)
        memory = self.memory = Memory(situation)
        sources = Sources(situation, start.term)
        job_news = self._job_news = JobNews(situation)
        secrets = self.secrets = JobSecrets(situation)
        self.stored = StoredPipelines(situation)
        placement = self._placement = Placer(situation, sources, job_news, secrets)
        scales = self._scales = Scales(situation, placement)
        dashboard = Dashboard(situation)
        tracing = Tracing(situation, loaded.cluster_id)
        outcomes = self._outcomes = Outcomes(
            situation, placement, scales, job_news, dashboard, tracing
        )
        observations = self._observations = Observations(
            situation, sources, scales, outcomes, job_news, dashboard
        )
        node_news = self._node_news = NodeNews(situation)
        gossip = self._gossip = GossipVerdicts(situation, outcomes, node_news)
        prefetching = self._prefetching = Prefetching(situation)
        self._nodes = Nodes(situation, outcomes, node_news)
        self._sessions = Sessions(
            situation,
            Starts(loaded.cluster_id, loaded.starts),
            sources,
            placement,
            outcomes,
            observations,
            gossip,
            node_news,
            prefetching,
        )
        self._submissions = Submissions(
            situation, sources, scales, outcomes, memory, secrets, tracing, loaded.next_position
        )
        self._letters = LetterOffice(situation, self._submissions.revive)
        self.identities = Identities(situation)
        self._deadlines = (
            outcomes.deadline,
            placement.deadline,
            self._nodes.deadline,
            node_news.deadline,
            job_news.deadline,
            self._letters.deadline,
            self.identities.deadline,
        )
        self.identities.load(loaded)
        secrets.load(loaded)
        self.stored.load(loaded)
        Loading(situation, sources, placement, scales, outcomes, self._nodes, gossip, memory).load(
            loaded
        )

    # --- what is in memory

    def prepare(
        self, batch: Iterable[events.Event]
    ) -> tuple[Sequence[PipelineRef], Sequence[RequestKey]]:
        """Begin a step: return what its events name and memory lacks, to be read and `learn`ed first.

        No commit may be under way.
        """
        self.memory.trim()
        return self.memory.missing(batch)

    def line_up(self, queued: Sequence[Queued]) -> None:
        """Take the next part of the queue, behind what was read of it before."""
        self.memory.line_up(queued)
        self._placement.enter()

    def forgive(self, seconds: float) -> None:
        """Count no silence of a node for a time in which no event was taken."""
        self._situation.leases.forgive(seconds)

    # --- the protocol

    def step(self, batch: Iterable[events.Event], now: float) -> Sequence[Effect]:
        """Take all that happened, and then look at the time if a look is due.

        So what a node has said counts before its silence does, and what has just come is placed. What several
        events change is recorded, shown and sent once, as it is at the end.
        """
        self._set_clocks(now)
        for event in batch:
            self._take(event)
        deadline = self.deadline()
        if deadline is not None and deadline <= now:
            self._look()
        return self._situation.change.effects()

    def heard(self, name: str, session_id: str, now: float) -> bool:
        """Renew the lease of a node; returns whether its session lives. Nothing else changes, so it has no effects."""
        self._set_clocks(now)
        return self._situation.heard(name, session_id) is not None

    def handle(self, event: events.Event, now: float) -> Sequence[Effect]:
        """Take one event; placement waits for `tick`, which is due at once if it is wanted."""
        self._set_clocks(now)
        self._take(event)
        return self._situation.change.effects()

    def _take(self, event: events.Event) -> None:
        change = self._situation.change
        match event:
            case events.Submit():
                self._answer(event, self._submissions.submit(event))
            case events.Observed():  # these two come with each job
                change.answer(event.call, self._observations.take(event))
            case events.Cancel():
                self._answer(event, self._submissions.cancel(event))
            case events.Finish():
                self._answer(event, self._submissions.finish(event))
            case events.Scale():
                self._answer(event, self._scales.scale(event))
            case events.Revive():
                self._answer(event, self._letters.revive(event))
            case events.Discard():
                self._answer(event, self._letters.discard(event))
            case events.Drain():
                self._answer(event, self._nodes.drain(event))
            case events.Adopt():
                self._answer(event, self._nodes.adopt(event))
            case events.ForgetNode():
                self._answer(event, self._sessions.forget(event))
            case events.CallMade():
                self._answer(event, None)
            case events.SetSecret():
                self._answer(event, self.secrets.set(event))
            case events.RemoveSecret():
                self._answer(event, self.secrets.remove(event))
            case events.StorePipeline():
                self._answer(event, self.stored.store(event))
            case events.DeleteStored():
                self._answer(event, self.stored.delete(event))
            case events.ResealSecrets():
                self.secrets.reseal(event)
                change.answer(event.call, None)
            case events.CallsRefused():
                change.outbox(
                    outbox_rows.caller_refused(
                        event.caller,
                        event.reasons,
                        event.method,
                        event.address,
                        self._situation.wall_time,
                    )
                )
                change.answer(event.call, None)
            case events.HelloReceived():
                revoked = self.identities.against(event.serial)
                if revoked is None:
                    self._sessions.open(event)
                else:
                    change.answer(event.call, revoked)
            case events.SessionClosed():
                self._sessions.close(event)
            case events.StreamWorkerGone():
                self._nodes.lose_streams(event)
            case events.Progressed():
                self._observations.progress(event)
            case events.Conditioned():
                self._nodes.take_condition(event)
            case events.BundlesReported():
                self._prefetching.take(event)
            case events.MemberVerdict():
                self._gossip.take(event)
            case events.CreateToken():
                change.answer(event.call, self.identities.create(event))
            case events.RevokeToken():
                change.answer(event.call, self.identities.end_token(event))
            case events.Join():
                change.answer(event.call, self.identities.join(event))
            case events.Renew():
                change.answer(event.call, self.identities.renew(event))
            case events.RevokeIdentity():
                change.answer(event.call, self.identities.revoke(event))
            case _:
                assert_never(event)

    def _answer(self, event: _Asked, value: AnswerValue) -> None:
        """Answer a caller, and tell of its call if that changed a thing."""
        change = self._situation.change
        change.answer(event.call, value)
        repeated = isinstance(value, Taken | VersionStored) and value.repeated
        if event.note is None or repeated or isinstance(value, Refusal | ControlError):
            return
        namespace, name = _changed(event, value)
        change.outbox(
            outbox_rows.caller_called(event.note, namespace, name, self._situation.wall_time)
        )

    def tick(self, now: float) -> Sequence[Effect]:
        """Let leases run out, retries begin, doubts be settled; then place what waits."""
        self._set_clocks(now)
        self._look()
        return self._situation.change.effects()

    def _look(self) -> None:
        now = self._swept_at = self._situation.now
        for name in self._situation.leases.advance(now):
            self._nodes.lease_ran_out(self._situation.cluster.nodes[name])
        for name in sorted(self._gossip.doubted):
            self._gossip.settle_doubt(self._situation.cluster.nodes[name])
        self._sessions.settle_claims()
        self._sessions.forget_rivals()
        self._nodes.move()
        self._outcomes.begin_retries()
        self._placement.chase_untouched()
        self._placement.tell_again()
        self._scales.end_holds()
        if self._situation.room_grew or self._situation.fresh:
            self._placement.place_all()
        self._prefetching.settle()
        self._node_news.look_again()
        self._job_news.look_again()
        self.memory.forget()
        self._letters.forget_over()
        self.identities.forget_over()

    def deadline(self) -> float | None:
        """When `tick` is next wanted."""
        situation = self._situation
        if situation.room_grew or situation.fresh or situation.cluster.prefetch_changed:
            return situation.now
        times = [*self._scales.deadlines(), *self._sessions.deadlines()]
        times += [at for deadline in self._deadlines if (at := deadline()) is not None]
        if self._sessions.unclear or situation.leases.deadline() is not None:
            times.append(self._swept_at + situation.config.sweep_seconds)
        return min(times, default=None)

    # --- questions

    @property
    def cluster(self) -> Cluster:
        """Everything that is known; only the machine changes it."""
        return self._situation.cluster

    @property
    def revision(self) -> int:
        """Revision of the last change."""
        return self._situation.change.revision

    @property
    def start_id(self) -> str:
        """Id of this start."""
        return self._situation.change.start.id

    @property
    def last_sequence(self) -> int:
        """Sequence of the last row of the outbox; 0 for none."""
        return self._situation.change.last_sequence

    @property
    def situation(self) -> Situation:
        """What all parts share, to be read."""
        return self._situation

    @property
    def open_pipelines(self) -> int:
        """How many pipelines have not ended."""
        return self._situation.open

    @property
    def commits(self) -> int:
        """How many commits this start has made."""
        return self._situation.change.start.commits

    def desired(self, name: str) -> Mapping[AttemptRef, Assignment]:
        """What should run on a node; of one that is quarantined nothing may be wanted."""
        node = self._situation.cluster.nodes.get(name)
        if node is None or node.quarantine:
            return {}
        assignment = self._situation.cluster.assignment
        return {ref: one.assignment or assignment(one) for ref, one in node.attempts.items()}

    def prefetch(self, name: str) -> tuple[str, ...] | None:
        """The bundles that a node shall have before they are needed; None if its agent is not told."""
        node = self._situation.cluster.nodes.get(name)
        if node is None or node.quarantine or Feature.PREFETCH not in node.features:
            return None
        return node.prefetch

    def session(self, name: str) -> str:
        """The session of a node, or an empty string."""
        node = self._situation.cluster.nodes.get(name)
        return "" if node is None else node.session_id

    def explain(self, ref: JobRef) -> tuple[NodeVerdict, ...]:
        """One sentence for each node.

        Raises:
            UnknownPipelineError: There is no such pipeline.
            UnknownJobError: It has no such job.
        """
        return self._placement.explain(ref)

    def _set_clocks(self, now: float) -> None:
        self._situation.now = now
        self._situation.wall_time = self._wall()


def _changed(event: _Asked, value: AnswerValue) -> tuple[str, str]:
    """Return the namespace and the name of what a person's event has changed."""
    match event:
        case events.Submit(submission=submission):
            return submission.namespace, value.ref.name if isinstance(value, Taken) else ""
        case events.Revive(ref=ref):
            return ref.namespace, value.ref.name if isinstance(value, Taken) else ref.name
        case events.Cancel(ref=ref) | events.Finish(ref=ref) | events.Discard(ref=ref):
            return ref.namespace, ref.name
        case events.Scale(ref=ref, job=job):
            return ref.namespace, f"{ref.name}/jobs/{job}"
        case events.Drain(node=node) | events.Adopt(node=node) | events.ForgetNode(node=node):
            return "", f"nodes/{node}"
        case events.CallMade(name=name):
            return "", name
        case events.SetSecret(secret=secret):
            return secret.namespace, f"secrets/{secret.name}"
        case events.RemoveSecret(namespace=namespace, name=name):
            return namespace, f"secrets/{name}"
        case events.StorePipeline(row=row):
            number = value.version if isinstance(value, VersionStored) else row.version
            return row.namespace, stored_name(row.name, number)
        case events.DeleteStored(namespace=namespace, name=name):
            return namespace, f"stored/{name}"
