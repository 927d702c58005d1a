"""Which files of a folder are left out, by patterns in the manner of gitignore(5).

One pattern a line; `#` begins a comment; `!` takes a file back in; a slash at the end means folders
only; a slash elsewhere ties the pattern to the root of the folder; `*`, `?`, `[…]` stay within one
name; `**` stands for any number of names. The last pattern that matches decides, and nothing below
an ignored folder is looked at.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    folders_only: bool
    taken_back: bool


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
        ignored = False
        for rule in self.rules:
            if ignored is rule.taken_back and (folder or not rule.folders_only):
                ignored = ignored ^ (rule.pattern.fullmatch(path) is not None)
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
    anchored = "/" in text
    parts = [part for part in text.split("/") if part]
    if not parts:
        return None
    prefix = "" if anchored else "(?:.*/)?"
    return _Rule(re.compile(prefix + _parts(parts), re.DOTALL), folders_only, taken_back)


def _parts(parts: list[str]) -> str:
    pieces: list[str] = []
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            pieces.append(".*" if last else "(?:.*/)?")
        else:
            pieces.append(_name(part) + ("" if last else "/"))
    return "".join(pieces)


def _name(part: str) -> str:
    """Translate a glob within one name; a bracket that nobody closes stands for itself."""
    pieces: list[str] = []
    index = 0
    while index < len(part):
        char = part[index]
        index += 1
        if char == "*":
            pieces.append("[^/]*")
        elif char == "?":
            pieces.append("[^/]")
        elif char == "[" and (end := part.find("]", index + 1)) > 0:
            inside = part[index:end].replace("\\", "\\\\")
            negated = inside.startswith(("!", "^"))
            members = re.sub(r"([\[&~|])", r"\\\1", inside[1:] if negated else inside)
            pieces.append(_class(members, negated=negated))
            index = end + 1
        elif char == "\\" and index < len(part):
            pieces.append(re.escape(part[index]))
            index += 1
        else:
            pieces.append(re.escape(char))
    return "".join(pieces)


def _class(members: str, *, negated: bool) -> str:
    text = f"[{'^/' if negated else ''}{members}]"
    try:
        re.compile(text)
    except re.error:  # a range that runs backwards matches nothing, as in a shell
        return "(?!)"
    return text if negated else f"(?!/){text}"
