"""The maker of a call, as its handshake proved it."""

from dataclasses import dataclass
from typing import Final

from shoal.identity import Identity

USER_KEY: Final = "shoal-user"
"""The key of the call's metadata in which a gateway names the user that it calls for."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity that makes a call.

    Attributes:
        identity: what its certificate says.
        address: host that it dialled from.
        user: the user that a gateway calls for; empty for any other role.
    """

    identity: Identity
    address: str = ""
    user: str = ""

    @property
    def described(self) -> str:
        """How logs, events and records name it: `operator/ann`, `gateway/web for ann`."""
        return f"{self.identity.described} for {self.user}" if self.user else self.key

    @property
    def key(self) -> str:
        """What its quotas are counted under: a gateway's are one, whatever users it names."""
        return self.identity.described
