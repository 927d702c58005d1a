"""Members that are gone: dead ones to be found again, left ones to be listed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from services.membership.member import Member
from services.membership.message import Address, SwimState

if TYPE_CHECKING:
    from random import Random


class DepartedMembers:
    """Remembers members after they were reaped, for a bounded number and a bounded time.

    Args:
        most: Members remembered; the oldest is forgotten first.
        seconds: How long each is remembered.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._written: dict[str, tuple[float, Member]] = {}

    def __len__(self) -> int:
        """Count the members remembered."""
        return len(self._written)

    def __iter__(self) -> Iterator[Member]:
        """Walk the members remembered, oldest first."""
        return (member for _, member in self._written.values())

    def __contains__(self, name: str) -> bool:
        """Whether a member is remembered."""
        return name in self._written

    def add(self, member: Member, now: float) -> None:
        """Remember a member."""
        self._written.pop(member.name, None)
        self._written[member.name] = (now, member)
        if len(self._written) > self._most:
            del self._written[next(iter(self._written))]

    def remove(self, name: str) -> None:
        """Forget a member, because it is back or was pruned."""
        self._written.pop(name, None)

    def expire(self, now: float) -> None:
        """Forget the members that were remembered long enough."""
        while self._written:
            name, (at, _) = next(iter(self._written.items()))
            if now - at < self._seconds:
                return
            del self._written[name]

    def dead(self) -> list[Address]:
        """Where the dead ones were reached last."""
        return [
            member.endpoint
            for _, member in self._written.values()
            if member.state is SwimState.DEAD
        ]

    def draw(self, rng: Random) -> Address | None:
        """Draw one of the dead ones."""
        addresses = self.dead()
        return rng.choice(addresses) if addresses else None
