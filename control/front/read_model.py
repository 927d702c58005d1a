"""The read model: pipelines and nodes as they were committed, listed and watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from control.core.answers import Page
from control.core.effects import Effect, ShowNode, ShowPipeline
from control.core.errors import ControlError, PageTokenError, unknown_node, unknown_pipeline
from control.core.hydration import records
from control.core.machine import ControlMachine
from control.core.rows import Loaded
from control.core.state import Cluster
from control.core.views import node_view, pipeline_view
from control.front.watch import Watched
from control.store.store import Store
from shoal.model import PipelineState
from shoal.names import PipelineRef
from shoal.view import NodeView, PipelineView

PAGE_SIZE = 100
POSITION_MAX = (1 << 63) - 1


ENDED_IN_MEMORY = 1000
"""How many ended pipelines are shown from memory; the store has all of them."""

_NAMES_AT_ONCE = 500

_AT_ONCE = 50
"""Pipelines that are read from the store and made into views before something else has its turn."""


class ReadModel:
    """What people see (a `Projection`).

    A pipeline that is under way is shown as the last commit of it left it, with what is only heard of
    it. Those that have ended, and those of which no job was ever placed, are read from the store.

    Args:
        store: Where all pipelines are.
        changes_kept: How many pipelines or nodes that changed a watcher may resume after.
        watch_pending_max: How many changes may wait for a watcher before it is cut off.
    """

    def __init__(self, store: Store, changes_kept: int, watch_pending_max: int) -> None:
        self._store = store
        self._kept = (changes_kept, watch_pending_max)
        self._machine: ControlMachine | None = None
        self._cluster = Cluster(Loaded(), 0)
        self._open: dict[PipelineRef, PipelineView] = {}
        self._ended: dict[PipelineRef, PipelineView] = {}
        self._nodes: dict[str, NodeView] = {}
        self.watched_pipelines: Watched[PipelineRef, PipelineView] = Watched(0, *self._kept)
        self.watched_nodes: Watched[str, NodeView] = Watched(0, *self._kept)

    def begin(self, machine: ControlMachine) -> None:
        """Show everything as a machine has it that was built from the store."""
        cluster = machine.cluster
        opened = {ref: pipeline_view(one) for ref, one in cluster.pipelines.items()}
        nodes = {name: node_view(cluster, node) for name, node in cluster.nodes.items()}
        self._open, self._nodes = opened, nodes
        self._machine, self._cluster = machine, cluster
        self.watched_pipelines = Watched(machine.revision, *self._kept)
        self.watched_nodes = Watched(machine.revision, *self._kept)

    def show(self, machine: ControlMachine, effects: Sequence[Effect]) -> None:
        """Show each pipeline and node that a commit changed, once."""
        nodes = {one.name: one.gone for one in effects if type(one) is ShowNode}
        pipelines = {one.ref: one.gone for one in effects if type(one) is ShowPipeline}
        cluster = machine.cluster
        for name, gone in nodes.items():
            if gone:
                self._nodes.pop(name, None)
                view = NodeView(name, revision=machine.revision, forgotten=True)
            else:
                view = self._nodes[name] = node_view(cluster, cluster.nodes[name])
            self.watched_nodes.show(name, view)
        for ref, gone in pipelines.items():
            if gone:
                self._ended.pop(ref, None)
                self.watched_pipelines.forget(ref)
            else:
                self._show_pipeline(ref, pipeline_view(cluster.pipelines[ref]))

    def _show_pipeline(self, ref: PipelineRef, view: PipelineView) -> None:
        if view.state.terminal:
            self._open.pop(ref, None)
            self._keep_ended(ref, view)
        else:
            self._open[ref] = view
        self.watched_pipelines.show(ref, view)

    def _keep_ended(self, ref: PipelineRef, view: PipelineView) -> None:
        self._ended[ref] = view
        if len(self._ended) > ENDED_IN_MEMORY:
            del self._ended[next(iter(self._ended))]

    def cut_off(self, error: ControlError) -> None:
        """End all watches; what is known stays to be read, without sessions."""
        self._machine = None
        self.watched_pipelines.cut_off(error)
        self.watched_nodes.cut_off(error)

    def pipeline(self, ref: PipelineRef) -> PipelineView:
        """Return a pipeline that is in memory: one that was placed and has not ended, or was found or changed lately.

        Raises:
            UnknownPipelineError: There is none of that name in memory.
        """
        view = self._known(ref)
        if view is None:
            raise unknown_pipeline(ref)
        return view

    def _known(self, ref: PipelineRef) -> PipelineView | None:
        return self._open.get(ref) or self._ended.get(ref) or self.watched_pipelines.changed(ref)

    async def find(self, ref: PipelineRef) -> PipelineView:
        """Return one pipeline, which is in memory from now on for a while.

        Raises:
            UnknownPipelineError: There is none of that name.
            StoreFailedError: The store cannot be read.
        """
        if (known := self._known(ref)) is not None:
            return known
        found = await self._views([ref])
        if not found:
            raise unknown_pipeline(ref)
        if (known := self._known(ref)) is not None:
            return known  # a commit has shown it meanwhile
        if found[0].state.terminal:
            self._keep_ended(ref, found[0])
        else:
            self._open[ref] = found[0]
        return found[0]

    async def pipelines(
        self,
        namespace: str,
        states: frozenset[PipelineState] = frozenset(),
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        *,
        dead: bool = False,
        fits: Callable[[PipelineView], bool] = lambda _: True,
    ) -> Page[PipelineView]:
        """List pipelines, newest first; no states means all, and `dead` means dead letters alone.

        A page has at least one, and ends before one that `fits` refuses.

        Raises:
            PageTokenError: The token is from nowhere.
            StoreFailedError: The store cannot be read.
        """
        before = token(page_token) or POSITION_MAX
        rows = await self._store.page(
            namespace, states or frozenset(PipelineState), page_size + 1, before=before, dead=dead
        )
        found: list[PipelineView] = []
        last = 0
        for begin in range(0, page_size, _AT_ONCE):
            part = rows[begin : min(begin + _AT_ONCE, page_size)]
            views = {
                (one.namespace, one.id): one for one in await self._views([r for _, r in part])
            }
            for position, ref in part:
                view = views.get((ref.namespace, ref.pipeline))
                if view is None:
                    continue  # forgotten meanwhile
                if not fits(view) and found:
                    return Page(tuple(found), str(last))
                found.append(view)
                last = position
        return Page(tuple(found), str(last) if len(rows) > page_size else "")

    async def snapshot(self, namespace: str, pipeline: str) -> AsyncIterator[PipelineView]:
        """Show all pipelines of a namespace, oldest first, or the one of that id."""
        if pipeline:
            for view in await self._views([PipelineRef(namespace, pipeline)]):
                yield view
            return
        after = 0
        while rows := await self._store.page(
            namespace, frozenset(PipelineState), _NAMES_AT_ONCE, after=after
        ):
            for begin in range(0, len(rows), _AT_ONCE):
                part = rows[begin : begin + _AT_ONCE]
                for view in await self._views([ref for _, ref in part]):
                    yield view
                await asyncio.sleep(0)  # what is in memory takes no turns by itself
            after = rows[-1][0]

    async def _views(self, refs: Sequence[PipelineRef]) -> Sequence[PipelineView]:
        """Return the pipelines that there are, in their order, of at most `_AT_ONCE`."""
        found = {ref: self._known(ref) for ref in refs}
        absent = [ref for ref, view in found.items() if view is None]
        if absent:
            rows = (await self._store.find(absent)).rows
            found |= {one.ref: pipeline_view(one) for one in records(rows, self._cluster)}
        return [view for view in found.values() if view is not None]

    def stir_node(self, name: str) -> None:
        """Show a node again to watchers that asked for what is not recorded of it."""
        view = self._nodes.get(name)
        if view is not None:
            self.watched_nodes.stir(name, view)

    def node(self, name: str) -> NodeView:
        """Return one node.

        Raises:
            UnknownNodeError: No agent of that name ever connected.
        """
        view = self._nodes.get(name)
        if view is None:
            raise unknown_node(name, self._nodes)
        return self._seen(view)

    def node_views(self) -> Sequence[NodeView]:
        """All nodes as they were shown last."""
        return tuple(self._nodes.values())

    def nodes(self) -> Sequence[NodeView]:
        """All nodes, by name."""
        return [self._seen(view) for _, view in sorted(self._nodes.items())]

    def _seen(self, view: NodeView) -> NodeView:
        if self._machine is None:
            return replace(view, connected=False)  # no session outlived the store
        node = self._machine.cluster.nodes.get(view.name)
        return view if node is None else replace(view, last_seen_time=node.last_seen_time)


def token(page_token: str) -> int:
    """The number in a page token; 0 for none.

    Raises:
        PageTokenError: The token is from nowhere.
    """
    if not page_token:
        return 0
    if not page_token.isdecimal() or len(page_token) > 18:
        raise PageTokenError(
            f"page token {page_token!r} is none of ours: use the one of the last answer, unchanged"
        )
    return int(page_token)
