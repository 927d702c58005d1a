"""Which files of a folder are left out, by patterns in the manner of gitignore(5).

One pattern a line; `#` begins a comment; `!` takes a file back in; a slash at the end means folders
only; a slash elsewhere ties the pattern to the root of the folder; what stands in it is said in
`shoal.pattern`. The last pattern that matches decides, and nothing below an ignored folder is looked
at.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from shoal.pattern import NamePattern, PathPattern


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: PathPattern | NamePattern
    """One without a slash is about the last name alone."""

    folders_only: bool
    taken_back: bool

    def matches(self, names: list[str]) -> bool:
        if isinstance(self.pattern, NamePattern):
            return self.pattern.matches(names[-1])
        return self.pattern.matches(names)


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """An ordered list of patterns."""

    rules: tuple[_Rule, ...] = ()

    @classmethod
    def parse(cls, lines: Iterable[str]) -> "IgnoreRules":
        """Read patterns, one a line; a line that cannot match anything is skipped."""
        return cls(tuple(rule for rule in map(_rule, lines) if rule is not None))

    def ignores(self, path: str, *, folder: bool) -> bool:
        """Say whether `path` (relative, with slashes) is left out."""
        names = path.split("/")
        ignored = False
        for rule in self.rules:
            if ignored is rule.taken_back and (folder or not rule.folders_only):
                ignored = ignored ^ rule.matches(names)
        return ignored


def _rule(line: str) -> _Rule | None:
    text = line.rstrip("\r\n").rstrip(" ")
    if not text or text.startswith("#"):
        return None
    taken_back = text.startswith("!")
    if taken_back or text.startswith(("\\#", "\\!")):
        text = text[1:]
    folders_only = text.endswith("/")
    text = text.rstrip("/")
    if "/" not in text and text != "**":
        return _Rule(NamePattern.parse(text), folders_only, taken_back) if text else None
    pattern = PathPattern.parse(text)
    return _Rule(pattern, folders_only, taken_back) if pattern.parts else None
