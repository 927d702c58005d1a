"""A word of a command with the values of its parameters in it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FilledWord:
    """A word as its program gets it.

    `written` is the word with an `x` in place of each parameter, which tells what the file says from
    what a value says. `texts` are the parameters in it whose values are texts.
    """

    text: str
    written: str
    texts: tuple[str, ...] = ()
