"""Suggests a known word that is spelled like an unknown one."""

import difflib
from collections.abc import Iterable

_LISTED_MAX = 12


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Complete a complaint about `word`: the closest of `known`, or all of them when none is close.

    Returns:
        A clause such as `did you mean 'camera'?`, or `known are a, b`; `there are none` if so.
    """
    choices = sorted(set(known))
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    if not choices:
        return "there are none"
    listed = ", ".join(choices[:_LISTED_MAX])
    return f"known are {listed}" + (", …" if len(choices) > _LISTED_MAX else "")
