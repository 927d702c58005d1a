"""What gossip believes, for people and for the control plane."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from control.plane import ControlPlane
from services.membership.gossip import Gossip
from services.membership.member import ChangeKind, Member
from services.membership.message import MemberState as Believed
from services.membership.watch import WatchCutOffError
from shoal.model import MemberState
from shoal.view import MemberView

_STATES = {
    Believed.ALIVE: MemberState.ALIVE,
    Believed.SUSPECT: MemberState.SUSPECT,
    Believed.DEAD: MemberState.DEAD,
    Believed.LEFT: MemberState.LEFT,
}


class GossipMembers:
    """Members as the controller's own member sees them.

    Args:
        gossip: that member; None for a controller that does not gossip.
        clock: the clock of the gossip.
        wall: now, in UTC.
    """

    def __init__(
        self, gossip: Gossip | None, *, clock: Callable[[], float], wall: Callable[[], datetime]
    ) -> None:
        self._gossip = gossip
        self._clock = clock
        self._wall = wall

    def members(self, *, everyone: bool) -> Sequence[MemberView]:
        """List members by name; with `everyone`, dead and left ones too."""
        if self._gossip is None:
            return ()
        now, wall = self._clock(), self._wall()
        return [
            MemberView(
                name=member.name,
                address=member.address,
                port=member.port,
                state=_STATES[member.state],
                incarnation=member.incarnation,
                tags=_tags(member),
                state_time=wall - timedelta(seconds=max(0.0, now - member.state_since)),
            )
            for member in self._gossip.members(all_states=everyone)
        ]

    async def tell(self, plane: ControlPlane) -> None:
        """Tell the control plane of every member's state, now and as it changes."""
        if self._gossip is None:
            return
        while True:
            async with self._gossip.watch() as changes:
                for member in self._gossip.members(all_states=True):
                    _tell(plane, member)
                try:
                    async for change in changes:
                        if change.kind is ChangeKind.REAPED:
                            plane.member_verdict(change.member.name, MemberState.UNKNOWN)
                        else:
                            _tell(plane, change.member)
                except WatchCutOffError:
                    continue  # so many changes at once: read them all again
                return


def _tags(member: Member) -> Mapping[str, str]:
    try:
        return member.tags
    except ValueError:
        return {}  # its meta are not Serf's tags; it is a member all the same


def _tell(plane: ControlPlane, member: Member) -> None:
    plane.member_verdict(member.name, _STATES[member.state])
