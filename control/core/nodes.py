"""What happens to a node as such: drained, adopted, refusing, silent, without its stream worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from control.core import events, lifecycle
from control.core.errors import ControlError, NotQuarantinedError, unknown_node
from control.core.machine_part import MachinePart
from control.core.node_news import NodeNews
from control.core.outcomes import Outcomes, present
from control.core.state import AttemptRecord, NodeRecord
from shoal.limits import MOVE_SECONDS_MAX
from shoal.spec import Placement

_STAYS = "drained, and the job is pinned to it: it stays there"


@dataclass(eq=False)
class Nodes(MachinePart):
    """Takes nodes out of service and back, and loses what is on those that are gone."""

    _outcomes: Outcomes
    _news: NodeNews
    _moves: dict[str, float] = field(default_factory=dict[str, float], init=False)
    """When what runs on drained nodes is to be moved, in monotonic seconds."""

    def deadline(self) -> float | None:
        """When what runs on a drained node is next to be moved."""
        return min(self._moves.values(), default=None)

    def load(self, node: NodeRecord) -> None:
        """Go on to wait for the moment at which what runs on a drained node is moved."""
        if node.move_time is not None:
            left = (node.move_time - self._situation.wall_time).total_seconds()
            self._moves[node.name] = self._situation.now + min(max(left, 0.0), MOVE_SECONDS_MAX)

    def drain(self, event: events.Drain) -> ControlError | None:
        """Stop placing on a node, or take it back; an attempt that is told to end already still ends."""
        node = self._cluster.nodes.get(event.node)
        if node is None:
            return unknown_node(event.node, self._cluster.nodes)
        if not event.drained:
            node.move_time = None
            self._moves.pop(node.name, None)
            for attempt in present(node):
                if _STAYS in self._situation.job(attempt).waiting_for:
                    self._situation.wait_for(attempt, "")
        elif event.move_seconds is not None:
            seconds = min(max(event.move_seconds, 0.0), MOVE_SECONDS_MAX)
            node.move_time = self._situation.wall_time + timedelta(seconds=seconds)
            self._moves[node.name] = self._situation.now + seconds
            self._change.node(node)
        if node.drained != event.drained:
            node.drained = event.drained
            self._situation.room_grew = True  # or shrank: then jobs that wait say why
            self._change.node(node)
            self._cluster.prefetch_changed = True
            self._news.drained(node)
        return None

    def move(self) -> None:
        """Have the agents of drained nodes end what was given time and still runs, so that it goes elsewhere.

        The agent ends it as it ends what is cancelled, and its end is what lets the job be placed again: so a
        job that may not run twice does not. What has ended well stays, and stores its results. What is pinned
        to the node, or is being finished, stays until its end.
        """
        due = [name for name, at in self._moves.items() if at <= self._situation.now]
        for name in due:
            del self._moves[name]
            node = self._cluster.nodes.get(name)
            if node is not None and node.drained:
                for attempt in present(node):
                    self._move(attempt)

    def _move(self, attempt: AttemptRecord) -> None:
        pipeline, job = self._situation.pipeline(attempt), self._situation.job(attempt)
        if attempt.state not in lifecycle.CLAIMING or pipeline.stop is not None:
            return
        if job.spec.placement is Placement.PINNED:
            self._situation.wait_for(
                attempt,
                f"node {attempt.node} is {_STAYS} until it ends, "
                f"or: shoal cancel {pipeline.ref.pipeline}",
            )
        elif job.ends is None and not attempt.moving:
            attempt.moving = True
            attempt.assignment = None
            self._change.set_desired(attempt.node)
            self._situation.wait_for(
                attempt,
                f"node {attempt.node} is drained: it ends the attempt, and then the job goes elsewhere",
            )

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
            self._change.node_changes += 1
        node.condition = event.condition
        self._change.show_node(node)
