"""The files by which processes join control groups, kept open, as groups are used again.

Invariant. A descriptor means the group that was there when it was opened, and not its path. Writing to one whose group
was removed fails (ENODEV) and changes nothing; so the keeper drops it then, and opens what is there now.
"""

import os
from collections.abc import Sequence
from typing import Final

_SETS_MAX: Final = 48
"""How many groups are kept; a board runs fewer jobs at once, and a process has 1024 descriptors where no one has said
otherwise."""


class GroupFiles:
    """The open files of the groups that were joined last; each group is a file in each of some hierarchies."""

    def __init__(self) -> None:
        self._open: dict[Sequence[str], Sequence[int]] = {}

    def have(self, paths: Sequence[str]) -> bool:
        """Whether they are open already."""
        return paths in self._open

    def get(self, paths: Sequence[str]) -> Sequence[int]:
        """Descriptors of these files, to write to.

        Raises:
            OSError: one cannot be opened, which the text says.
        """
        found = self._open.pop(paths, None)
        if found is None:
            if len(self._open) >= _SETS_MAX:
                self.drop(next(iter(self._open)))
            found = _opened(paths)
        self._open[paths] = found  # the last one now
        return found

    def drop(self, paths: Sequence[str]) -> None:
        """Close those of a group that is not there any more."""
        for descriptor in self._open.pop(paths, ()):
            os.close(descriptor)

    def close(self) -> None:
        """Close all."""
        for paths in tuple(self._open):
            self.drop(paths)


def _opened(paths: Sequence[str]) -> Sequence[int]:
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
