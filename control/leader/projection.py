"""What follows the commits of the leader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from control.core.effects import Effect
from control.core.errors import ControlError
from control.core.machine import ControlMachine


class Projection(Protocol):
    """Shows what was committed, and nothing else."""

    def begin(self, machine: ControlMachine) -> None:
        """Begin anew with a machine that was built from the store; called in a thread."""
        ...

    def show(self, machine: ControlMachine, effects: Sequence[Effect]) -> None:
        """Show what the effects of one commit say that changed."""
        ...

    def cut_off(self, error: ControlError) -> None:
        """End whatever follows: what was shown may not be so."""
        ...
