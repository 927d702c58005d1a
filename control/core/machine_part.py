"""What the parts of the control machine have in common."""

from __future__ import annotations

from dataclasses import dataclass

from control.core.situation import Situation


@dataclass(eq=False)
class MachinePart:
    """One noun of the control machine; it decides, and changes what all parts share.

    A part is made of what is shared, and then of the parts that it asks, in the order of its fields.
    """

    _situation: Situation

    def __post_init__(self) -> None:
        self._cluster = self._situation.cluster
        self._change = self._situation.change
        self._config = self._situation.config
