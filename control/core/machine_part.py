"""What the parts of the control machine have in common."""

from __future__ import annotations

from control.core.situation import Situation


class MachinePart:
    """One noun of the control machine; it decides, and changes what all parts share.

    Args:
        situation: What is shared.
    """

    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        self._cluster = situation.cluster
        self._change = situation.change
        self._config = situation.config
