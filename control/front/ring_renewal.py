"""Rotation of the key of gossip in a cluster with identity.

Rule: the new key goes to agents over their sessions and never by gossip, and no ring holds the old and the new
key at one moment. So a board that was revoked, and knows the old key, cannot hear the new one: it has no session,
what is sealed with the new key it cannot open, and a query about keys that it seals with the old one is opened
by no member that has the new one.
Why not install, use, remove: the first of them sends the new key sealed with the old one, and until the last one
every member tells its keys to a query under either.
The price: for as long as a session takes to carry it, members do not hear one another, which is well below the
time after which one is suspected.
"""

from asyncio import to_thread
from collections.abc import Callable

from services.membership.gossip_member import GossipMember


class RingRenewal:
    """Replaces the ring of the controller's member, which sessions then tell to agents.

    Args:
        member: the controller's own; its `on_keys` tells sessions.
        new_key: draws a key, 32 bytes.
    """

    def __init__(self, member: GossipMember, new_key: Callable[[], bytes]) -> None:
        self._member = member
        self._new_key = new_key

    async def renew(self) -> bytes:
        """Seal with a new key from now on, and open with no other; returns it.

        Raises:
            KeyringFileError: it cannot be kept; nothing has changed then.
        """
        key = self._new_key()
        if self._member.keyring is not None:
            await to_thread(self._member.keyring.write, (key,))
        self._member.take_keys((key,))
        return key
