"""The read model: pipelines and nodes as they were committed, listed and watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from control.core.effects import Effect, ShowNode, ShowPipeline
from control.core.errors import ControlError, PageTokenError, unknown_node, unknown_pipeline
from control.core.hydration import records
from control.core.machine import ControlMachine
from control.core.pipeline_query import PageKey, PipelineQuery
from control.core.rows import Loaded
from control.core.state import Cluster
from control.core.views import node_view, pipeline_view
from control.front.pipeline_counts import PipelineCounts, PipelineSums
from control.front.watch import Watched
from control.store.store import Store
from shoal.names import PipelineRef
from shoal.pipeline_filter import EVERY_PIPELINE, PipelineFilter
from shoal.pipeline_order import PipelineOrder
from shoal.view import NodeView, PipelineSummary, PipelineTotals, PipelineView, Unlisted

PAGE_SIZE = 100

ShownT = TypeVar("ShownT", PipelineView, PipelineSummary)
PipelineShown = PipelineView | PipelineSummary | Unlisted
"""What a watch shows of a pipeline: all of it, or within a snapshot a summary; that it was forgotten."""


ENDED_IN_MEMORY = 1000
"""How many ended pipelines are shown from memory; the store has all of them."""

_NAMES_AT_ONCE = 500

COUNTED_AT_ONCE: Final = 10_000
"""Names that are read together where they are only counted."""

_AT_ONCE = 50
"""Pipelines that are read from the store and made into views before something else has its turn."""

_PARTS_MAX: Final = 100
"""Parts of the store that are looked through for one page: a million pipelines."""


@dataclass(frozen=True, slots=True)
class PipelinePage(Generic[ShownT]):
    """A part of a list of pipelines, each with its key, and the key behind which the next part begins.

    That is None on the last page.
    """

    items: tuple[ShownT, ...]
    keys: tuple[PageKey, ...]
    behind: PageKey | None


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
        self._counts = PipelineCounts({})
        self.watched_pipelines: Watched[PipelineRef, PipelineShown] = Watched(0, *self._kept)
        self.watched_nodes: Watched[str, NodeView] = Watched(0, *self._kept)

    def begin(self, machine: ControlMachine) -> None:
        """Show everything as a machine has it that was built from the store."""
        cluster = machine.cluster
        opened = {ref: pipeline_view(one) for ref, one in cluster.pipelines.items()}
        nodes = {name: node_view(cluster, node) for name, node in cluster.nodes.items()}
        self._open, self._nodes = opened, nodes
        self._machine, self._cluster = machine, cluster
        self._counts = PipelineCounts(cluster.standings)
        cluster.standings = {}
        for ref, view in opened.items():
            self._counts.show(ref, view)
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
                self._counts.forget(ref)
                forgotten = Unlisted(ref.pipeline, ref.namespace, machine.revision)
                self.watched_pipelines.show(ref, forgotten)
            else:
                self._show_pipeline(ref, pipeline_view(cluster.pipelines[ref]))

    def _show_pipeline(self, ref: PipelineRef, view: PipelineView) -> None:
        if view.state.terminal:
            self._open.pop(ref, None)
            self._keep_ended(ref, view)
        else:
            self._open[ref] = view
        self._counts.show(ref, view)
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
        view = self._open.get(ref) or self._ended.get(ref) or self.watched_pipelines.changed(ref)
        return view if isinstance(view, PipelineView) else None

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

    async def summary(self, ref: PipelineRef) -> PipelineSummary:
        """Sum up one pipeline, which costs the same however many jobs it has.

        Raises:
            UnknownPipelineError: There is none of that name.
            StoreFailedError: The store cannot be read.
        """
        found = await self._summed_up([ref])
        if not found:
            raise unknown_pipeline(ref)
        return found[0]

    async def pipelines(
        self,
        query: PipelineQuery,
        page_size: int = PAGE_SIZE,
        behind: PageKey | None = None,
        *,
        fits: Callable[[PipelineView], bool] = lambda _: True,
    ) -> PipelinePage[PipelineView]:
        """List pipelines that match as they are now.

        A page ends before one that `fits` refuses, unless that is its first; it may be empty although more are left.

        Raises:
            UnknownNodeError: The filter names a node that there is none of.
            StoreFailedError: The store cannot be read.
        """
        return await self._listed(query, page_size, behind, self._views, fits, _AT_ONCE)

    async def summaries(
        self, query: PipelineQuery, page_size: int = PAGE_SIZE, behind: PageKey | None = None
    ) -> PipelinePage[PipelineSummary]:
        """List pipelines likewise, but only sum them up, which costs the same however many jobs one has."""
        return await self._listed(
            query, page_size, behind, self._summed_up, lambda _: True, _NAMES_AT_ONCE
        )

    async def _listed(
        self,
        query: PipelineQuery,
        page_size: int,
        behind: PageKey | None,
        read: Callable[[Sequence[PipelineRef]], Awaitable[Sequence[ShownT]]],
        fits: Callable[[ShownT], bool],
        at_once: int,
    ) -> PipelinePage[ShownT]:
        query = self._placed(query)
        found: list[ShownT] = []
        places: list[PageKey] = []
        for _ in range(_PARTS_MAX):
            wanted = min(page_size - len(found), _NAMES_AT_ONCE)
            keys, after = await self._store.page(query, wanted, behind)
            for begin in range(0, len(keys), at_once):
                part = keys[begin : begin + at_once]
                views = {
                    (one.namespace, one.id): one for one in await read([ref for _, ref in part])
                }
                for key, ref in part:
                    view = views.get(ref)
                    # It may have been forgotten meanwhile, or match no longer.
                    if view is not None and query.filter.matches(view):
                        if not fits(view) and found:
                            return PipelinePage(tuple(found), tuple(places), behind)
                        found.append(view)
                        places.append(key)
                    behind = key
                await asyncio.sleep(0)  # what is in memory takes no turns by itself
            behind = after
            if behind is None or len(found) >= page_size:
                break
        return PipelinePage(tuple(found), tuple(places), behind)

    def _placed(self, query: PipelineQuery) -> PipelineQuery:
        """Say which pipelines have an attempt on the node that is asked for."""
        name = query.filter.node
        if not name:
            return query
        node = self._cluster.nodes.get(name)
        if node is None:
            raise unknown_node(name, self._cluster.nodes)
        there = {ref.pipeline for ref in node.attempts if ref.namespace == query.namespace}
        return replace(query, among=there if query.among is None else there & {*query.among})

    def counted(self, namespace: str, asked: PipelineFilter = EVERY_PIPELINE) -> PipelineTotals:
        """Return what was counted as pipelines changed, by what a filter asks of creators, states and dead letters."""
        return self._counts.totals(namespace, asked)

    async def totals(self, namespace: str, asked: PipelineFilter) -> PipelineTotals:
        """Count pipelines and their jobs by state; those that a filter asks more of than was counted are looked for.

        Raises:
            UnknownNodeError: The filter names a node that there is none of.
            StoreFailedError: The store cannot be read.
        """
        if asked.only_standing:
            return self.counted(namespace, asked)
        query = self._placed(PipelineQuery(namespace, asked))
        sums = PipelineSums()
        keys, behind = await self._store.page(query, COUNTED_AT_ONCE)
        while True:
            self._counts.add_to(sums, [ref for _, ref in keys], asked)
            if behind is None:
                return sums.totals()
            keys, behind = await self._store.page(query, COUNTED_AT_ONCE, behind)

    async def snapshot(
        self, namespace: str, asked: PipelineFilter, pipeline: str = "", *, light: bool = False
    ) -> AsyncIterator[PipelineView | PipelineSummary]:
        """Show all pipelines of a namespace that match, oldest first, or the one of that id."""
        among = {pipeline} if pipeline else None
        query = PipelineQuery(namespace, asked, PipelineOrder.OLDEST, among)
        behind: PageKey | None = None
        while True:
            page: PipelinePage[PipelineView] | PipelinePage[PipelineSummary]
            if light:
                page = await self.summaries(query, _NAMES_AT_ONCE, behind)
            else:
                page = await self.pipelines(query, _AT_ONCE, behind)
            for view in page.items:
                yield view
            behind = page.behind
            if behind is None:
                return

    async def _views(self, refs: Sequence[PipelineRef]) -> Sequence[PipelineView]:
        """Return the pipelines that there are, in their order, of at most `_AT_ONCE`."""
        found = {ref: self._known(ref) for ref in refs}
        absent = [ref for ref, view in found.items() if view is None]
        if absent:
            rows = (await self._store.find(absent)).rows
            found |= {one.ref: pipeline_view(one) for one in records(rows, self._cluster)}
        return [view for view in found.values() if view is not None]

    async def _summed_up(self, refs: Sequence[PipelineRef]) -> Sequence[PipelineSummary]:
        """Sum up the pipelines that there are, in any order."""
        found = [PipelineSummary.of(view) for ref in refs if (view := self._known(ref)) is not None]
        known = {(one.namespace, one.id) for one in found}
        absent = [ref for ref in refs if ref not in known]
        if not absent:
            return found
        return [*found, *await self._store.summaries(absent, self._cluster.revision)]

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
    """The number in the page token of a list of events or artifacts; 0 for none.

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
