"""Options with a unit: durations and sizes."""

from collections.abc import Callable

import click


def unit(parse: Callable[[str], float]) -> Callable[[str], float]:
    """Return a type of option that `parse` reads, whose ValueError completes a sentence about the text."""

    def read(text: str) -> float:
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} {error}") from None

    return read
