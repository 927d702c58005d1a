"""User events: taken once, remembered for a while, replayed to members that join."""

from __future__ import annotations

from services.membership.serf.message import UserEvent


class EventLog:
    """The user events of the recent past, by Lamport time.

    Args:
        slots: Lamport times remembered; older events are not accepted any more.
    """

    def __init__(self, slots: int = 512) -> None:
        self._slots = slots
        self._events: dict[int, dict[tuple[str, bytes], UserEvent]] = {}
        self.oldest = 0

    @property
    def recent(self) -> tuple[UserEvent, ...]:
        """What is remembered, oldest first."""
        return tuple(
            event for time in sorted(self._events) for event in self._events[time].values()
        )

    def note(self, event: UserEvent, clock: int) -> bool:
        """Remember an event; False if it is known or too old for `clock`."""
        if event.time < self.oldest or event.time + self._slots < clock:
            return False
        at = self._events.setdefault(event.time, {})
        key = (event.name, event.payload)
        if key in at or len(at) >= self._slots:
            return False
        at[key] = event
        if len(self._events) > self._slots:
            del self._events[min(self._events)]
        return True
