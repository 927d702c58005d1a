"""Join and leave intents: the news that a member comes or goes, by Lamport time."""

from __future__ import annotations

from typing import Final

from services.membership.serf.message import JoinIntent, LeaveIntent

_EARLY_MAX: Final = 1024


class IntentLog:
    """The status time of each member, and intents about members not known yet.

    An intent counts only if its Lamport time is later than the last one about that member, which
    is also what stops it from being passed on for ever.
    """

    def __init__(self) -> None:
        self.times: dict[str, int] = {}
        """Status time by member."""
        self._early: dict[str, JoinIntent | LeaveIntent] = {}
        self.leaving: set[str] = set()

    def known(self, name: str) -> None:
        """A member entered the table: apply what was said of it before."""
        self.leaving.discard(name)
        early = self._early.pop(name, None)
        if early is None:
            self.times.setdefault(name, 0)
            return
        self.times[name] = early.time
        if isinstance(early, LeaveIntent):
            self.leaving.add(name)

    def forget(self, name: str) -> None:
        """A member was dropped from the table."""
        self.times.pop(name, None)
        self.leaving.discard(name)

    def note(self, intent: JoinIntent | LeaveIntent) -> bool:
        """Take an intent; True if it is news and has to be passed on."""
        name = intent.node
        time = self.times.get(name)
        if time is None:
            early = self._early.get(name)
            if early is not None and intent.time <= early.time:
                return False
            self._early.pop(name, None)
            self._early[name] = intent
            if len(self._early) > _EARLY_MAX:
                del self._early[next(iter(self._early))]
            return True
        if intent.time <= time:
            return False
        self.times[name] = intent.time
        if isinstance(intent, LeaveIntent):
            self.leaving.add(name)
        else:
            self.leaving.discard(name)
        return True
