"""A part of a text, or a pattern of all of it: how people say which names they mean."""

from functools import lru_cache
from typing import Final

from shoal.pattern import NamePattern

WILDCARDS: Final = frozenset("*?")


def is_pattern(text: str) -> bool:
    """Whether it is a pattern of a whole text, where `*` is any characters and `?` is one; else it is a part of one."""
    return not WILDCARDS.isdisjoint(text)


def text_fits(pattern: str, text: str) -> bool:
    """Whether a text has a part, or is as a pattern says; an empty pattern fits all."""
    return _read(pattern).matches(text) if is_pattern(pattern) else pattern in text


@lru_cache(256)
def _read(pattern: str) -> NamePattern:
    # A bracket and a backslash mean themselves.
    return NamePattern.parse(pattern.replace("\\", "\\\\").replace("[", "\\["))
