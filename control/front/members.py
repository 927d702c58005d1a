"""What gossip believes, for people and for the control plane."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from control.front.control_plane import ControlPlane
from control.front.watch import Changes, Watched, each
from services.membership.change_watch import WatchEvictedError
from services.membership.member import ChangeKind, Member
from services.membership.message import SwimState
from services.membership.shell import GossipShell
from services.runtime.log import fields
from shoal.model import MemberState
from shoal.view import MemberView

LOG = logging.getLogger(__name__)

_ROLE_TAG: Final = "role"
_CONTROLLER: Final = "controller"
CHANGES_KEPT: Final = 10_000
PENDING_MAX: Final = 20_000  # above the largest cluster, so that its whole change fits

_STATES = {
    SwimState.ALIVE: MemberState.ALIVE,
    SwimState.SUSPECT: MemberState.SUSPECT,
    SwimState.DEAD: MemberState.DEAD,
    SwimState.LEFT: MemberState.LEFT,
}


@dataclass(frozen=True, slots=True)
class MemberShown:
    """A member as a watch shows it; one that was forgotten has the state UNKNOWN."""

    view: MemberView
    revision: int


class GossipMembers:
    """Members as the controller's own member sees them.

    Revisions begin at the microseconds since 1970, so that those of an earlier life are smaller and
    a watcher that resumes from one gets a snapshot.

    Args:
        gossip: that member; None for a controller that does not gossip.
        clock: the clock of the gossip.
        wall: now, in UTC.
        changes_kept: how many changes a watcher may resume after.
        pending_max: how many changes may wait for a watcher before it is cut off.
    """

    def __init__(
        self,
        gossip: GossipShell | None,
        *,
        clock: Callable[[], float],
        wall: Callable[[], datetime],
        changes_kept: int = CHANGES_KEPT,
        pending_max: int = PENDING_MAX,
    ) -> None:
        self._gossip = gossip
        self._clock = clock
        self._wall = wall
        self._revision = int(wall().timestamp() * 1_000_000)
        self._records: dict[str, Member] = {}
        self._shown: dict[str, MemberShown] = {}
        self._others: set[str] = set()
        self._watched: Watched[str, MemberShown] = Watched(
            self._revision,
            changes_kept=changes_kept,
            pending_max=pending_max,
        )
        for member in gossip.members(all_states=True) if gossip is not None else ():
            self._records[member.name] = member
            self._shown[member.name] = MemberShown(self._view(member), self._revision)

    def members(self, *, everyone: bool) -> Sequence[MemberView]:
        """List members by name; with `everyone`, dead and left ones too."""
        if self._gossip is None:
            return ()
        return [self._view(member) for member in self._gossip.members(all_states=everyone)]

    def watch(
        self, since_revision: int, *, at_once: int = 1
    ) -> AbstractContextManager[Changes[MemberShown]]:
        """Watch all members: snapshot, SnapshotEnd, changes.

        A `since_revision` that is still known leaves the snapshot and its mark out. Its `resume`
        says from where to go on after the last item. At most `at_once` are taken together. The iterator
        raises WatcherTooSlowError.
        """
        return self._watched.watch(
            since_revision,
            lambda _: True,
            lambda: each(tuple(self._shown.values())),
            at_once=at_once,
        )

    def forget(self, name: str) -> None:
        """Have all members forget one that is dead or left; nothing happens to one that is alive."""
        if self._gossip is not None and name in {
            member.name
            for member in self._gossip.members(all_states=True)
            if _STATES[member.state] in {MemberState.DEAD, MemberState.LEFT}
        }:
            self._gossip.serf.force_leave(name, prune=True)

    async def tell(self, plane: ControlPlane) -> None:
        """Tell watchers and the control plane of every member, now and as it changes."""
        if self._gossip is None:
            return
        while True:
            async with self._gossip.watch() as changes:
                self._read_all(self._gossip, plane)
                try:
                    async for change in changes:
                        if change.kind is ChangeKind.REAPED:
                            self._forget(change.member.name, plane)
                        else:
                            self._show(change.member, plane)
                except WatchEvictedError:
                    continue  # so many changes at once: read them all again
                return

    def _read_all(self, gossip: GossipShell, plane: ControlPlane) -> None:
        members = gossip.members(all_states=True)
        for name in self._records.keys() - {member.name for member in members}:
            self._forget(name, plane)
        for member in members:
            plane.member_verdict(member.name, _STATES[member.state])
            if self._records.get(member.name) != member:
                self._show(member, plane)

    def _show(self, member: Member, plane: ControlPlane) -> None:
        # The verdict first: it moves jobs, and watchers only look on.
        plane.member_verdict(member.name, _STATES[member.state])
        self._records[member.name] = member
        self._publish(self._view(member))
        self._tell_of_another(member)

    def _tell_of_another(self, member: Member) -> None:
        """Warn of a second controller in the gossip of this one, once for each that comes."""
        if self._gossip is None or member.name == self._gossip.local.name:
            return
        there = member.state is SwimState.ALIVE and member.tags.get(_ROLE_TAG) == _CONTROLLER
        if there and member.name not in self._others:
            LOG.warning(
                "another controller gossips here; a cluster has one: end the one that is there by mistake, or give it "
                "a cluster of its own (--gossip-label, or other seeds); a node stays with the controller it follows",
                extra=fields(
                    name=member.name, grpc=member.tags.get("grpc", ""), address=member.endpoint
                ),
            )
        (self._others.add if there else self._others.discard)(member.name)

    def _forget(self, name: str, plane: ControlPlane) -> None:
        plane.member_verdict(name, MemberState.UNKNOWN)
        self._others.discard(name)
        record = self._records.pop(name, None)
        if record is None:
            return
        self._publish(replace(self._view(record), state=MemberState.UNKNOWN))
        del self._shown[name]

    def _publish(self, view: MemberView) -> None:
        self._revision += 1
        shown = self._shown[view.name] = MemberShown(view, self._revision)
        self._watched.show(view.name, shown)

    def _view(self, member: Member) -> MemberView:
        age = max(0.0, self._clock() - member.state_since)
        return MemberView(
            name=member.name,
            address=member.address,
            port=member.port,
            state=_STATES[member.state],
            incarnation=member.incarnation,
            tags=member.tags,
            state_time=self._wall() - timedelta(seconds=age),
        )
