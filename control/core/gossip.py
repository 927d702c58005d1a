"""What gossip believes of nodes speeds the replacement of their attempts up."""

from __future__ import annotations

from dataclasses import dataclass, field

from control.core import events
from control.core.machine_part import MachinePart
from control.core.node_news import NodeNews
from control.core.outcomes import Outcomes, present
from control.core.state import NodeRecord
from shoal.model import MemberState
from shoal.spec import Placement

_SILENT_HEARTBEATS = 2


@dataclass(eq=False)
class GossipVerdicts(MachinePart):
    """Doubts nodes that gossip finds dead or suspects.

    Attributes:
        doubted: Names of the nodes that are found dead or suspected.
    """

    _outcomes: Outcomes
    _news: NodeNews
    _members: dict[str, MemberState] = field(default_factory=dict[str, MemberState], init=False)
    _by_member: dict[str, str] = field(default_factory=dict[str, str], init=False)
    doubted: set[str] = field(default_factory=set[str], init=False)

    def take(self, event: events.MemberVerdict) -> None:
        """Take what gossip believes of a member now."""
        if event.state is MemberState.UNKNOWN:
            self._members.pop(event.member, None)
        else:
            self._members[event.member] = event.state
        name = self._by_member.get(event.member)
        if name is not None:
            node = self._cluster.nodes[name]
            if node.member_state is not event.state:
                self._believe(node, event.state)
                self._change.show_node(node)
                self.settle_doubt(node)
                self._news.look(node)

    def name(self, node: NodeRecord, member_name: str) -> None:
        """Take the name of the member that a node is, as its agent says it."""
        if self._by_member.get(node.member_name) == node.name:
            del self._by_member[node.member_name]
        node.member_name = member_name
        self._by_member[member_name] = node.name
        self._believe(node, self._members.get(member_name, MemberState.UNKNOWN))

    def _believe(self, node: NodeRecord, state: MemberState) -> None:
        node.member_state = state
        node.snapshot = None
        if state in {MemberState.DEAD, MemberState.SUSPECT}:
            self.doubted.add(node.name)
        else:
            self.doubted.discard(node.name)

    def forget(self, node: NodeRecord) -> None:
        """Let go of a node; what gossip says of its member stays until gossip forgets it."""
        if self._by_member.get(node.member_name) == node.name:
            del self._by_member[node.member_name]
        self.doubted.discard(node.name)

    def load(self, node: NodeRecord) -> None:
        """Remember the member of a node that was recorded."""
        self._by_member[node.member_name] = node.name

    def settle_doubt(self, node: NodeRecord) -> None:
        """Replace the attempts of a node that is believed dead and does not speak either."""
        if node.name not in self.doubted or not node.attempts:
            return
        dead = node.member_state is MemberState.DEAD
        silence = self._situation.leases.silence_seconds(node.name, self._situation.now)
        silent = silence > _SILENT_HEARTBEATS * self._config.heartbeat_seconds
        broken = not node.session_id
        if not (dead and (broken or silent)) and not (broken and self._config.suspect_suffices):
            return
        why = f"gossip found node {node.name} {node.member_state.name.lower()}"
        self._situation.end_session(node, why)
        for attempt in present(node):
            pipeline, job = self._situation.pipeline(attempt), self._situation.job(attempt)
            placement = job.spec.placement
            if pipeline.stop is not None or placement is Placement.AT_LEAST_ONCE:
                self._outcomes.lose(attempt, why)
            elif placement is Placement.AT_MOST_ONE_RUNNING:
                self._situation.wait_for(
                    attempt, f"{why}; it may only run elsewhere when its lease is over"
                )
            else:
                self._situation.wait_for(
                    attempt, f"{why}, and the job is pinned to it: start its agent"
                )
