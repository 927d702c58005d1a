"""The control plane as the API and the sessions see it: the leader, and what shows its commits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self

from control.core import events
from control.core.answers import Page, Refusal, Submission, SubmitResult
from control.core.effects import Admitted, AnswerValue, Taken
from control.core.errors import StoreFailedError
from control.front.desired_feeds import DesiredFeeds
from control.front.read_model import PAGE_SIZE, ReadModel, token
from control.front.watch import Changes, each
from control.leader.leader import Leader
from control.leader.plane_config import PlaneConfig
from control.store.store import Store
from shoal.model import MemberState, PipelineState, Reason
from shoal.names import AttemptRef, JobRef, PipelineRef
from shoal.session.messages import Desired, Fenced, Hello, Refused
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.view import Event, NodeVerdict, NodeView, PipelineView

_FORGOTTEN = Reason(
    message="it ended so long ago that nothing but its name and its request id is remembered"
)


class ControlPlane:
    """Everything that the API and the sessions ask for. `async with` it, and let `run` run.

    Every awaiting method raises StoreFailedError when it could not be recorded, and ClosingError
    when the control plane ends.

    Args:
        store: Where everything is written down; it stays its owner's.
        config: What may be set.
        clock: Seconds on a monotonic clock.
        wall: The wall clock, aware and in UTC.
        ids: Makes a random id of so many characters, `[a-z0-9]`.
    """

    def __init__(
        self,
        *,
        store: Store,
        config: PlaneConfig,
        clock: Callable[[], float],
        wall: Callable[[], datetime],
        ids: Callable[[int], str],
    ) -> None:
        self._store = store
        self._feeds = DesiredFeeds()
        self._read_model = ReadModel(store, config.changes_kept, config.watch_pending_max)
        self._leader = Leader(
            store=store,
            config=config,
            clock=clock,
            wall=wall,
            ids=ids,
            projections=(self._feeds, self._read_model),
        )
        self.outbox_grown = self._leader.outbox_grown
        """Set after each commit that added outbox rows; the publisher clears it."""

    async def __aenter__(self) -> Self:
        """Load the store."""
        await self._leader.load()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of all callers and watchers."""
        self._leader.close()

    async def run(self) -> None:
        """Drive until cancelled."""
        await self._leader.run()

    def refuse_new(self, why: StoreFailedError | None) -> None:
        """Refuse whatever makes the store grow, for this reason; None for taking it again."""
        self._leader.refuse_new(why)

    # --- people

    async def submit(self, submissions: Sequence[Submission]) -> Sequence[SubmitResult | Refusal]:
        """Record pipelines; durable when it returns; one answer each, in order."""
        self._leader.check_recording(grows=True)
        answers = await self._leader.call_all([partial(_submit, one) for one in submissions])
        return [
            await self._submitted(one, answer)
            for one, answer in zip(submissions, answers, strict=True)
        ]

    async def cancel(self, ref: PipelineRef, reason: str) -> PipelineView:
        """Ask for the end of a pipeline; returns when that is recorded.

        Raises:
            UnknownPipelineError: There is none of that name.
        """
        self._leader.check_recording()
        await self._leader.call(lambda call: events.Cancel(call, ref, reason))
        return await self.find_pipeline(ref)

    async def finish(self, ref: PipelineRef) -> PipelineView:
        """Ask the sources of a pipeline to end; returns when that is recorded.

        Raises:
            UnknownPipelineError: There is none of that name.
        """
        await self._leader.call(lambda call: events.Finish(call, ref))
        return await self.find_pipeline(ref)

    async def scale(self, ref: PipelineRef, job: str, replicas: int) -> PipelineView | Refusal:
        """Ask for another number of replicas of a job of the spec; returns when that is recorded.

        Raises:
            UnknownPipelineError: There is none of that name.
            UnknownJobError: Its specification has no such job.
        """
        self._leader.check_recording(grows=True)
        value = await self._leader.call(lambda call: events.Scale(call, ref, job, replicas))
        return value if isinstance(value, Refusal) else await self.find_pipeline(ref)

    async def find_pipeline(self, ref: PipelineRef) -> PipelineView:
        """Return one pipeline.

        Raises:
            UnknownPipelineError: There is none of that name.
            StoreFailedError: It has ended, and the store cannot be read.
        """
        return await self._read_model.find(ref)

    def pipeline(self, ref: PipelineRef) -> PipelineView:
        """Return a pipeline that has not ended, or that was found or changed lately.

        Raises:
            UnknownPipelineError: There is none of that name in memory: `find_pipeline` asks the store.
        """
        return self._read_model.pipeline(ref)

    async def pipelines(
        self,
        namespace: str,
        states: frozenset[PipelineState] = frozenset(),
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        *,
        fits: Callable[[PipelineView], bool] = lambda _: True,
    ) -> Page[PipelineView]:
        """List pipelines, newest first; no states means all.

        A page has at least one, and ends before one that `fits` refuses.

        Raises:
            PageTokenError: The token is from nowhere.
        """
        return await self._read_model.pipelines(namespace, states, page_size, page_token, fits=fits)

    async def explain(self, ref: JobRef) -> Sequence[NodeVerdict]:
        """Say for each node in one sentence why a job is or is not placed there.

        Raises:
            UnknownPipelineError: There is no such pipeline.
            UnknownJobError: It has no such job.
            StoreFailedError: The store is away.
        """
        machine = await self._leader.know(ref.pipeline_ref)
        return machine.explain(ref)

    async def events(
        self,
        namespace: str,
        pipeline: str = "",
        page_size: int = PAGE_SIZE,
        page_token: str = "",
    ) -> Page[Event]:
        """List events, kept and published ones, oldest first; `pipeline` is an id or empty.

        Raises:
            PageTokenError: The token is from nowhere.
        """
        after = token(page_token)
        found = await self._store.events(namespace, pipeline, after, page_size + 1)
        items = tuple(found[:page_size])
        return Page(items, str(items[-1].sequence) if len(found) > page_size else "")

    @asynccontextmanager
    async def watch_pipelines(
        self, namespace: str, pipeline: str = "", since_revision: int = 0
    ) -> AsyncIterator[Changes[PipelineView]]:
        """Watch the pipelines of a namespace, or one: snapshot, SnapshotEnd, changes.

        A `since_revision` that is still known leaves the snapshot and its mark out. The iterator
        raises WatcherTooSlowError, StoreFailedError or ClosingError. Its `resume` says from where to
        go on after the last item.
        """
        self._leader.check_open()

        def match(ref: PipelineRef) -> bool:
            return ref.namespace == namespace and pipeline in {"", ref.pipeline}

        with self._read_model.watched_pipelines.watch(
            since_revision, match, lambda: self._read_model.snapshot(namespace, pipeline)
        ) as changes:
            yield changes

    # --- nodes

    def node(self, name: str) -> NodeView:
        """Return one node.

        Raises:
            UnknownNodeError: No agent of that name ever connected.
        """
        return self._read_model.node(name)

    def nodes(self) -> Sequence[NodeView]:
        """All nodes, by name."""
        return self._read_model.nodes()

    @asynccontextmanager
    async def watch_nodes(self, since_revision: int = 0) -> AsyncIterator[Changes[NodeView]]:
        """Watch all nodes, as `watch_pipelines` does pipelines."""
        self._leader.check_open()
        with self._read_model.watched_nodes.watch(
            since_revision, lambda _: True, lambda: each(self._read_model.node_views())
        ) as changes:
            yield changes

    async def drain(self, name: str, *, drained: bool) -> NodeView:
        """Stop placing on a node, or take it back.

        Raises:
            UnknownNodeError: No agent of that name ever connected.
        """
        self._leader.check_recording()
        await self._leader.call(lambda call: events.Drain(call, name, drained))
        return self.node(name)

    async def adopt(self, name: str) -> NodeView:
        """Let a quarantined node give up what it has and follow this controller.

        Raises:
            UnknownNodeError: No agent of that name ever connected.
            NotQuarantinedError: It follows this controller already.
        """
        self._leader.check_recording()
        await self._leader.call(lambda call: events.Adopt(call, name))
        return self.node(name)

    # --- agents

    async def open_session(self, hello: Hello, session_id: str, address: str = "") -> Admitted:
        """Record a node and what it says of its attempts; replaces an older session of the node.

        `address` is where its agent dialled from.

        Raises:
            HelloRefusedError: The node cannot be recorded.
            NameTakenError: Another agent has its name.
            InternalError: The controller cannot take what this node says.
        """
        self._leader.check_set_aside(hello.node)
        value = await self._leader.call(
            lambda call: events.HelloReceived(call, hello, session_id, address)
        )
        if not isinstance(value, Admitted):
            raise TypeError(f"a Hello was answered with {value!r}")
        return value

    async def observe(
        self, node: str, session_id: str, observations: Sequence[Observation]
    ) -> Sequence[Fenced]:
        """Record observations; returns those that were refused because they are stale.

        Raises:
            SessionEndedError: The session is over.
        """
        seen = tuple(observations)
        value = await self._leader.call(lambda call: events.Observed(call, node, session_id, seen))
        return value if isinstance(value, tuple) else ()

    def heartbeat(self, node: str, session_id: str) -> bool:
        """Renew a lease at once, even while a commit is under way; says whether the session lives."""
        return self._leader.heartbeat(node, session_id)

    def progress(self, node: str, session_id: str, progress: Progress) -> None:
        """Take counters of an attempt; ignored if they are stale."""
        if self.is_current(node, progress.ref):
            self._leader.inbox.progress(events.Progressed(node, session_id, progress))

    def condition(self, node: str, session_id: str, refuses: str) -> None:
        """Take why a node takes no new work, or that it does; ignored if the session is over."""
        self._leader.inbox.condition(events.Conditioned(node, session_id, refuses))

    async def close_session(self, node: str, session_id: str) -> None:
        """Say that the stream broke or ended; the lease goes on."""
        await self._leader.call(lambda call: events.SessionClosed(call, node, session_id))

    async def stream_worker_gone(self, node: str) -> None:
        """Say that a node's stream worker is dead; ignored while the node has a session."""
        await self._leader.call(lambda call: events.StreamWorkerGone(call, node))

    def desired(
        self, node: str, session_id: str, *, takes_lanes: bool = False
    ) -> AsyncGenerator[Desired | Refused, None]:
        """Follow what should run on a node: first a snapshot, then deltas, coalesced.

        With `takes_lanes` an attempt of which only lanes changed is told by these alone.

        What its agent should say in its log comes between them, as a refusal of nothing.

        Raises:
            SessionEndedError: The session was replaced, its lease ran out, it was closed, or the
                store failed: the stream is to be ended, and the agent dials again.
        """
        return self._feeds.follow(node, session_id, takes_lanes=takes_lanes)

    def is_current(self, node: str, ref: AttemptRef) -> bool:
        """Whether this attempt is the placed one of its job, and on this node."""
        if self._leader.machine is None:
            return False
        record = self._leader.machine.cluster.nodes.get(node)
        return record is not None and ref in record.attempts

    def was_placed(self, node: str, ref: AttemptRef) -> bool:
        """Whether this attempt is, or was, placed on this node."""
        job = (
            None if self._leader.machine is None else self._leader.machine.cluster.job(ref.job_ref)
        )
        return job is not None and any(
            attempt.ref == ref and attempt.node == node for attempt in reversed(job.attempts)
        )

    # --- membership

    def member_verdict(self, member: str, state: MemberState) -> None:
        """Take what gossip believes of a member, by the member name that a node's Hello gave."""
        self._leader.inbox.member_verdict(member, state)

    async def _submitted(
        self, submission: Submission, answer: AnswerValue
    ) -> SubmitResult | Refusal:
        match answer:
            case Taken(ref, _, ended) if ended is not None:
                view = PipelineView(ref.pipeline, ref.namespace, ended, submission.spec, _FORGOTTEN)
                return SubmitResult(view, repeated=True)
            case Taken(ref, repeated):
                return SubmitResult(await self.find_pipeline(ref), repeated)
            case Refusal():
                return answer
            case _:
                raise TypeError(f"a submission was answered with {answer!r}")


def _submit(submission: Submission, call: int) -> events.Submit:
    return events.Submit(call, submission)
