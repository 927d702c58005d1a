"""Suggests a known word that is spelled like an unknown one."""

import difflib
from collections.abc import Iterable

LISTED_MAX = 12
"""How many known words are listed at most, where there may be any number of them."""


def closest(word: str, known: Iterable[str]) -> str:
    """Return the one of `known` that is spelled most like `word`; empty if none is close."""
    return next(iter(difflib.get_close_matches(word, sorted(set(known)), n=1, cutoff=0.6)), "")


def did_you_mean(word: str, known: Iterable[str], listed_max: int = LISTED_MAX) -> str:
    """Complete a complaint about `word`: the closest of `known`, or the known ones when none is close.

    Returns:
        A clause such as `did you mean 'camera'?`, or `known are a, b`; `there are none` if so.
    """
    choices = sorted(set(known))
    if close := closest(word, choices):
        return f"did you mean {close!r}?"
    if not choices:
        return "there are none"
    listed = ", ".join(choices[:listed_max])
    return f"known are {listed}" + (", …" if len(choices) > listed_max else "")
