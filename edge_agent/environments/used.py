"""The link in an attempt's folder that says which environment it uses, so that this one is not removed.

It is written before the attempt goes on, so it says so to an agent that starts again, too. It goes with
the folder: nothing is counted, and no death of the agent leaves a count wrong.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

_LINK: Final = "environment"


def use_environment(attempt: Path, environment: Path) -> None:
    """Say that an attempt, by its folder, uses an environment and no other.

    Raises:
        OSError: the folder has gone, or the disk does not take it.
    """
    unfinished = attempt / f"{_LINK}.new"
    unfinished.unlink(missing_ok=True)
    unfinished.symlink_to(environment)
    unfinished.replace(attempt / _LINK)


def used_environment(attempt: Path) -> Path | None:
    """Return the environment of an attempt; None where it has none yet."""
    try:
        return (attempt / _LINK).readlink()
    except OSError:
        return None


def used_environments(attempts: Iterable[Path]) -> frozenset[Path]:
    """Return what any of these attempts uses."""
    return frozenset(filter(None, map(used_environment, attempts)))


def silent(attempts: Iterable[Path]) -> frozenset[Path]:
    """Return those of these attempts that do not say what they use."""
    return frozenset(attempt for attempt in attempts if used_environment(attempt) is None)
