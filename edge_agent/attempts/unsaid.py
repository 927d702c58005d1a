"""Attempts that have moved on since their last record, and until when that is neither recorded nor told.

**Rule.** A step that a restart finds out by itself is recorded and told only if it lasts. Such are: the program has
begun (the keeper says so), it has ended and is looked at (the keeper says that, too), the controller has taken the
end (it takes it again). What lasts less is part of the next step, whose record and report say all.

**Why.** A program of a millisecond would else cost three records and three messages more than its work.

**What stays.** Nothing is told that is not recorded: until then a session hears of the attempt as it was recorded last.
"""

from dataclasses import dataclass, field
from typing import Final

from edge_agent.attempts.local_attempt import LocalAttempt
from shoal.names import AttemptRef

SOON_SECONDS: Final = 0.004
"""After this long it is told that a program runs, and after as much longer for each other one that just began."""
LATER_SECONDS: Final = 0.05
"""After this long it is told of what people see less of; and of all else, however many there are."""


@dataclass(slots=True)
class Unsaid:
    """Such attempts, each with what was recorded of it last."""

    _recorded: dict[AttemptRef, LocalAttempt] = field(
        default_factory=dict[AttemptRef, LocalAttempt]
    )
    # In the order in which they came; one whose moment is before that of an older one is told with that.
    _soon: dict[AttemptRef, float] = field(default_factory=dict[AttemptRef, float])
    _later: dict[AttemptRef, float] = field(default_factory=dict[AttemptRef, float])
    _next: float | None = None
    """No moment of those is before this one."""

    def __contains__(self, ref: AttemptRef) -> bool:
        """Whether something of an attempt is neither recorded nor told."""
        return ref in self._recorded

    def add(self, recorded: LocalAttempt, now: float, *, soon: bool = False) -> None:
        """Note that an attempt has moved on from `recorded`, or from what was recorded before that."""
        ref = recorded.ref
        self._recorded.setdefault(ref, recorded)
        self._soon.pop(ref, None)
        self._later.pop(ref, None)
        waiting, seconds = self._later, LATER_SECONDS
        if soon:
            # A busy node would else tell of most that it only has no time for them.
            waiting, seconds = self._soon, min(SOON_SECONDS * (1 + len(self._soon)), LATER_SECONDS)
        until = waiting[ref] = now + seconds
        if self._next is None or until < self._next:
            self._next = until

    def drop(self, ref: AttemptRef) -> bool:
        """Note that an attempt is recorded, or gone; say whether it was here."""
        if self._recorded.pop(ref, None) is None:
            return False
        self._soon.pop(ref, None)
        self._later.pop(ref, None)
        return True

    def recorded(self, record: LocalAttempt) -> LocalAttempt:
        """Return what was recorded last of an attempt."""
        return self._recorded.get(record.ref, record)

    def deadline(self) -> float | None:
        """Return a time before which none of them is to be told; most are gone before theirs."""
        return self._next if self._recorded else None

    def due(self, now: float) -> list[LocalAttempt]:
        """Take out those whose time has come, as they were recorded last."""
        found: list[AttemptRef] = []
        for waiting in (self._soon, self._later):
            for ref, until in waiting.items():
                if until > now:
                    break
                found.append(ref)
        recorded = [self._recorded[ref] for ref in found]
        for ref in found:
            self.drop(ref)
        firsts = (next(iter(waiting.values()), None) for waiting in (self._soon, self._later))
        self._next = min((first for first in firsts if first is not None), default=None)
        return recorded
