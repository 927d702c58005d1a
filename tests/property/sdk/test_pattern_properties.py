"""Patterns against a slow reference that tries every way of reading them (K5, T7).

SHOAL_EXAMPLES sets the number of cases of each property.
"""

import os
import time
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.ignore import IgnoreRules
from shoal.pattern import NamePattern, PathPattern

CASES = int(os.environ.get("SHOAL_EXAMPLES", "500"))

Token = tuple[str, str]
"""Its kind (`star`, `any`, `literal`, `class`, `other`), and its characters."""

CHARACTERS = st.sampled_from(
    ["a", "b", "c", "-", "]", "[", "*", "?", "\\", "!", "\n", "é", "\udcff"]
)
TOKENS = st.one_of(
    st.just(("star", "")),
    st.just(("any", "")),
    st.tuples(st.just("literal"), CHARACTERS),
    st.tuples(st.sampled_from(["class", "other"]), st.text("abc]é", min_size=1, max_size=3)),
)
NAME_PATTERNS = st.lists(TOKENS, max_size=7)
NAMES = st.text(CHARACTERS, min_size=1, max_size=8)


def written(tokens: Sequence[Token]) -> str:
    """How a person would write it: what would be more than itself has a backslash before it."""
    return "".join(_written(kind, what) for kind, what in tokens)


def _written(kind: str, what: str) -> str:
    # A bracket that is a member stands first, where it ends nothing.
    members = "]" * ("]" in what) + what.replace("]", "")
    match kind:
        case "star":
            return "*"
        case "any":
            return "?"
        case "literal":
            return f"\\{what}" if what in "*?[\\" else what
        case "class":
            return f"[{members}]"
        case _:
            return f"[!{members}]"


def slow(tokens: Sequence[Token], name: str) -> bool:
    """Every way of sharing a name among the tokens."""
    if not tokens:
        return not name
    (kind, what), *rest = tokens
    if kind == "star":
        return any(slow(rest, name[begin:]) for begin in range(len(name) + 1))
    fits = (
        bool(name)
        and {
            "any": True,
            "literal": name[:1] == what,
            "class": name[:1] in what,
            "other": name[:1] not in what,
        }[kind]
    )
    return fits and slow(rest, name[1:])


@settings(max_examples=CASES, deadline=None)
@given(NAME_PATTERNS, NAMES)
def test_k5_a_name_matches_as_the_slow_reference_says(tokens: list[Token], name: str) -> None:
    text = written(tokens)
    assert NamePattern.parse(text).matches(name) == (slow(tokens, name) or name == text)


@settings(max_examples=CASES, deadline=None)
@given(st.text(CHARACTERS, min_size=1, max_size=20))
def test_k5_every_name_matches_the_pattern_that_is_spelled_like_it(name: str) -> None:
    assert NamePattern.parse(name).matches(name)
    rules = IgnoreRules.parse([name])
    if not name.startswith(("#", "!", "\\")) and not name.endswith(("\n", " ")):
        assert rules.ignores(f"folder/{name}", folder=False)


PARTS = st.one_of(st.just("**"), st.sampled_from(["a", "b", "*", "a*", "?"]))
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "c"]), min_size=1, max_size=6)


def slow_path(parts: Sequence[str], names: Sequence[str]) -> bool:
    """Every way of sharing the names of a path among the parts."""
    if not parts:
        return not names
    first, *rest = parts
    if first == "**":
        return any(slow_path(rest, names[begin:]) for begin in range(not rest, len(names) + 1))
    return bool(names) and NamePattern.parse(first).matches(names[0]) and slow_path(rest, names[1:])


@settings(max_examples=CASES, deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=6), PATHS)
def test_k5_a_path_matches_as_the_slow_reference_says(parts: list[str], names: list[str]) -> None:
    assert PathPattern.parse("/".join(parts)).matches(names) == slow_path(parts, names)


def test_t7_what_freezes_a_regular_expression_is_told_at_once() -> None:
    begin = time.perf_counter()
    for many in range(1, 120):
        assert not NamePattern.parse("*a" * many + "*b").matches("a" * 250)
        assert not PathPattern.parse("**/a/" * many + "b").matches(["a"] * 250)
        rules = IgnoreRules.parse(["*a" * many + "*b", "**/" * many + "b"])
        assert not rules.ignores("/".join(["a" * 250] * 10), folder=False)
    assert time.perf_counter() - begin < 30
