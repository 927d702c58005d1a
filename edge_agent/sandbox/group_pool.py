"""Control groups that attempts leave to attempts with the same limits: a pure machine.

**Why.** To make, limit and remove a group in four hierarchies takes more than a millisecond of the kernel's time, and a
short job no more than half of one.

**Rule.** A group goes from one attempt to another only if the kernel says that it is as if it were new
(`edge_agent.sandbox.group_folder.as_new`): it holds no process, has counted nothing that is told of an attempt, and
next to none of its memory is still charged. All others are removed. So what is counted in a group is its attempt's,
whichever attempts had it before.

At most `_FREE_MAX` are kept for attempts to come, and those that none took between two calls of `stale` are given up.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

_FREE_MAX: Final = 64

Limits = TypeVar("Limits", bound=Hashable)
Group = TypeVar("Group")


@dataclass(slots=True)
class _Free(Generic[Group]):
    group: Group
    stale: bool = False


class GroupPool(Generic[Limits, Group]):
    """The groups that no attempt has."""

    def __init__(self) -> None:
        self._free: dict[Limits, list[_Free[Group]]] = {}

    def take(self, limits: Limits) -> Group | None:
        """Return a group with these limits, the one that was given last; None where there is none."""
        free = self._free.get(limits)
        return free.pop().group if free else None

    def give(self, limits: Limits, group: Group) -> bool:
        """Take a group that is as if new for attempts to come; False where there are enough."""
        if sum(map(len, self._free.values())) >= _FREE_MAX:
            return False
        self._free.setdefault(limits, []).append(_Free(group))
        return True

    def stale(self) -> list[Group]:
        """Give up the groups that no attempt has taken since this was called before, and return them."""
        given_up = [one.group for free in self._free.values() for one in free if one.stale]
        for limits, free in tuple(self._free.items()):
            kept = [one for one in free if not one.stale]
            for one in kept:
                one.stale = True
            if kept:
                self._free[limits] = kept
            else:
                del self._free[limits]
        return given_up

    def clear(self) -> list[Group]:
        """Give all of them up, and return them."""
        return [*self.stale(), *self.stale()]
