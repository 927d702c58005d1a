"""What is written down of a call that changes something."""

from __future__ import annotations

from dataclasses import dataclass


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

    @property
    def described(self) -> str:
        """The caller as records name it: `operator/ann`, `gateway/web for ann`."""
        return f"{self.caller} for {self.user}" if self.user else self.caller
