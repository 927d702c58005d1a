"""What is written down of a call that changes something."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallNote:
    """Who made a call, and from where.

    Attributes:
        caller: the identity, described: `operator/ann`.
        user: for whom a gateway called; empty for nobody.
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
