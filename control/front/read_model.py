"""The read model: pipelines and nodes as they were committed, listed and watched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from control.core.answers import Page
from control.core.effects import Effect, ShowNode, ShowPipeline
from control.core.errors import ControlError, PageTokenError, unknown_node, unknown_pipeline
from control.core.machine import ControlMachine
from control.core.views import node_view, pipeline_view
from control.front.watch import Watched
from shoal.model import PipelineState
from shoal.names import PipelineRef
from shoal.view import NodeView, PipelineView

PAGE_SIZE = 100
PAGE_SIZE_MAX = 1000


class ReadModel:
    """What people see (a `Projection`).

    Args:
        changes_kept: How many changes a watcher may resume after.
        watch_pending_max: How many changes may wait for a watcher before it is cut off.
    """

    def __init__(self, changes_kept: int, watch_pending_max: int) -> None:
        self._kept = (changes_kept, watch_pending_max)
        self._machine: ControlMachine | None = None
        self._positions: dict[PipelineRef, int] = {}
        self.watched_pipelines: Watched[PipelineRef, PipelineView] = Watched(0, *self._kept)
        self.watched_nodes: Watched[str, NodeView] = Watched(0, *self._kept)

    def begin(self, machine: ControlMachine) -> None:
        """Show everything as a machine has it that was built from the store."""
        self._machine = machine
        self._positions = {}
        self.watched_pipelines = Watched(machine.revision, *self._kept)
        self.watched_nodes = Watched(machine.revision, *self._kept)
        for ref, pipeline in machine.cluster.pipelines.items():
            self._positions[ref] = pipeline.position
            self.watched_pipelines.begin(ref, pipeline_view(pipeline))
        for name, node in machine.cluster.nodes.items():
            self.watched_nodes.begin(name, node_view(machine.cluster, node))

    def show(self, machine: ControlMachine, effects: Sequence[Effect]) -> None:
        """Show each pipeline and node that a commit changed, once."""
        nodes: dict[str, None] = {}
        pipelines: dict[PipelineRef, bool] = {}
        for effect in effects:
            match effect:
                case ShowNode(name):
                    nodes[name] = None
                case ShowPipeline(ref, gone):
                    pipelines[ref] = gone
                case _:
                    pass
        cluster = machine.cluster
        for name in nodes:
            self.watched_nodes.show(name, node_view(cluster, cluster.nodes[name]))
        for ref, gone in pipelines.items():
            if gone:
                self.watched_pipelines.forget(ref)
                self._positions.pop(ref, None)
            else:
                record = cluster.pipelines[ref]
                self._positions[ref] = record.position
                self.watched_pipelines.show(ref, pipeline_view(record))

    def cut_off(self, error: ControlError) -> None:
        """End all watches; what is known stays to be read, without sessions."""
        self._machine = None
        self.watched_pipelines.cut_off(error)
        self.watched_nodes.cut_off(error)

    def pipeline(self, ref: PipelineRef) -> PipelineView:
        """Return one pipeline.

        Raises:
            UnknownPipelineError: There is none of that name.
        """
        view = self.watched_pipelines.views.get(ref)
        if view is None:
            raise unknown_pipeline(ref)
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
        before = token(page_token)
        wanted = size(page_size)
        found: list[PipelineView] = []
        last = 0
        views = self.watched_pipelines.views
        for ref, position in reversed(self._positions.items()):
            view = views[ref]
            if ref.namespace != namespace or (before and position >= before):
                continue
            if states and view.state not in states:
                continue
            if len(found) == wanted or (not fits(view) and found):
                return Page(tuple(found), str(last))
            found.append(view)
            last = position
        return Page(tuple(found))

    def node(self, name: str) -> NodeView:
        """Return one node.

        Raises:
            UnknownNodeError: No agent of that name ever connected.
        """
        view = self.watched_nodes.views.get(name)
        if view is None:
            raise unknown_node(name, self.watched_nodes.views)
        return self._seen(view)

    def nodes(self) -> Sequence[NodeView]:
        """All nodes, by name."""
        return [self._seen(view) for _, view in sorted(self.watched_nodes.views.items())]

    def _seen(self, view: NodeView) -> NodeView:
        if self._machine is None:
            return replace(view, connected=False)  # nobody's session outlived the store
        node = self._machine.cluster.nodes.get(view.name)
        return view if node is None else replace(view, last_seen_time=node.last_seen_time)


def size(page_size: int) -> int:
    """How many items a page has, for what was asked."""
    return PAGE_SIZE if page_size <= 0 else min(page_size, PAGE_SIZE_MAX)


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
