"""The users that jobs may become: a range of numbers that no other user of the machine has."""

import re
from dataclasses import dataclass
from typing import Final

FIRST_MIN: Final = 1000
_END_MAX: Final = 4_294_967_294  # the last two numbers stand for "no user" (setresuid(2))
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

    def __contains__(self, uid: int) -> bool:
        return self.first <= uid < self.first + self.count

    def __str__(self) -> str:
        return f"{self.first}:{self.count}"

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
