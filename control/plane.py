"""The asyncio shell around the control machine: inbox, group commit, then the acts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from control.desired import DesiredUpdate
from control.observed import AgentHello, Fenced, Observation, Progress
from control.store.store import Store
from control.views import Page, Refused, SnapshotEnd, Submission, SubmitResult
from shoal.model import MemberState, PipelineState
from shoal.names import AttemptRef, JobRef, PipelineRef
from shoal.view import Event, NodeVerdict, NodeView, PipelineView


@dataclass(frozen=True, slots=True)
class PlaneConfig:
    """What an operator may set; times in seconds."""

    lease_seconds: float = 6.0
    heartbeat_seconds: float = 1.0


class ControlPlane:
    """Everything that the API and the dispatcher ask for. `async with` it, and let `run()` run.

    Raises (any awaiting method): StoreFailedError when it could not be recorded, ClosingError.
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
        """`clock`: monotonic seconds; `wall`: aware UTC; `ids`: a random id of so many characters."""
        raise NotImplementedError

    outbox_grown: asyncio.Event
    """Set after each commit that added outbox rows; whoever publishes clears it."""

    async def __aenter__(self) -> Self:
        """Load the store."""
        raise NotImplementedError

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of waiters; the store stays its owner's."""
        raise NotImplementedError

    async def run(self) -> None:
        """Drive until cancelled."""
        raise NotImplementedError

    # --- people
    async def submit(self, submissions: Sequence[Submission]) -> Sequence[SubmitResult | Refused]:
        """Record pipelines; durable when it returns; one answer each, in order."""
        raise NotImplementedError

    async def cancel(self, ref: PipelineRef, reason: str) -> PipelineView:
        """Ask for the end of a pipeline. UnknownPipelineError."""
        raise NotImplementedError

    def pipeline(self, ref: PipelineRef) -> PipelineView:
        """UnknownPipelineError."""
        raise NotImplementedError

    def pipelines(
        self,
        namespace: str,
        states: frozenset[PipelineState] = frozenset(),
        page_size: int = 100,
        page_token: str = "",
    ) -> Page[PipelineView]:
        """Newest first. PageTokenError."""
        raise NotImplementedError

    def explain(self, ref: JobRef) -> Sequence[NodeVerdict]:
        """One sentence a node. UnknownPipelineError, UnknownJobError."""
        raise NotImplementedError

    async def events(
        self,
        namespace: str,
        pipeline: str = "",
        page_size: int = 100,
        page_token: str = "",
    ) -> Page[Event]:
        """Oldest first, kept and published ones; `pipeline` is an id. PageTokenError."""
        raise NotImplementedError

    def watch_pipelines(
        self, namespace: str, pipeline: str = "", since_revision: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[PipelineView | SnapshotEnd]]:
        """Snapshot, SnapshotEnd, changes; a known `since_revision` skips the snapshot.

        The iterator raises WatcherTooSlowError or ClosingError. Every item has `.revision`.
        """
        raise NotImplementedError

    # --- nodes
    def node(self, name: str) -> NodeView:
        """UnknownNodeError."""
        raise NotImplementedError

    def nodes(self) -> Sequence[NodeView]:
        """All, by name."""
        raise NotImplementedError

    def watch_nodes(
        self, since_revision: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[NodeView | SnapshotEnd]]:
        """Like `watch_pipelines`."""
        raise NotImplementedError

    async def drain(self, name: str, *, drained: bool) -> NodeView:
        """Stop placing on a node, or take it back. UnknownNodeError."""
        raise NotImplementedError

    # --- agents
    async def open_session(self, hello: AgentHello, session_id: str) -> Sequence[Fenced]:
        """Commit the node's record and what it says of its attempts; replaces an older session."""
        raise NotImplementedError

    async def observe(
        self, node: str, session_id: str, observations: Sequence[Observation]
    ) -> Sequence[Fenced]:
        """Commit observations; returns those that are stale. SessionEndedError."""
        raise NotImplementedError

    def heartbeat(self, node: str, session_id: str) -> None:
        """Renew the lease; a session that has ended is ignored."""
        raise NotImplementedError

    def progress(self, node: str, session_id: str, progress: Progress) -> None:
        """Take counters; stale ones are ignored."""
        raise NotImplementedError

    async def close_session(self, node: str, session_id: str) -> None:
        """The stream broke or ended; the lease goes on."""
        raise NotImplementedError

    def desired(self, node: str, session_id: str) -> AsyncIterator[DesiredUpdate]:
        """First a snapshot, then deltas, coalesced; raises SessionEndedError when it is over.

        It ends that way when the session is replaced, its lease runs out, or the store failed;
        the dispatcher then ends the stream, and the agent dials again.
        """
        raise NotImplementedError

    def is_current(self, node: str, ref: AttemptRef) -> bool:
        """Whether this attempt is placed on this node and not ended: uploads and logs are taken."""
        raise NotImplementedError

    # --- membership
    def member_verdict(self, member: str, state: MemberState) -> None:
        """What gossip believes of a member, by its member name (a node's Hello names it)."""
        raise NotImplementedError
