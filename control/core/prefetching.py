"""Prefetching: which bundles every node shall have before a job needs them there.

Rule: a node shall have the bundle of a pipeline with `prefetch` while the pipeline has not ended, the
node takes work, and an empty node like it would take one of its jobs. It keeps it for as long.
Why: a job that fails over then starts without a transfer, also while the archive is away.
What is wanted follows from records that are written down anyway, so nothing is recorded for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from control.core import events
from control.core.machine_part import MachinePart
from control.core.scheduler.filters import (
    Filter,
    cpus,
    devices,
    drained,
    features,
    labels,
    memory,
    objection,
    quarantined,
    sandbox,
)
from control.core.scheduler.room import NodeRoom
from control.core.scheduler.snapshot import Pending
from control.core.state import NodeRecord, PipelineRecord
from shoal.session.bundles import BUNDLES_WANTED_MAX
from shoal.session.feature import Feature
from shoal.view import PrefetchView

_FILTERS: tuple[Filter, ...] = (
    quarantined,
    drained,
    features,
    sandbox,
    labels,
    cpus,
    memory,
    devices,
)


class Prefetching(MachinePart):
    """Says what nodes shall have, and counts where it is."""

    def look(self, node: NodeRecord) -> None:
        """Find what a node shall have that is not as it was."""
        if not node.session_id:
            return  # its agent keeps what it was told
        wanted: tuple[str, ...] = ()
        if self._cluster.prefetching:
            room = NodeRoom(self._cluster.snapshot(node), empty=True)
            wanted = tuple(self._wanted(room))[:BUNDLES_WANTED_MAX]
        if wanted != node.prefetch:
            node.prefetch = wanted
            self._change.set_desired(node.name)

    def take(self, event: events.BundlesReported) -> None:
        """Take which bundles a node has."""
        node = self._situation.heard(event.node, event.session_id)
        if node is None or node.bundles == event.digests:
            return
        node.bundles = event.digests
        self._cluster.prefetch_changed = True
        self._change.show_node(node)

    def settle(self) -> None:
        """Look at all nodes, if what they shall have or what they have may have changed."""
        cluster = self._cluster
        if not cluster.prefetch_changed:
            return
        cluster.prefetch_changed = False
        for ref, pipeline in tuple(cluster.prefetching.items()):
            if pipeline.state.terminal:
                pipeline.prefetched = None
                del cluster.prefetching[ref]
        for node in cluster.nodes.values():
            self.look(node)
        for pipeline in cluster.prefetching.values():
            digest = pipeline.spec.bundle_digest
            nodes = [
                node
                for node in cluster.nodes.values()
                if node.session_id and digest in node.prefetch
            ]
            counted = PrefetchView(len(nodes), sum(digest in node.bundles for node in nodes))
            if counted != pipeline.prefetched:
                pipeline.prefetched = counted
                self._change.show_pipeline(pipeline)

    def _wanted(self, room: NodeRoom) -> Iterator[str]:
        if Feature.PREFETCH not in room.node.features:
            return
        found: dict[str, None] = {}
        for pipeline in self._cluster.prefetching.values():
            digest = pipeline.spec.bundle_digest
            if digest not in found and any(
                not objection(job, room, _FILTERS) for job in _jobs(pipeline)
            ):
                found[digest] = None
                yield digest


def _jobs(pipeline: PipelineRecord) -> Iterator[Pending]:
    """One job of each kind that runs on a node: replicas need the same."""
    seen: set[str] = set()
    for job in pipeline.jobs.values():
        if not job.spec.local and job.spec.name not in seen:
            seen.add(job.spec.name)
            yield pipeline.pending(job)
