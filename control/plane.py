"""The asyncio shell around the control machine: inbox, group commit, then the acts.

`run` takes everything that waits, lets the machine decide, commits all its rows in one transaction
and only then acts: tells agents, shows views, answers callers. So nobody sees what is not recorded.

If the store fails, nothing of the batch has happened: its callers are told, sessions and watches
end, and the machine is built anew from what the store does remember as soon as it can be written
again. Until then every request is refused with the store's own reason.

If an event makes the machine raise, or asks for a row that no store can hold, the mistake is ours
and the machine is half changed. It is built anew too, and the events of the batch are taken again
one by one: the culprit's caller gets the error, all others their answers. A node whose messages do
that is set aside for longer and longer, and so is the building anew itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import count
from types import TracebackType
from typing import Self, assert_never

from control import inbox
from control.delta import delta
from control.effects import (
    Admitted,
    Answer,
    Effect,
    EndSession,
    Record,
    SetDesired,
    ShowNode,
    ShowPipeline,
    Taken,
    Tell,
)
from control.errors import (
    ClosingError,
    ControlError,
    InternalError,
    PageTokenError,
    RebuildingError,
    SessionEndedError,
    StoreFailedError,
    UnknownNodeError,
    UnknownPipelineError,
)
from control.machine import ControlMachine, MachineConfig
from control.pictures import node_view, pipeline_view
from control.store.rows import OutboxRow, Row
from control.store.store import Store
from control.views import Page, Refusal, Submission, SubmitResult
from control.watch import Changes, Watched
from services.runtime.backoff import Backoff
from services.runtime.log import fields
from shoal.model import MemberState, PipelineState
from shoal.names import AttemptRef, JobRef, PipelineRef
from shoal.session.assignment import Assignment
from shoal.session.messages import Desired, Fenced, Hello, Refused
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.view import Event, NodeVerdict, NodeView, PipelineView

LOG = logging.getLogger(__name__)

ID_CHARACTERS = 16
"""Of the random ids of a cluster and of a start."""

REBUILD_BACKOFF = Backoff(0.5, 30.0, jitter=0.0)
"""How long the machine is not built anew again after it was, so that nobody can keep it busy."""

SET_ASIDE_BACKOFF = Backoff(5.0, 600.0, jitter=0.0)
"""How long a node is refused whose messages made the machine raise."""

REBUILDS_FORGOTTEN_SECONDS = 600.0

PAGE_SIZE = 100
PAGE_SIZE_MAX = 1000

AnswerValue = Taken | Admitted | Refusal | tuple[Fenced, ...] | ControlError | None


@dataclass(frozen=True, slots=True)
class PlaneConfig(MachineConfig):
    """What an operator may set, besides what `MachineConfig` has.

    Attributes:
        calls_max: how many requests may wait for the next commit.
        batch_max: how many of them one commit takes.
        changes_kept: how many changes a watcher may resume after.
        watch_pending_max: how many changes may wait for a watcher before it is cut off.
        store_retry_seconds: how long a failed store is left alone.
    """

    calls_max: int = 4096
    batch_max: int = 1024
    changes_kept: int = 10_000
    watch_pending_max: int = 4096
    store_retry_seconds: float = 1.0


class ControlPlane:
    """Everything that the API and the dispatcher ask for. `async with` it, and let `run` run.

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
        self._config = config
        self._clock = clock
        self._wall = wall
        self._ids = ids
        self.outbox_grown = asyncio.Event()
        """Set after each commit that added outbox rows; whoever publishes clears it."""
        self._machine: ControlMachine | None = None
        self._broken: ControlError | None = None
        # What keeps a batch from being recorded that nobody waits for, and what keeps people out.
        self._held: StoreFailedError | None = None
        self._short: StoreFailedError | None = None
        self._retry = Backoff(
            config.store_retry_seconds, 16 * config.store_retry_seconds, jitter=0.0
        )
        self._store_failures = 0
        self._rebuilds = 0
        self._rebuilt_at = 0.0
        # For each node whose messages made the machine raise: how often, and until when it waits.
        self._set_aside: dict[str, tuple[int, float]] = {}
        self._closing = False
        self._room = asyncio.Semaphore(config.calls_max)
        self._wake = asyncio.Event()
        self._inbox: deque[inbox.Event] = deque()
        # These come without anybody waiting, so that only the latest of each is kept.
        self._verdicts: dict[str, MemberState] = {}
        self._members: dict[str, MemberState] = {}
        self._progress: dict[AttemptRef, inbox.Progressed] = {}
        self._conditions: dict[str, inbox.Conditioned] = {}
        self._numbers = count(1)
        self._calls: dict[int, asyncio.Future[AnswerValue]] = {}
        self._feeds: dict[str, _Feed] = {}
        self._pipelines, self._nodes = _views(config, 0)
        self._positions: dict[PipelineRef, int] = {}

    async def __aenter__(self) -> Self:
        """Load the store."""
        await self._load()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of everybody who waits."""
        self._close()

    async def run(self) -> None:
        """Drive until cancelled."""
        try:
            while True:
                if self._machine is None:
                    await self._recover()
                else:
                    await self._wait(self._machine)
                    await self._step(self._machine)
                # One turn for everybody else, even when the inbox is never empty.
                await asyncio.sleep(0)
        finally:
            self._close()

    # --- people

    async def submit(self, submissions: Sequence[Submission]) -> Sequence[SubmitResult | Refusal]:
        """Record pipelines; durable when it returns; one answer each, in order."""
        self._check_recording(grows=True)
        answers = await self._call_all([partial(_submit, one) for one in submissions])
        return [self._submitted(answer) for answer in answers]

    async def cancel(self, ref: PipelineRef, reason: str) -> PipelineView:
        """Ask for the end of a pipeline; returns when that is recorded.

        Raises:
            UnknownPipelineError: There is none of that name.
        """
        self._check_recording()
        await self._call(lambda call: inbox.Cancel(call, ref, reason))
        return self.pipeline(ref)

    async def finish(self, ref: PipelineRef) -> PipelineView:
        """Ask the sources of a pipeline to end; returns when that is recorded.

        Raises:
            UnknownPipelineError: There is none of that name.
        """
        await self._call(lambda call: inbox.Finish(call, ref))
        return self.pipeline(ref)

    async def scale(self, ref: PipelineRef, job: str, replicas: int) -> PipelineView | Refusal:
        """Ask for another number of replicas of a job of the spec; returns when that is recorded.

        Raises:
            UnknownPipelineError: There is none of that name.
            UnknownJobError: Its specification has no such job.
        """
        self._check_recording(grows=True)
        value = await self._call(lambda call: inbox.Scale(call, ref, job, replicas))
        return value if isinstance(value, Refusal) else self.pipeline(ref)

    def pipeline(self, ref: PipelineRef) -> PipelineView:
        """Return one pipeline.

        Raises:
            UnknownPipelineError: There is none of that name.
        """
        view = self._pipelines.views.get(ref)
        if view is None:
            raise UnknownPipelineError(
                f"namespace {ref.namespace!r} has no pipeline {ref.pipeline!r}: "
                "it was never submitted there, or it ended long ago"
            )
        return view

    def pipelines(
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
        before = _token(page_token)
        size = _size(page_size)
        found: list[PipelineView] = []
        last = 0
        views = self._pipelines.views
        for ref, position in reversed(self._positions.items()):
            view = views[ref]
            if ref.namespace != namespace or (before and position >= before):
                continue
            if states and view.state not in states:
                continue
            if len(found) == size or (not fits(view) and found):
                return Page(tuple(found), str(last))
            found.append(view)
            last = position
        return Page(tuple(found))

    def explain(self, ref: JobRef) -> Sequence[NodeVerdict]:
        """Say for each node in one sentence why a job is or is not placed there.

        Raises:
            UnknownPipelineError: There is no such pipeline.
            UnknownJobError: It has no such job.
            StoreFailedError: The store is away.
        """
        return self._present().explain(ref)

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
        after = _token(page_token)
        size = _size(page_size)
        found = await self._store.events(namespace, pipeline, after, size + 1)
        items = tuple(found[:size])
        return Page(items, str(items[-1].sequence) if len(found) > size else "")

    @asynccontextmanager
    async def watch_pipelines(
        self, namespace: str, pipeline: str = "", since_revision: int = 0
    ) -> AsyncIterator[Changes[PipelineView]]:
        """Watch the pipelines of a namespace, or one: snapshot, SnapshotEnd, changes.

        A `since_revision` that is still known leaves the snapshot and its mark out. The iterator
        raises WatcherTooSlowError, StoreFailedError or ClosingError. Its `resume` says from where to
        go on after the last item.
        """
        self._check_open()

        def match(ref: PipelineRef) -> bool:
            return ref.namespace == namespace and pipeline in {"", ref.pipeline}

        with self._pipelines.watch(since_revision, match) as changes:
            yield changes

    # --- nodes

    def node(self, name: str) -> NodeView:
        """Return one node.

        Raises:
            UnknownNodeError: No agent of that name ever connected.
        """
        view = self._nodes.views.get(name)
        if view is None:
            known = ", ".join(sorted(self._nodes.views)) or "none yet"
            raise UnknownNodeError(f"no node {name!r}: known nodes are {known}")
        return self._seen(view)

    def nodes(self) -> Sequence[NodeView]:
        """All nodes, by name."""
        return [self._seen(view) for _, view in sorted(self._nodes.views.items())]

    @asynccontextmanager
    async def watch_nodes(self, since_revision: int = 0) -> AsyncIterator[Changes[NodeView]]:
        """Watch all nodes, as `watch_pipelines` does pipelines."""
        self._check_open()
        with self._nodes.watch(since_revision, lambda _: True) as changes:
            yield changes

    async def drain(self, name: str, *, drained: bool) -> NodeView:
        """Stop placing on a node, or take it back.

        Raises:
            UnknownNodeError: No agent of that name ever connected.
        """
        self._check_recording()
        await self._call(lambda call: inbox.Drain(call, name, drained))
        return self.node(name)

    async def adopt(self, name: str) -> NodeView:
        """Let a quarantined node give up what it has and follow this controller.

        Raises:
            UnknownNodeError: No agent of that name ever connected.
            NotQuarantinedError: It follows this controller already.
        """
        self._check_recording()
        await self._call(lambda call: inbox.Adopt(call, name))
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
        failures, until = self._set_aside.get(hello.node, (0, 0.0))
        if self._clock() < until:
            raise InternalError(
                f"node {hello.node} is set aside for {until - self._clock():.0f} s: {failures} of "
                "its messages met a mistake of the controller, whose log has it: report it"
            )
        value = await self._call(lambda call: inbox.HelloReceived(call, hello, session_id, address))
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
        value = await self._call(lambda call: inbox.Observed(call, node, session_id, seen))
        return value if isinstance(value, tuple) else ()

    def heartbeat(self, node: str, session_id: str) -> bool:
        """Renew a lease at once, even while a commit is under way; says whether the session lives."""
        if self._machine is None:
            return False
        self._machine.handle(inbox.HeartbeatReceived(node, session_id), self._clock())
        record = self._machine.cluster.nodes.get(node)
        return record is not None and record.session_id == session_id

    def progress(self, node: str, session_id: str, progress: Progress) -> None:
        """Take counters of an attempt; ignored if they are stale."""
        if self._machine is not None and self.is_current(node, progress.ref):
            self._progress[progress.ref] = inbox.Progressed(node, session_id, progress)
            self._wake.set()

    def condition(self, node: str, session_id: str, refuses: str) -> None:
        """Take why a node takes no new work, or that it does; ignored if the session is over."""
        self._conditions[node] = inbox.Conditioned(node, session_id, refuses)
        self._wake.set()

    async def close_session(self, node: str, session_id: str) -> None:
        """Say that the stream broke or ended; the lease goes on."""
        await self._call(lambda call: inbox.SessionClosed(call, node, session_id))

    async def stream_worker_gone(self, node: str) -> None:
        """Say that a node's stream worker is dead; ignored while the node has a session."""
        await self._call(lambda call: inbox.StreamWorkerGone(call, node))

    async def desired(
        self, node: str, session_id: str, *, takes_lanes: bool = False
    ) -> AsyncGenerator[Desired | Refused, None]:
        """Follow what should run on a node: first a snapshot, then deltas, coalesced.

        With `takes_lanes` an attempt of which only lanes changed is told by these alone.

        What its agent should say in its log comes between them, as a refusal of nothing.

        Raises:
            SessionEndedError: The session was replaced, its lease ran out, it was closed, or the
                store failed: the stream is to be ended, and the agent dials again.
        """
        feed = self._feeds.get(node)
        if feed is None or feed.session_id != session_id:
            raise SessionEndedError(f"this session of node {node} is over: dial again")
        sent: Mapping[AttemptRef, Assignment] | None = None
        while True:
            if feed.over:
                raise SessionEndedError(feed.over)
            wanted, notice = feed.wanted, feed.notice
            feed.notice = ""
            if notice:
                yield Refused(None, "NOTICE", notice)
            update = delta(
                sent,
                wanted,
                revision=feed.revision,
                commit=feed.commit,
                takes_lanes=takes_lanes,
            )
            if update is not None:
                yield update
            sent = wanted
            if feed.wanted is wanted and not feed.notice and not feed.over:
                # No deadline: nothing may change for days; the caller's cancellation ends it.
                feed.changed.clear()
                await feed.changed.wait()

    def is_current(self, node: str, ref: AttemptRef) -> bool:
        """Whether this attempt is the placed one of its job, and on this node."""
        if self._machine is None:
            return False
        record = self._machine.cluster.nodes.get(node)
        return record is not None and ref in record.attempts

    def was_placed(self, node: str, ref: AttemptRef) -> bool:
        """Whether this attempt is, or was, placed on this node."""
        job = None if self._machine is None else self._machine.cluster.job(ref.job_ref)
        return job is not None and any(
            attempt.ref == ref and attempt.node == node for attempt in reversed(job.attempts)
        )

    # --- membership

    def member_verdict(self, member: str, state: MemberState) -> None:
        """Take what gossip believes of a member, by the member name that a node's Hello gave."""
        self._members[member] = self._verdicts[member] = state
        self._wake.set()

    # --- the loop

    async def _wait(self, machine: ControlMachine) -> None:
        deadline = machine.deadline()
        if self._inbox or self._verdicts or self._progress or self._conditions:
            return
        within = None if deadline is None else deadline - self._clock()
        if within is not None and within <= 0:
            return
        self._wake.clear()
        try:
            async with asyncio.timeout(within):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _step(self, machine: ControlMachine) -> None:
        """Take what waits, decide, record, act."""
        events = tuple(self._take())
        try:
            await self._perform(machine, events)
        except (StoreFailedError, RebuildingError) as error:
            self._fail(error)
        except Exception as error:  # whose event it was is found out, or nobody is ever answered
            LOG.exception("a batch could not be taken", extra=fields(events=len(events)))
            await self._one_by_one(events, error)

    async def _perform(self, machine: ControlMachine, events: Sequence[inbox.Event]) -> None:
        """Decide, record, act.

        Raises:
            RebuildingError: It is recorded, and what follows from that was not done.
            Exception: Anything else, and nothing is recorded.
        """
        effects: list[Effect] = []
        now = self._clock()
        self._tick(machine, now, effects)  # first, or a busy inbox would starve the timers
        for event in events:
            effects += machine.handle(event, now)
        self._tick(machine, now, effects)  # places what has just come
        rows: list[Row] = []
        for effect in effects:
            if isinstance(effect, Record):
                rows += effect.rows
        if rows:
            await self._record(rows, waited_for=any(isinstance(event, _ASKED) for event in events))
        try:
            self._act(machine, effects)
        except Exception as error:
            LOG.exception("what is recorded could not be shown")
            raise _rebuilding(error) from error
        if any(isinstance(row, OutboxRow) for row in rows):
            self.outbox_grown.set()

    async def _record(self, rows: Sequence[Row], *, waited_for: bool) -> None:
        """Write rows; where no person waits, for as long as the store's disk takes.

        Sessions and leases go on meanwhile, people are refused at the door, and nothing is done that
        is not recorded.
        """
        failures = 0
        while True:
            try:
                await self._store.commit(rows)
                break
            except StoreFailedError as error:
                if waited_for:
                    raise
                failures += 1
                self._held = error
                if failures == 1:
                    LOG.error("the store waits for its disk", extra=fields(error=str(error)))  # noqa: TRY400 -- the message says it all
                await asyncio.sleep(self._retry.delay_seconds(failures, 0.0))
        if failures:
            self._held = None
            LOG.info("store works again", extra=fields(failures=failures))

    async def _one_by_one(self, events: Sequence[inbox.Event], error: Exception) -> None:
        """Build the machine anew, and take the events of a batch that failed, but for the culprit.

        The time alone may be the culprit; then nobody's event is blamed.
        """
        try:
            machine = await self._rebuild(error)
            await self._perform(machine, ())
            if len(events) == 1:
                self._leave_out(events[0], error)
                return
            for event in events:
                try:
                    await self._perform(machine, (event,))
                except (StoreFailedError, RebuildingError):
                    raise
                except Exception as culprit:
                    what = type(event).__name__
                    LOG.exception("an event was left out", extra=fields(event=what))
                    self._leave_out(event, culprit)
                    machine = await self._rebuild(culprit)
        except (StoreFailedError, RebuildingError) as failed:
            self._fail(failed)
        except Exception as still:
            LOG.exception("the control plane cannot go on for now")
            self._fail(_rebuilding(still))

    async def _rebuild(self, error: Exception) -> ControlMachine:
        """Forget the machine that was left half changed, and build it from what is recorded."""
        self._machine = None
        self._broken = _rebuilding(error)
        self._cut_off(self._broken)
        now = self._clock()
        calm = now - self._rebuilt_at > REBUILDS_FORGOTTEN_SECONDS
        self._rebuilds = 0 if calm else self._rebuilds + 1
        await asyncio.sleep(REBUILD_BACKOFF.delay_seconds(self._rebuilds, 0.0))
        self._rebuilt_at = self._clock()
        return await self._load()

    def _leave_out(self, event: inbox.Event, error: Exception) -> None:
        """Answer the caller of an event that cannot be taken, and set its node aside."""
        if not isinstance(
            event,
            inbox.MemberVerdict | inbox.HeartbeatReceived | inbox.Progressed | inbox.Conditioned,
        ):
            future = self._calls.get(event.call)
            if future is not None and not future.done():
                future.set_exception(_mistake(error))
        node = event.hello.node if isinstance(event, inbox.HelloReceived) else ""
        if isinstance(event, inbox.Observed | inbox.Progressed | inbox.Conditioned):
            node = event.node
        if node:
            failures = self._set_aside.get(node, (0, 0.0))[0] + 1
            until = self._clock() + SET_ASIDE_BACKOFF.delay_seconds(failures, 0.0)
            self._set_aside[node] = (failures, until)

    @staticmethod
    def _tick(machine: ControlMachine, now: float, effects: list[Effect]) -> None:
        deadline = machine.deadline()
        if deadline is not None and deadline <= now:
            effects += machine.tick(now)

    def _take(self) -> Iterable[inbox.Event]:
        for member, state in self._verdicts.items():
            yield inbox.MemberVerdict(member, state)
        self._verdicts.clear()
        # Before the inbox, which may hold the end of the attempt whose last counters these are.
        yield from self._progress.values()
        self._progress.clear()
        yield from self._conditions.values()
        self._conditions.clear()
        for _ in range(min(len(self._inbox), self._config.batch_max)):
            yield self._inbox.popleft()

    def _act(self, machine: ControlMachine, effects: Sequence[Effect]) -> None:
        """Do everything but answering, then answer: who is answered finds it done."""
        answers: list[Answer] = []
        desired: dict[str, None] = {}
        nodes: dict[str, None] = {}
        pipelines: dict[PipelineRef, bool] = {}
        for effect in effects:
            match effect:
                case Record():
                    pass  # done already
                case EndSession(node, session_id, why):
                    LOG.warning("session ended", extra=fields(node=node, why=why))
                    self._end_feed(node, session_id, why)
                case Tell(node, session_id, text):
                    self._tell(node, session_id, text)
                case SetDesired(node):
                    desired[node] = None
                case ShowNode(name):
                    nodes[name] = None
                case ShowPipeline(ref, gone):
                    pipelines[ref] = gone
                case Answer():
                    answers.append(effect)
                case _:
                    assert_never(effect)
        for name in desired:
            self._set_desired(machine, name)
        for name in nodes:
            self._show_node(machine, name)
        for ref, gone in pipelines.items():
            self._show_pipeline(machine, ref, gone=gone)
        for answer in answers:
            future = self._calls.get(answer.call)
            if future is not None and not future.done():
                future.set_result(answer.value)

    def _set_desired(self, machine: ControlMachine, name: str) -> None:
        session_id = machine.session(name)
        feed = self._feeds.get(name)
        if not session_id:
            return
        if feed is None or feed.session_id != session_id:
            feed = self._feeds[name] = _Feed(session_id)
        feed.wanted = machine.desired(name)
        feed.revision = machine.revision
        feed.commit = machine.commits
        feed.changed.set()

    def _tell(self, name: str, session_id: str, text: str) -> None:
        LOG.warning("an agent is told", extra=fields(node=name, text=text))
        feed = self._feeds.get(name)
        if feed is not None and feed.session_id == session_id:
            feed.notice = text
            feed.changed.set()

    def _end_feed(self, name: str, session_id: str, why: str) -> None:
        feed = self._feeds.get(name)
        if feed is not None and feed.session_id == session_id:
            del self._feeds[name]
            feed.over = why
            feed.changed.set()

    def _show_node(self, machine: ControlMachine, name: str) -> None:
        feed = self._feeds.get(name)
        if feed is not None and machine.session(name) != feed.session_id:
            self._end_feed(name, feed.session_id, f"the session of node {name} was closed")
        self._nodes.show(name, node_view(machine.cluster, machine.cluster.nodes[name]))

    def _show_pipeline(self, machine: ControlMachine, ref: PipelineRef, *, gone: bool) -> None:
        if gone:
            self._pipelines.forget(ref)
            self._positions.pop(ref, None)
            return
        record = machine.cluster.pipelines[ref]
        self._positions[ref] = record.position
        self._pipelines.show(ref, pipeline_view(record))

    # --- calls

    async def _call(self, make: Callable[[int], inbox.Event]) -> AnswerValue:
        (value,) = await self._call_all([make])
        if isinstance(value, ControlError):
            raise value
        return value

    async def _call_all(
        self, makes: Sequence[Callable[[int], inbox.Event]]
    ) -> Sequence[AnswerValue]:
        async with self._room:
            self._check_open()
            calls = {next(self._numbers): make for make in makes}
            loop = asyncio.get_running_loop()
            futures: list[asyncio.Future[AnswerValue]] = [loop.create_future() for _ in calls]
            self._calls.update(zip(calls, futures, strict=True))
            self._inbox.extend(make(call) for call, make in calls.items())
            self._wake.set()
            try:
                # No deadline: the loop answers after its next commit, or fails everybody.
                return await asyncio.gather(*futures)
            finally:
                for call in calls:
                    self._calls.pop(call, None)

    def _submitted(self, answer: AnswerValue) -> SubmitResult | Refusal:
        match answer:
            case Taken(ref, repeated):
                return SubmitResult(self.pipeline(ref), repeated)
            case Refusal():
                return answer
            case _:
                raise TypeError(f"a submission was answered with {answer!r}")

    def _check_recording(self, *, grows: bool = False) -> None:
        """Refuse what a person asks for while it could not be recorded, or has no room to grow."""
        why = self._held or (self._short if grows else None)
        if why is not None:
            raise type(why)(str(why))

    def refuse_new(self, why: StoreFailedError | None) -> None:
        """Refuse whatever makes the store grow, for this reason; None for taking it again."""
        if (why is None) != (self._short is None):
            words = "nothing new is taken" if why else "new requests are taken again"
            LOG.warning(words, extra=fields(why=why or ""))
        self._short = why

    def _check_open(self) -> None:
        if self._closing:
            raise ClosingError("the control plane is shutting down: try again in a moment")
        if self._broken is not None:
            raise type(self._broken)(str(self._broken))

    def _present(self) -> ControlMachine:
        self._check_open()
        if self._machine is None:
            raise ClosingError("the control plane has not begun: enter it with `async with`")
        return self._machine

    # --- beginning, failing, ending

    async def _load(self) -> ControlMachine:
        loaded = await self._store.load(lambda: self._ids(ID_CHARACTERS))
        machine = ControlMachine(
            self._config, loaded, self._clock(), wall=self._wall, ids=self._ids
        )
        self._pipelines, self._nodes = _views(self._config, machine.revision)
        self._positions = {}
        for ref, pipeline in machine.cluster.pipelines.items():
            self._positions[ref] = pipeline.position
            self._pipelines.begin(ref, pipeline_view(pipeline))
        for name, node in machine.cluster.nodes.items():
            self._nodes.begin(name, node_view(machine.cluster, node))
        self._verdicts = dict(self._members)  # gossip says things only once
        self._machine = machine
        self._broken = None
        self.outbox_grown.set()  # what an earlier process left behind has to leave too
        return machine

    def _fail(self, error: ControlError) -> None:
        """Nothing of this batch has happened: forget the machine that thinks it has."""
        LOG.error("the control plane is away", extra=fields(error=str(error)))
        self._machine = None
        self._broken = error
        self._let_go(error)

    def _let_go(self, error: ControlError) -> None:
        self._inbox.clear()
        self._progress.clear()
        self._conditions.clear()
        for future in self._calls.values():
            if not future.done():
                future.set_exception(type(error)(str(error)))
        self._cut_off(error)

    def _cut_off(self, error: ControlError) -> None:
        """End sessions and watches: what they were shown may not be so."""
        for name, feed in tuple(self._feeds.items()):
            self._end_feed(name, feed.session_id, str(error))
        self._pipelines.cut_off(error)
        self._nodes.cut_off(error)

    async def _recover(self) -> None:
        self._store_failures += 1
        await asyncio.sleep(self._retry.delay_seconds(self._store_failures, 0.0))
        try:
            await self._load()
        except StoreFailedError as error:
            self._broken = error
            LOG.error("store still fails", extra=fields(error=str(error)))  # noqa: TRY400 -- the message says it all
        except Exception as error:  # the next try, a little later, may fare better
            self._broken = _rebuilding(error)
            LOG.exception("the control plane cannot be built")
        else:
            self._store_failures = 0
            LOG.info("store works again")

    def _close(self) -> None:
        if not self._closing:
            self._closing = True
            self._let_go(ClosingError("the control plane is shutting down: try again in a moment"))

    def _seen(self, view: NodeView) -> NodeView:
        if self._machine is None:
            return replace(view, connected=False)  # nobody's session outlived the store
        node = self._machine.cluster.nodes.get(view.name)
        return view if node is None else replace(view, last_seen_time=node.last_seen_time)


_ASKED = inbox.Submit | inbox.Cancel | inbox.Scale | inbox.Drain | inbox.Adopt
"""What people ask for: they wait for an answer, and are told when there is none."""


class _Feed:
    """What is to be sent in one session; `wanted` is replaced, never changed."""

    __slots__ = ("changed", "commit", "notice", "over", "revision", "session_id", "wanted")

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.wanted: Mapping[AttemptRef, Assignment] = {}
        self.revision = 0
        self.commit = 0
        self.notice = ""
        self.changed = asyncio.Event()
        self.over = ""


def _mistake(error: Exception) -> InternalError:
    return InternalError(
        f"the controller could not take this ({type(error).__name__}: {error}), and nothing of it "
        "has happened: this is a mistake of the controller, so report it with its log"
    )


def _rebuilding(error: Exception) -> RebuildingError:
    return RebuildingError(
        f"the control plane is built anew from its store after a mistake of its own "
        f"({type(error).__name__}: {error}): try again in a moment"
    )


def _views(
    config: PlaneConfig, revision: int
) -> tuple[Watched[PipelineRef, PipelineView], Watched[str, NodeView]]:
    kept, pending = config.changes_kept, config.watch_pending_max
    return (
        Watched(revision, changes_kept=kept, pending_max=pending),
        Watched(revision, changes_kept=kept, pending_max=pending),
    )


def _submit(submission: Submission, call: int) -> inbox.Submit:
    return inbox.Submit(call, submission)


def _size(page_size: int) -> int:
    return PAGE_SIZE if page_size <= 0 else min(page_size, PAGE_SIZE_MAX)


def _token(page_token: str) -> int:
    if not page_token:
        return 0
    if not page_token.isdecimal() or len(page_token) > 18:
        raise PageTokenError(
            f"page token {page_token!r} is none of ours: use the one of the last answer, unchanged"
        )
    return int(page_token)
