"""A row of the table of mistakes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mistake:
    """A command line that is wrong, and what its answer has to hold.

    `words` is split as a shell splits it; a name in braces, as in `{ended}`, is that pipeline's id.
    `thing`, `value` and `remedy` are parts of what is said: what is wrong, what was given, what to do.
    """

    words: str
    status: int
    thing: str
    value: str
    remedy: str


@dataclass(frozen=True, slots=True)
class SpecMistake:
    """A specification that is wrong; `text` stands below a line `name: p`, unless it has a name.

    `field` is the field that is complained of, which has to be named with file, line and column.
    """

    text: str
    field: str
    value: str
    remedy: str
