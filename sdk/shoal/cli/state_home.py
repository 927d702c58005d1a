"""Where commands keep what they know between two calls."""

import os
from pathlib import Path

from shoal.errors import ShoalError


class NoHomeError(ShoalError):
    """This user has no home folder, as in a container whose user is a mere number."""

    def __init__(self) -> None:
        super().__init__(
            "NO_HOME",
            "this user has no home folder to keep anything in: set HOME, or XDG_STATE_HOME, "
            "to a folder that it may write",
        )


def state_home() -> Path:
    """Folder that Shoal keeps its state in for this user; see the XDG Base Directory Specification.

    Raises:
        NoHomeError: there is none.
    """
    named = os.environ.get("XDG_STATE_HOME")
    return (Path(named) if named else from_home(Path("~/.local/state"))) / "shoal"


def from_home(path: Path) -> Path:
    """Return a path with the home folder in the place of a `~` that it begins with.

    Raises:
        NoHomeError: there is none.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise NoHomeError from None
