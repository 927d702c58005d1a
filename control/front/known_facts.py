"""What agents have told of their machines, and how they are asked for it.

Facts change all the time and decide nothing that must last, so they are in memory alone: no row, no event,
no revision. A controller that starts anew is told them with each Hello.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from shoal.node_facts import NodeFacts
from shoal.view import NodeView

FRESH_SECONDS = 0.9
"""How long an agent that is asked has, so that the answer to a person comes within a second."""


@dataclass(slots=True)
class _Node:
    """What is known of one node; `ask` is there while its agent has a session and tells facts."""

    facts: NodeFacts | None = None
    told_time: datetime | None = None
    session_id: str = ""
    ask: Callable[[], bool] | None = None
    waiting: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])


class KnownFacts:
    """The facts of all nodes, by name.

    Args:
        wall: the wall clock, aware and in UTC.
        changed: is told the name of each node whose facts are new.
    """

    def __init__(self, wall: Callable[[], datetime], changed: Callable[[str], None]) -> None:
        self._wall = wall
        self._changed = changed
        self._nodes: dict[str, _Node] = {}

    def opened(
        self, node: str, session_id: str, facts: NodeFacts | None, ask: Callable[[], bool]
    ) -> None:
        """Take what a Hello says, and how its agent is asked from now on; `ask` says whether it could be.

        An agent that tells nothing is not asked, and what was known of its node is forgotten.
        """
        self._nodes.pop(node, None)
        if facts is not None:
            self._nodes[node] = _Node(session_id=session_id, ask=ask)
            self.take(node, session_id, facts)

    def closed(self, node: str, session_id: str) -> None:
        """Ask the agent no more, unless it has another session by now."""
        known = self._nodes.get(node)
        if known is not None and known.session_id == session_id:
            known.ask = None
            _wake(known)

    def take(self, node: str, session_id: str, facts: NodeFacts) -> None:
        """Take facts that the agent of this session tells."""
        known = self._nodes.get(node)
        if known is None or known.session_id != session_id:
            return
        known.facts, known.told_time = facts, self._wall()
        _wake(known)
        self._changed(node)

    def told(self, node: str) -> NodeFacts | None:
        """What was told of a node last; None for nothing."""
        known = self._nodes.get(node)
        return None if known is None else known.facts

    def forget(self, node: str) -> None:
        """Remember nothing of a node."""
        self._nodes.pop(node, None)

    def on(self, view: NodeView) -> NodeView:
        """Return a node with what is known of it; `facts_problem` says why nothing is."""
        known = self._nodes.get(view.name)
        if known is not None and known.facts is not None:
            return replace(view, facts=known.facts, facts_time=known.told_time)
        if view.connected:
            why = f"not told by an agent of version {view.agent_version or 'unknown'}: upgrade it"
        else:
            why = "its agent has no session, and told nothing since this controller started"
        return replace(view, facts_problem=why)

    async def fresh(self, view: NodeView, within: float = FRESH_SECONDS) -> NodeView:
        """Return a node with its facts as they are now; after so many seconds, with those told last."""
        known = self._nodes.get(view.name)
        if known is None or known.facts is None:
            return self.on(view)
        problem = "its agent has no session: these were told last"
        if known.ask is not None:
            told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            asks = not known.waiting
            known.waiting.append(told)
            # One question serves all callers that wait.
            if not asks or known.ask():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(within):
                        await told
            if told in known.waiting:
                known.waiting.remove(told)
                problem = f"its agent did not answer within {within:g} s: these were told last"
            elif known.ask is not None:
                problem = ""
        return replace(self.on(view), facts_problem=problem)


def _wake(known: _Node) -> None:
    waiting, known.waiting = known.waiting, []
    for one in waiting:
        if not one.done():
            one.set_result(None)
