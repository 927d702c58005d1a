"""Agents open and close sessions: whose a node's name is, and what both sides know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from control.core import events
from control.core.effects import Admitted
from control.core.errors import (
    ControlError,
    HelloRefusedError,
    NameTakenError,
    NodeNotGoneError,
    unknown_node,
)
from control.core.gossip import GossipVerdicts
from control.core.machine_part import MachinePart
from control.core.node_news import NodeNews
from control.core.observations import Observations
from control.core.outcomes import Outcomes
from control.core.placement import Placer
from control.core.prefetching import Prefetching
from control.core.quarantine import NameClaim, Rival, Starts, claim, same_instance
from control.core.reconcile import missing
from control.core.sources import Sources
from control.core.state import NodeRecord
from shoal.model import MemberState
from shoal.names import InvalidNameError, check_id

_CLAIM_HEARTBEATS = 2.5
_RIVAL_RETRIES = 3


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An agent whose claim to a name is unclear; monotonic seconds."""

    event: events.HelloReceived
    since: float


@dataclass(eq=False)
class Sessions(MachinePart):
    """Admits agents, and refuses or quarantines those that must not be followed."""

    _starts: Starts
    _sources: Sources
    _placement: Placer
    _outcomes: Outcomes
    _observations: Observations
    _gossip: GossipVerdicts
    _news: NodeNews
    _prefetching: Prefetching
    _claims: list[_Waiting] = field(default_factory=list[_Waiting], init=False)
    _rivals: dict[str, Rival] = field(default_factory=dict[str, Rival], init=False)

    @property
    def unclear(self) -> bool:
        """Whether an agent waits for it to be clear whose a name is."""
        return bool(self._claims)

    def deadlines(self) -> Iterable[float]:
        """When agents that claim a name of another are forgotten."""
        return map(self._rival_until, self._rivals.values())

    def open(self, event: events.HelloReceived) -> None:
        """Take the Hello of an agent."""
        hello = event.hello
        node = self._cluster.nodes.get(hello.node)
        if node is None:
            problem = self._refuse_node(hello.node)
            if problem is not None:
                self._change.answer(event.call, problem)
                return
            node = self._cluster.nodes[hello.node] = NodeRecord(hello.node)
        match claim(node, hello, leased=self._situation.leases.holds(node.name)):
            case NameClaim.TAKEN:
                self._refuse_rival(node, event)
            case NameClaim.UNCLEAR:
                self._claims.append(_Waiting(event, self._situation.now))
            case NameClaim.FREE:
                self._admit(node, event)

    def settle_claims(self) -> None:
        """Tell agents that were restarted from those that run twice: which of them still speaks?"""
        waiting, self._claims = self._claims, []
        for one in waiting:
            node = self._cluster.nodes[one.event.hello.node]
            silence = self._situation.leases.silence_seconds(node.name, self._situation.now)
            if not node.session_id or one.event.hello.agent_id == node.agent_id:
                self.open(one.event)
            elif node.heard_at > one.since:
                self._refuse_rival(node, one.event)
            elif silence > _CLAIM_HEARTBEATS * self._config.heartbeat_seconds:
                self._admit(node, one.event)
            else:
                self._claims.append(one)

    def forget(self, event: events.ForgetNode) -> ControlError | None:
        """Remember a node no longer, if it is gone and nothing is on it.

        It is there while its agent has a session, or asks for one; while gossip finds it alive; and where
        gossip says nothing of it, while it holds its lease. An attempt on it may still run: what replaces
        that is decided by its lease, so the node stays until then. A pinned job waits for its node for ever.
        """
        node = self._cluster.nodes.get(event.node)
        if node is None:
            return unknown_node(event.node, self._cluster.nodes)
        present = self._present(node)
        if present:
            return NodeNotGoneError(
                f"node {node.name} is not gone, so not forgotten: {present}; end its agent first, or "
                f"place nothing more on it: shoal drain {node.name}"
            )
        if node.attempts:
            first = next(iter(node.attempts))
            others = f" and {len(node.attempts) - 1} more" if len(node.attempts) > 1 else ""
            return NodeNotGoneError(
                f"node {node.name} is not forgotten while it has {first.name}{others}: wait until that "
                f"is replaced, start its agent again, or: shoal cancel {first.pipeline}"
            )
        self._gossip.forget(node)
        self._news.forget(node)
        self._situation.leases.end(node.name)
        self._rivals.pop(node.name, None)
        del self._cluster.nodes[node.name]
        self._cluster.prefetch_changed = True
        self._situation.room_grew = True  # or shrank: then jobs that wait say why
        self._change.forget_node(node.name)
        return None

    def _present(self, node: NodeRecord) -> str:
        """Say why a node may still be there; empty if it is gone."""
        if node.session_id or any(one.event.hello.node == node.name for one in self._claims):
            return "its agent has a session"
        if node.member_state in {MemberState.ALIVE, MemberState.SUSPECT}:
            return f"gossip finds it {node.member_state.name.lower()}"
        expires_at = self._situation.leases.expires_at(node.name)
        if node.member_state is MemberState.UNKNOWN and expires_at is not None:
            left = max(0.0, expires_at - self._situation.now)
            return f"it was heard a moment ago, and is taken for gone in {left:.0f} s"
        return ""

    def _refuse_rival(self, node: NodeRecord, event: events.HelloReceived) -> None:
        """Quarantine an agent whose name another one has; both are told."""
        hello = event.hello
        copied = bool(hello.instance_id) and same_instance(node, hello)
        rival = Rival(hello.agent_id, event.address, copied, self._situation.now)
        before = self._rivals.get(node.name)
        known = before is not None and before.agent_id == rival.agent_id
        why = rival.conflict(node)
        retry_seconds = self._config.rival_seconds
        if not node.session_id:
            # Its lease will tell whether it is gone.
            expires_at = self._situation.leases.expires_at(node.name) or self._situation.now
            retry_seconds = (
                max(expires_at - self._situation.now, 0.0) + self._config.heartbeat_seconds
            )
            why = f"{why}; the former is silent now, and the name is free when its lease is over"
        elif copied and not known:
            # What was heard may have been under way still when the agent before ended.
            retry_seconds = 2 * _CLAIM_HEARTBEATS * self._config.heartbeat_seconds
        self._rivals[node.name] = rival
        if node.conflict != why:
            node.conflict = why
            self._change.show_node(node)
            if node.session_id:
                self._change.tell(node, why)
        self._change.answer(event.call, NameTakenError(why, retry_seconds))

    def forget_rivals(self) -> None:
        """A rival that asks no more is gone, or has another name now."""
        for name, rival in tuple(self._rivals.items()):
            if self._rival_until(rival) <= self._situation.now:
                del self._rivals[name]
                self._cluster.nodes[name].conflict = ""
                self._change.show_node(self._cluster.nodes[name])

    def _rival_until(self, rival: Rival) -> float:
        return rival.at + _RIVAL_RETRIES * self._config.rival_seconds

    def _admit(self, node: NodeRecord, event: events.HelloReceived) -> None:
        """Let an agent have the name of a node, and compare what both sides know."""
        hello = event.hello
        rival = self._rivals.get(node.name)
        if rival is not None and rival.agent_id == hello.agent_id:
            del self._rivals[node.name]
            node.conflict = ""
        if node.session_id and node.session_id != event.session_id:
            self._change.end_session(
                node, f"agent {hello.agent_id} opened another session for node {node.name}"
            )
        moved = node.stream_address != hello.stream_address
        same_agent = node.agent_id == hello.agent_id
        node.agent_id = hello.agent_id
        node.instance_id = hello.instance_id
        node.address = event.address
        node.followed = hello.followed
        node.capacity = hello.capacity
        node.labels = hello.labels
        node.architecture = hello.architecture
        node.stream_address = hello.stream_address
        node.agent_version = hello.agent_version
        node.bundles = hello.bundles
        node.condition = hello.condition
        node.says_holds = hello.says_holds
        node.features = hello.features
        node.sandbox = hello.sandbox
        node.session_id = event.session_id
        node.last_seen_time = self._situation.wall_time
        node.heard_at = self._situation.now
        self._gossip.name(node, hello.member_name or node.name)
        self._situation.leases.renew(node.name, self._situation.now)
        self._change.node(node)
        self._change.set_desired(node.name)
        why = self._starts.against(node.name, hello.followed)
        adopted = bool(why) and node.adopts is not None and node.adopts == hello.followed
        was, node.quarantine = node.quarantine, "" if adopted else why
        if bool(was) is not bool(node.quarantine):
            self._news.quarantined(node)
        self._news.look(node)
        if node.quarantine:
            for attempt in node.attempts.values():
                self._situation.wait_for(attempt, node.quarantine)
            self._change.answer(event.call, Admitted((), self._starts.welcome(), why))
            return
        self._prefetching.look(node)
        self._cluster.prefetch_changed = True
        if not why:
            node.adopts = None  # until it follows us, it may dial again with what it knows
        self._situation.room_grew = True
        known = {ref: attempt.state for ref, attempt in node.attempts.items()}
        lost = missing(known, [one.ref for one in hello.attempts], same_agent=same_agent)
        fenced = self._observations.observe_all(node, hello.attempts)
        for ref in lost:
            self._outcomes.lose(
                node.attempts[ref], f"the agent of node {node.name} knows nothing of it any more"
            )
        for attempt in node.attempts.values():
            self._situation.wait_for(attempt, "")
            if moved:
                self._placement.lanes_changed(self._situation.job(attempt))
            self._sources.end(self._situation.pipeline(attempt))
        self._change.answer(event.call, Admitted(fenced, self._starts.welcome(), adopted=adopted))

    def _refuse_node(self, name: str) -> HelloRefusedError | None:
        try:
            check_id("node", name)
        except InvalidNameError as error:
            return HelloRefusedError(str(error))
        if len(self._cluster.nodes) >= self._config.nodes_max:
            return HelloRefusedError(
                f"node {name} is one too many: at most {self._config.nodes_max} are recorded"
            )
        return None

    def close(self, event: events.SessionClosed) -> None:
        """A stream broke or ended; the lease goes on."""
        self._claims = [one for one in self._claims if one.event.session_id != event.session_id]
        node = self._cluster.nodes.get(event.node)
        if node is not None and event.session_id and node.session_id == event.session_id:
            node.session_id = ""
            self._cluster.prefetch_changed = True
            self._change.node(node)
            self._gossip.settle_doubt(node)
        self._change.answer(event.call, None)
