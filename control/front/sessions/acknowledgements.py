"""When a session tells its agent how far it has committed.

An agent waits for the acknowledgement of what it reports, so that one goes out at once; that of observations alone, up
to `PATIENCE_SECONDS` later, so that it travels with what the agent is told next: what has ended is soon replaced. A
mere sign of life is not waited for, but the agent's lease lives on it: what may not run twice ends on a node that is
answered too rarely. Answering each heartbeat would cost a controller with a thousand idle agents several percent of a
core.

The rule: signs of life are acknowledged together, `ANSWERS_A_LEASE` times in a lease, or after `SILENT_REQUESTS` of
them if that is sooner. With a lease of 6 s and a heartbeat of 1 s every second one is answered, so an agent whose
messages all arrive always holds a lease of at least 4 s.
"""

from __future__ import annotations

from typing import Final

ANSWERS_A_LEASE: Final = 4
PATIENCE_SECONDS: Final = 0.02
SILENT_REQUESTS: Final = 16
"""An agent gives a session up when far more of its requests than this are unanswered."""


class Acknowledgements:
    """How far one session has committed, and how far it has said so.

    Args:
        lease_seconds: how long the agent's silence is tolerated, which is also how long it counts
            on an answer.
        now: when the session began; monotonic seconds, as every `now` here.
    """

    def __init__(self, lease_seconds: float, now: float) -> None:
        self._patience_seconds = lease_seconds / ANSWERS_A_LEASE
        self._through = 0
        self._said = 0
        self._said_at = now
        self._due = False

    def committed(self, through: int, *, waited_for: bool, now: float) -> bool:
        """Note that every request up to `through` is committed.

        Args:
            through: sequence of the last request.
            waited_for: whether one of them says more than that the agent lives.
            now: the time.

        Returns:
            Whether the agent has to be told now, by a message of its own if there is no other; once
            for each `say`.
        """
        self._through = through
        if self._due:
            return False
        self._due = (
            waited_for
            or through - self._said >= SILENT_REQUESTS
            or now - self._said_at >= self._patience_seconds
        )
        return self._due

    @property
    def due(self) -> bool:
        """Whether the agent has to be told, by a message of its own if there is no other."""
        return self._due

    def say(self, now: float) -> int:
        """Return what the message that is written now acknowledges."""
        self._said, self._said_at, self._due = self._through, now, False
        return self._through
