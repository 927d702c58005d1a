"""Which member to probe next: each place once a round, in an order that is new in every round.

An affine permutation `(a * i + b) mod n` needs no list to shuffle, so starting a round costs the
same at ten members and at ten thousand. A member that joins within a round is put at a random position
of what remains of it, as SWIM asks (DSN 2002, section 4.3).
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random


class ProbeOrder:
    """One round after another over the places 0..n-1.

    Args:
        rng: The source of chance.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._size = 0
        self._walked = 0
        self._step = 1
        self._place = 0
        self._late: list[str] = []

    def restart(self, size: int) -> None:
        """Begin a round over `size` places."""
        self._size = size
        self._walked = 0
        self._late.clear()
        if size < 2:
            self._step, self._place = 1, 0
            return
        step = self._rng.randrange(1, size)
        while gcd(step, size) != 1:
            step = self._rng.randrange(1, size)
        self._step = step
        self._place = self._rng.randrange(size)

    def add(self, name: str) -> None:
        """Let a newcomer have its turn within this round."""
        self._late.append(name)

    def next(self) -> int | str | None:
        """The next place, or a newcomer's name; None when the round is over."""
        remaining = self._size - self._walked
        late = self._late
        if late and self._rng.randrange(remaining + len(late)) < len(late):
            index = self._rng.randrange(len(late))
            late[index], late[-1] = late[-1], late[index]
            return late.pop()
        if not remaining:
            return None
        self._walked += 1
        self._place += self._step
        if self._place >= self._size:
            self._place -= self._size
        return self._place
