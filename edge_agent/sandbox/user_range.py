"""The users that jobs may become: a range of numbers that no other user of the machine has."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FIRST_MIN: Final = 1000
_END_MAX: Final = 4_294_967_294  # the last two numbers stand for "no user" (setresuid(2))
_HIGHEST: Final = 2**31  # some programs take a number above for a negative one
_FORM: Final = re.compile(r"([0-9]{1,10}):([0-9]{1,10})")


@dataclass(frozen=True, slots=True)
class UserRange:
    """`count` users from number `first` on; the group of each has the same number.

    Raises:
        ValueError: it holds no user, users of the system (below 1000), or numbers that are none.
    """

    first: int = 200_000
    count: int = 65_536

    def __post_init__(self) -> None:
        if self.first < FIRST_MIN or self.count < 1 or self.first + self.count > _END_MAX:
            raise ValueError(
                f"{self.first}:{self.count} is no range of users for jobs: it begins at {FIRST_MIN} or above, "
                f"has one user or more, and ends below {_END_MAX}"
            )

    @property
    def last(self) -> int:
        """The last of them."""
        return self.first + self.count - 1

    def __contains__(self, uid: object) -> bool:
        return isinstance(uid, int) and self.first <= uid < self.first + self.count

    def __str__(self) -> str:
        return f"{self.first}:{self.count}"

    def beside(self, taken: Iterable[tuple[int, int]]) -> "UserRange":
        """Return as many users that are none of these, at these numbers or above; itself where none can be had.

        Args:
            taken: first and count of each range that others have.
        """
        first = self.first
        for low, count in sorted(taken):
            if low < first + self.count and low + count > first:
                first = low + count
        return self if first + self.count > _HIGHEST else UserRange(first, self.count)

    @classmethod
    def parse(cls, text: str) -> "UserRange":
        """Read `FIRST:COUNT`, such as `200000:65536`.

        Raises:
            ValueError: it is something else.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not FIRST:COUNT, as in 200000:65536")
        return cls(int(match[1]), int(match[2]))


USERS_OF_JOBS: Final = UserRange()
"""What an agent takes that is told of no other one."""


def users_of_others(folder: Path = Path("/etc")) -> list[tuple[int, int]]:
    """Return first and count of the users that a machine's files give to others: people, services, containers.

    What cannot be read is left out.
    """
    found: list[tuple[int, int]] = []
    for name, fields, first in (
        ("passwd", 7, 2),
        ("subuid", 3, 1),
        ("subgid", 3, 1),
        ("group", 4, 2),
    ):
        try:
            lines = (folder / name).read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        for words in (line.split(":") for line in lines):
            if len(words) == fields and words[first].isdecimal():
                many = words[2] if name.startswith("sub") else "1"
                found.append((int(words[first]), int(many) if many.isdecimal() else 1))
    return found
