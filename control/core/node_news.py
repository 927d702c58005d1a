"""What is told of nodes: up, down, back and left; and what a person did to them.

A node is down once its lease is over, and not before: an agent that is restarted, a lost connection and
what gossip suspects for a while are no events. What was told last is recorded with the node, so a
controller that starts again neither repeats it nor leaves it out.
"""

from __future__ import annotations

from control.core import outbox_rows
from control.core.machine_part import MachinePart
from control.core.news import News
from control.core.presence import Presence
from control.core.situation import Situation
from control.core.state import NodeRecord
from shoal.model import NO_REASON, MemberState, Reason, ReasonCode


class NodeNews(MachinePart):
    """Tells the world of nodes."""

    def __init__(self, situation: Situation) -> None:
        super().__init__(situation)
        self._news: News[str] = News(situation.config.news_pause)

    def deadline(self) -> float | None:
        """When a node is to be looked at again."""
        return self._news.deadline()

    def look(self, node: NodeRecord) -> None:
        """Tell of a node that is not as it was told last: at once, or later if it flaps."""
        presence = self._presence(node)
        if presence is node.presence:
            self._news.drop(node.name)
            return
        now = self._situation.now
        if not self._news.may_tell(node.name, now):
            return
        what = str(presence)
        if presence is Presence.UP and node.presence is not Presence.UNTOLD:
            what = "back"
        node.presence = presence
        self._change.node(node)
        self._news.told(node.name, now)
        self._tell(node, what, self._why(node))

    def look_again(self) -> None:
        """Look at the nodes whose pause is over."""
        for name in self._news.take(self._situation.now):
            node = self._cluster.nodes.get(name)
            if node is not None:
                self.look(node)

    def drained(self, node: NodeRecord) -> None:
        """A person took a node out of service, or back; that is told at once."""
        self._tell(node, "drained" if node.drained else "undrained", NO_REASON)

    def quarantined(self, node: NodeRecord) -> None:
        """A node that was up before is quarantined, or no longer; that is told at once."""
        if node.presence is Presence.UP:
            what = "quarantined" if node.quarantine else "unquarantined"
            self._tell(node, what, Reason(message=node.quarantine))

    def forget(self, node: NodeRecord) -> None:
        """A person had a node forgotten, which is gone then; if it comes again, it is another one.

        Its lease may still run, so that it was told to be up. Nothing else is told of it later, so this event
        has to say that it is not.
        """
        self._news.forget(node.name)
        if node.presence is not Presence.LEFT:
            node.presence = Presence.DOWN
        self._tell(node, "forgotten", NO_REASON)

    def _presence(self, node: NodeRecord) -> Presence:
        if node.session_id:
            return Presence.UP
        if self._situation.leases.holds(node.name):
            return node.presence
        # Gossip forgets members that are gone, also those that have left.
        left = node.presence is Presence.LEFT or node.member_state is MemberState.LEFT
        return Presence.LEFT if left else Presence.DOWN

    def _why(self, node: NodeRecord) -> Reason:
        match node.presence:
            case Presence.DOWN:
                silent = f"node {node.name} was silent for {self._config.lease_seconds:g} s"
                return Reason(ReasonCode.LOST, 0, silent)
            case Presence.LEFT:
                return Reason(message=f"node {node.name} left the cluster")
            case _:
                return Reason(message=node.quarantine)

    def _tell(self, node: NodeRecord, what: str, reason: Reason) -> None:
        self._change.outbox(outbox_rows.node_event(node, what, reason, self._situation.wall_time))
