"""All member records of one machine, over an optional base shared between machines.

A simulation starts ten thousand machines that know each other. They share one base and keep only
what they saw change, so a record costs them nothing until it does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from services.membership.member import Member
from services.membership.message import SwimState, Versions

if TYPE_CHECKING:
    from random import Random

_WALKED_PLACES_MAX: Final = 16


class TableBase:
    """Records that many tables start from; immutable once built."""

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self.records = {member.name: member for member in members}
        self.names = tuple(self.records)
        self.down = {name: None for name, member in self.records.items() if not member.reachable}
        self.reachable = len(self.records) - len(self.down)
        self.versions = Counter(m.versions for m in self.records.values() if m.reachable)


EMPTY_BASE = TableBase()


class MemberTable:
    """Members by name and by place, with their counts kept.

    Attributes:
        reachable: How many are alive or suspect.
        down: Names of those that are not.
        versions: How many of the reachable announce which versions.
    """

    def __init__(self, base: TableBase = EMPTY_BASE) -> None:
        self._base = base
        self._own: dict[str, Member | None] = {}
        self._names: list[str] = []
        self._places: dict[str, int] = {}
        self._size = len(base.names)
        self.reachable = base.reachable
        self.down = dict(base.down)
        self.versions = dict(base.versions)

    def __len__(self) -> int:
        """Count all records, dead ones included."""
        return self._size

    def __iter__(self) -> Iterator[Member]:
        """Walk all records."""
        for name in (*self._base.names, *self._names):
            member = self.get(name)
            if member is not None:
                yield member

    def names(self) -> list[str]:
        """Names of all records."""
        base = [name for name in self._base.names if self.get(name) is not None]
        return base + self._names

    def changed_names(self) -> Iterable[str]:
        """Names whose records are not, or not any more, those of the base."""
        return self._own.keys()

    def unreachable(self) -> list[Member]:
        """The dead and the left ones that have not been dropped."""
        return [member for name in self.down if (member := self.get(name)) is not None]

    @property
    def places(self) -> int:
        """Places to draw from; a few may be vacant."""
        return len(self._base.names) + len(self._names)

    def get(self, name: str) -> Member | None:
        """The record under `name`, if any."""
        own = self._own
        if name in own:
            return own[name]
        return self._base.records.get(name)

    def at(self, place: int) -> Member | None:
        """The record at a place, None if it is vacant."""
        base = self._base.names
        if place < len(base):
            return self.get(base[place])
        place -= len(base)
        return self._own[self._names[place]] if place < len(self._names) else None

    def put(self, member: Member) -> None:
        """Add or replace a record."""
        name = member.name
        old = self.get(name)
        if old is None:
            self._size += 1
            if name not in self._base.records:
                self._places[name] = len(self._names)
                self._names.append(name)
        elif old.reachable:
            self.reachable -= 1
            self._count(old.versions, -1)
        if member.reachable:
            self.reachable += 1
            self._count(member.versions, 1)
            self.down.pop(name, None)
        else:
            self.down[name] = None
        self._own[name] = member

    def drop(self, name: str) -> None:
        """Forget a record; an unknown one is forgotten already."""
        old = self.get(name)
        if old is None:
            return
        self._size -= 1
        if old.reachable:
            self.reachable -= 1
            self._count(old.versions, -1)
        self.down.pop(name, None)
        place = self._places.pop(name, None)
        if place is None:
            self._own[name] = None
            return
        del self._own[name]
        last = self._names.pop()
        if last != name:
            self._names[place] = last
            self._places[last] = place

    def draw(
        self, rng: Random, count: int, exclude: tuple[str, ...], now: float, dead_within: float = 0
    ) -> list[Member]:
        """Draw up to `count` different members at random, without walking the table.

        Args:
            rng: The source of chance.
            count: How many are wanted.
            exclude: Names never drawn.
            now: Seconds.
            dead_within: Also draw suspect members, and those dead for at most that many seconds;
                with 0 only alive ones are drawn.
        """
        places = self.places
        drawn: list[Member] = []
        if self._size <= 1:
            return drawn
        # Few places are walked in random order, so that no member is missed by bad luck.
        tries: Iterable[int] = (
            rng.sample(range(places), places)
            if places <= _WALKED_PLACES_MAX
            else (int(rng.random() * places) for _ in range(3 * places))
        )
        for place in tries:
            member = self.at(place)
            if member is None or member.name in exclude:
                continue
            state = member.state
            if state is not SwimState.ALIVE and (
                not dead_within
                or state is SwimState.LEFT
                or (state is SwimState.DEAD and now - member.state_since > dead_within)
            ):
                continue
            if any(other is member for other in drawn):
                continue
            drawn.append(member)
            if len(drawn) >= count:
                break
        return drawn

    def _count(self, versions: Versions, delta: int) -> None:
        count = self.versions.get(versions, 0) + delta
        if count:
            self.versions[versions] = count
        else:
            del self.versions[versions]
