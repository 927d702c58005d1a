"""A violation of a specification, and the checks that every part of one needs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shoal import names
from shoal.redaction import redacted

Path = tuple[str, ...]
"""Where something stands, as in the specification file: `("jobs", "camera", "timeout")`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One violation: where it is, and what is wrong with it and what would be right, without secrets."""

    path: Path
    message: str

    def __post_init__(self) -> None:
        """Leave secrets of addresses out of the message, which may quote what was written."""
        object.__setattr__(self, "message", redacted(self.message))

    def __str__(self) -> str:
        """`jobs.camera.timeout: …`."""
        return f"{'.'.join(self.path)}: {self.message}" if self.path else self.message


def id_problems(path: Path, what: str, value: str) -> Iterator[Problem]:
    """Yield that a name is no id, if it is none."""
    try:
        names.check_id(what, value)
    except names.InvalidNameError as error:
        yield Problem(path, str(error))


def number_problems(
    path: Path, value: float, most: float, *, least: int = 0, above: bool = False
) -> Iterator[Problem]:
    """Yield that a number is not within its bounds, both inclusive; with `above` it is more than 0."""
    if math.isfinite(value) and least <= value <= most and (value > 0 or not above):
        return
    low = "more than 0" if above else f"{least} or more"
    # Years of seconds, or bytes without end, are hard to read.
    high = "" if most == math.inf else f" and {most:.0f} at most"
    yield Problem(path, f"{value} is not allowed; it has to be {low}{high}")


def and_(words: Sequence[str]) -> str:
    """Join words as in a sentence: `a, b and c`."""
    return f"{', '.join(words[:-1])} and {words[-1]}"
