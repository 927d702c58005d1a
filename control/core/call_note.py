"""What is written down of a call that changes something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_FOR: Final = " for "


@dataclass(frozen=True, slots=True)
class CallNote:
    """The maker of a call, and where it called from.

    Attributes:
        caller: the identity, described: `operator/ann`.
        user: the user that a gateway called for; empty for other roles.
        method: `NodesService.DrainNode`.
        address: host that it dialled from.
    """

    caller: str
    user: str
    method: str
    address: str

    @staticmethod
    def counted_as(creator: str) -> str:
        """Return the identity that a creator's pipelines are counted of: a gateway's users share one quota."""
        return creator.partition(_FOR)[0]

    @property
    def described(self) -> str:
        """The caller as records name it: `operator/ann`, `gateway/web for ann`."""
        return f"{self.caller}{_FOR}{self.user}" if self.user else self.caller
