"""Desired feeds: what should run on each node, for the session that its agent has."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence

from control.core.effects import Effect, EndSession, SetDesired, ShowNode, Tell
from control.core.errors import ControlError, SessionEndedError
from control.core.machine import ControlMachine
from control.front.delta import delta
from control.front.lane_tickets import LaneTickets
from services.runtime.log import fields
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.session.bundles import BundlesWanted, WantedBundle
from shoal.session.messages import Desired, Refused

LOG = logging.getLogger(__name__)


class DesiredFeeds:
    """One feed for each live session (a `Projection`).

    Attributes:
        tickets: puts tickets into lanes; None in a cluster without identity. Set before a session begins.
    """

    def __init__(self) -> None:
        self._feeds: dict[str, _Feed] = {}
        self.tickets: LaneTickets | None = None

    def begin(self, machine: ControlMachine) -> None:
        """Nothing: sessions begin with a Hello."""

    def show(self, machine: ControlMachine, effects: Sequence[Effect]) -> None:
        """Let feeds have what a commit changed, and end those whose session is over."""
        desired: dict[str, None] = {}
        nodes: dict[str, None] = {}
        for effect in effects:
            match effect:
                case EndSession(node, session_id, why):
                    LOG.warning("session ended", extra=fields(node=node, why=why))
                    self._end(node, session_id, why)
                case Tell(node, session_id, text):
                    self._tell(node, session_id, text)
                case SetDesired(node):
                    desired[node] = None
                case ShowNode(name):
                    nodes[name] = None
                case _:
                    pass
        for name in desired:
            self._set_desired(machine, name)
        for name in nodes:
            feed = self._feeds.get(name)
            if feed is not None and machine.session(name) != feed.session_id:
                self._end(name, feed.session_id, f"the session of node {name} was closed")

    def cut_off(self, error: ControlError) -> None:
        """End all sessions."""
        for name, feed in tuple(self._feeds.items()):
            self._end(name, feed.session_id, str(error))

    async def follow(
        self, node: str, session_id: str, *, takes_lanes: bool = False
    ) -> AsyncGenerator[Desired | Refused | BundlesWanted, None]:
        """Follow what should run on a node: first a snapshot, then deltas, coalesced.

        With `takes_lanes` an attempt of which only lanes changed is told by these alone.

        What its agent should say in its log comes between them, as a refusal of nothing; and which bundles
        it shall have, first behind the snapshot, and then whenever they are others.

        Raises:
            SessionEndedError: The session was replaced, its lease ran out, it was closed, or the
                store failed: the stream is to be ended, and the agent dials again.
        """
        feed = self._feeds.get(node)
        if feed is None or feed.session_id != session_id:
            raise SessionEndedError(f"this session of node {node} is over: dial again")
        sent: Mapping[AttemptRef, Assignment] | None = None
        told: tuple[str, ...] | None = None
        while True:
            if feed.over:
                raise SessionEndedError(feed.over)
            wanted, notice = feed.wanted, feed.notice
            feed.notice = ""
            if notice:
                yield Refused(None, "NOTICE", notice)
            update = delta(
                sent,
                wanted,
                revision=feed.revision,
                commit=feed.commit,
                takes_lanes=takes_lanes,
            )
            if update is not None:
                yield update
            sent = wanted
            prefetch = feed.prefetch
            if prefetch is not None and prefetch != told:
                yield BundlesWanted(tuple(map(WantedBundle, prefetch)))
                told = prefetch
            if (
                feed.prefetch == prefetch
                and feed.wanted is wanted
                and not feed.notice
                and not feed.over
            ):
                # No deadline: nothing may change for days; the caller's cancellation ends it.
                feed.changed.clear()
                await feed.changed.wait()

    def _set_desired(self, machine: ControlMachine, name: str) -> None:
        session_id = machine.session(name)
        feed = self._feeds.get(name)
        if not session_id:
            return
        if feed is None or feed.session_id != session_id:
            feed = self._feeds[name] = _Feed(session_id)
        feed.wanted = self._ticketed(machine, name, feed)
        feed.prefetch = machine.prefetch(name)
        feed.revision = machine.revision
        feed.commit = machine.commits
        feed.changed.set()

    def _ticketed(
        self, machine: ControlMachine, name: str, feed: _Feed
    ) -> Mapping[AttemptRef, Assignment]:
        """What should run on a node, as it is told; what is known is not made again."""
        wanted = machine.desired(name)
        tickets = self.tickets
        if tickets is None:
            return wanted

        def node_of(ref: AttemptRef) -> str:
            job = machine.cluster.job(ref.job_ref)
            attempt = None if job is None else job.attempt
            return attempt.node if attempt is not None and attempt.ref == ref else ""

        feed.made = {
            ref: known
            if (known := feed.made.get(ref)) is not None and known[0] is one
            else (one, tickets.ticketed(one, name, node_of))
            for ref, one in wanted.items()
        }
        return {ref: told for ref, (_, told) in feed.made.items()}

    def _tell(self, name: str, session_id: str, text: str) -> None:
        LOG.warning("an agent is told", extra=fields(node=name, text=text))
        feed = self._feeds.get(name)
        if feed is not None and feed.session_id == session_id:
            feed.notice = text
            feed.changed.set()

    def _end(self, name: str, session_id: str, why: str) -> None:
        feed = self._feeds.get(name)
        if feed is not None and feed.session_id == session_id:
            del self._feeds[name]
            feed.over = why
            feed.changed.set()


class _Feed:
    """What is to be sent in one session; `wanted` is replaced, never changed.

    `made` has each assignment as it is recorded, and with its tickets, where it has some.
    """

    __slots__ = (
        "changed", "commit", "made", "notice", "over", "prefetch", "revision", "session_id", "wanted",
    )  # fmt: skip

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.wanted: Mapping[AttemptRef, Assignment] = {}
        self.made: Mapping[AttemptRef, tuple[Assignment, Assignment]] = {}
        self.prefetch: tuple[str, ...] | None = None
        self.revision = 0
        self.commit = 0
        self.notice = ""
        self.changed = asyncio.Event()
        self.over = ""
