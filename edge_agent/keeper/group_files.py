"""The files by which programs join control groups: a starter keeps them open, as groups are used again.

Invariant. A descriptor means the group that was there when it was opened, and not its path. Writing to one whose group
was removed fails (ENODEV) and changes nothing; so the keeper drops it then, and has its starter get what is there now.
"""

import os
from collections.abc import Sequence
from typing import Final

_SETS_MAX: Final = 48
"""How many groups a starter has at most; a board runs fewer jobs at once."""


class GroupNumbers:
    """By which number a starter knows the files of each group, which is one in each of some hierarchies.

    Args:
        files: how many files it may have open for this.
    """

    def __init__(self, files: int) -> None:
        self._files = files
        self._numbers: dict[Sequence[str], int] = {}

    def known(self, paths: Sequence[str]) -> bool:
        """Whether the starter has them."""
        return paths in self._numbers

    def number(self, paths: Sequence[str]) -> int:
        """The number of these; that of the group that was joined longest ago where they have none and none is left."""
        known = self._numbers.get(paths)
        if known is not None:
            return known
        if len(self._numbers) < max(1, min(_SETS_MAX, self._files // len(paths))):
            return len(self._numbers)
        return next(iter(self._numbers.values()))

    def has(self, paths: Sequence[str], number: int) -> None:
        """The starter has these by that number now, and they were joined last."""
        if self._numbers.pop(paths, None) is None and number < len(self._numbers):
            del self._numbers[next(iter(self._numbers))]
        self._numbers[paths] = number


def opened(paths: Sequence[str]) -> list[int]:
    """Open these files to write to.

    Raises:
        OSError: one cannot be opened, which the text says.
    """
    found: list[int] = []
    for path in paths:
        try:
            found.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            for descriptor in found:
                os.close(descriptor)
            why = f"cannot join the control group {path}: {error.strerror}"
            raise OSError(error.errno, why) from error
    return found
