"""Patterns mean what gitignore(5) says."""

import pytest

from shoal.ignore import IgnoreRules


@pytest.mark.parametrize(
    ("pattern", "path", "ignored"),
    [
        ("*.pyc", "a/b.pyc", True),
        ("*.pyc", "a/b.pyc/x", False),
        ("/top", "top", True),
        ("/top", "a/top", False),
        ("a/b", "a/b", True),
        ("a/b", "x/a/b", False),
        ("**/b", "x/y/b", True),
        ("**/b", "b", True),
        ("a/**", "a/x/y", True),
        ("a/**", "a", False),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[ab].txt", "b.txt", True),
        ("[!ab].txt", "b.txt", False),
        ("[!ab].txt", "c.txt", True),
        ("[z-a]", "b", False),
        ("[unclosed", "[unclosed", True),
        ("# comment", "# comment", False),
        (r"\#file", "#file", True),
        ("dir/", "dir", False),
        ("trailing   ", "trailing", True),
        ("", "", False),
        ("/", "x", False),
    ],
)
def test_a_pattern_matches(pattern: str, path: str, *, ignored: bool) -> None:
    assert IgnoreRules.parse([pattern]).ignores(path, folder=False) is ignored


def test_a_pattern_for_folders_leaves_files() -> None:
    rules = IgnoreRules.parse(["build/"])
    assert rules.ignores("x/build", folder=True)
    assert not rules.ignores("x/build", folder=False)


def test_the_last_pattern_decides() -> None:
    rules = IgnoreRules.parse(["*.log", "!keep.log", "/old/keep.log"])
    assert rules.ignores("a.log", folder=False)
    assert not rules.ignores("keep.log", folder=False)
    assert rules.ignores("old/keep.log", folder=False)
