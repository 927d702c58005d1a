"""What happens to a node as such: drained, adopted, refusing, silent, without its stream worker."""

from __future__ import annotations

from dataclasses import dataclass

from control.core import events
from control.core.errors import ControlError, NotQuarantinedError, unknown_node
from control.core.machine_part import MachinePart
from control.core.node_news import NodeNews
from control.core.outcomes import Outcomes, present
from control.core.state import NodeRecord
from shoal.spec import Placement


@dataclass(eq=False)
class Nodes(MachinePart):
    """Takes nodes out of service and back, and loses what is on those that are gone."""

    _outcomes: Outcomes
    _news: NodeNews

    def drain(self, event: events.Drain) -> ControlError | None:
        """Stop placing on a node, or take it back."""
        node = self._cluster.nodes.get(event.node)
        if node is None:
            return unknown_node(event.node, self._cluster.nodes)
        if node.drained != event.drained:
            node.drained = event.drained
            self._situation.room_grew = True  # or shrank: then jobs that wait say why
            self._change.node(node)
            self._news.drained(node)
        return None

    def adopt(self, event: events.Adopt) -> ControlError | None:
        """Let a quarantined node follow this controller."""
        node = self._cluster.nodes.get(event.node)
        if node is None:
            return unknown_node(event.node, self._cluster.nodes)
        if not node.quarantine:
            why = node.conflict or "its agent follows this controller already"
            return NotQuarantinedError(
                f"node {node.name} is not quarantined, so not adopted: {why}; "
                "`shoal nodes` says which are"
            )
        node.adopts = node.followed
        node.quarantine = f"node {node.name} was adopted, and its agent has not dialled in since"
        self._situation.end_session(node, f"node {node.name} was adopted: dial again")
        self._change.show_node(node)
        return None

    def lose_streams(self, event: events.StreamWorkerGone) -> None:
        """Replace at once what streamed through a dead worker, unless its agent is back."""
        node = self._cluster.nodes.get(event.node)
        if node is not None and not node.session_id:
            for attempt in present(node):
                pipeline, job = self._situation.pipeline(attempt), self._situation.job(attempt)
                streams = bool(pipeline.topology.ends[attempt.ref.job])
                if streams and job.spec.placement is Placement.AT_LEAST_ONCE:
                    self._outcomes.lose(attempt, f"the stream worker of node {node.name} died")
        self._change.answer(event.call, None)

    def lease_ran_out(self, node: NodeRecord) -> None:
        """Give up what is on a node that was silent for too long."""
        why = f"node {node.name} was silent for {self._config.lease_seconds:g} s"
        self._situation.end_session(node, why)
        self._change.node(node)
        self._news.look(node)
        for attempt in present(node):
            job = self._situation.job(attempt)
            pinned = job.spec.placement is Placement.PINNED
            if pinned and self._situation.pipeline(attempt).stop is None:
                self._situation.wait_for(
                    attempt, f"{why}, and the job is pinned to it: start its agent"
                )
            else:
                self._outcomes.lose(attempt, why)

    def take_condition(self, event: events.Conditioned) -> None:
        """Take how a node stands."""
        node = self._situation.heard(event.node, event.session_id)
        if node is None or node.condition == event.condition:
            return
        if node.condition.refuses != event.condition.refuses:
            self._situation.room_grew = True  # or shrank: then jobs that wait say why
        node.condition = event.condition
        self._change.show_node(node)
