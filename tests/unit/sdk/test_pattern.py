"""What stands in a pattern, and what only looks as if it did."""

import pytest

from shoal.pattern import NamePattern, PathPattern


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("run[2024-01-15].csv", "run[2024-01-15].csv", True),
        ("run[2024-01-15].csv", "run2.csv", False),
        ("run[2024-01-1?].csv", "run[2024-01-15].csv", True),
        ("data[1-3].csv", "data2.csv", True),
        ("data[1-3].csv", "data[1-3].csv", True),
        ("data[1-3].csv", "data4.csv", False),
        ("x[", "x[", True),
        ("[]a]", "]", True),
        ("[!]a]", "]", False),
        ("[!]a]", "b", True),
        ("[^a]", "a", False),
        ("[a-]", "-", True),
        (r"[\]]", "]", True),
        (r"[a\-c]", "b", False),
        (r"\*", "*", True),
        (r"\*", "a", False),
        (r"a\b", r"a\b", True),
        ("a*", "a\nb", True),
        ("?", "\udcff", True),
        ("", "", True),
        ("*", "", True),
    ],
)
def test_k5_a_bracket_that_is_no_class_is_a_bracket(
    pattern: str, name: str, *, expected: bool
) -> None:
    assert NamePattern.parse(pattern).matches(name) is expected


def test_a_walk_carries_a_pattern_along() -> None:
    pattern = PathPattern.parse("results/**/x")
    places = pattern.begin()
    assert not pattern.step(places, "other")
    places = pattern.step(places, "results")
    assert pattern.end in pattern.step(places, "x")
    places = pattern.step(places, "d")
    assert pattern.end not in places
    assert pattern.end in pattern.step(places, "x")
