"""A Lamport clock (Lamport 1978): counts events so that later ones bear larger numbers."""

from __future__ import annotations

from typing import Final

LAMPORT_MAX: Final = 0xFFFFFFFFFFFFFFFF


class LamportClock:
    """A logical clock that starts at 1, as Serf's do."""

    def __init__(self, time: int = 1) -> None:
        self.time = time

    def increment(self) -> int:
        """Move on by one; returns the new time."""
        self.time = min(self.time + 1, LAMPORT_MAX)
        return self.time

    def witness(self, time: int) -> None:
        """Move past a time that another member has seen."""
        if time >= self.time:
            self.time = min(time + 1, LAMPORT_MAX)
