"""Patterns of file names: of results that are kept, and of files that a bundle leaves out.

`*` and `?` stay within one name, `[a-z]` and `[!a-z]` stand for one character of it, `**` as a whole
name stands for any number of names, a backslash takes the next character as it is. A bracket that
is no class, because it is not closed or its range runs backwards, stands for itself; and a name that
is spelled like its pattern always matches it, so that `run[1].csv` names the file of that name.

**No regular expression**, since one with n stars may try a name in exponentially many ways, and
holds the interpreter meanwhile. Within a name, only the newest `*` is ever widened: whatever an
older one could give up, the newest one can take (Wong, "Matching Wildcards: An Algorithm", Dr. Dobb's,
2008), which is at most |pattern| · |name| steps. Over names, a pattern is at several of its parts at
once, as in Thompson's simulation of an automaton (CACM 11(6), 1968): `**/a/**/b` after `x/a` is
before `a`, after `a` and before `b`. One name moves this set on, so that a walk carries it along and
never looks at a path twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Places = frozenset[int]
"""Before which of its parts a pattern may be; behind the last one it has matched."""


@dataclass(frozen=True, slots=True)
class _Any:
    """`?`: one character."""


@dataclass(frozen=True, slots=True)
class _Class:
    """`[…]`: one character of these ranges, or of none of them."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool

    def has(self, character: str) -> bool:
        return self.negated is not any(low <= character <= high for low, high in self.ranges)


@dataclass(frozen=True, slots=True)
class _Literal:
    """A character that stands for itself."""

    character: str


_Token = _Literal | _Any | _Class


@dataclass(frozen=True, slots=True)
class NamePattern:
    """A pattern for one name; `text` is how it was written."""

    text: str
    _tokens: tuple[_Token | None, ...]
    """None is a star; there are never two in a row."""

    @classmethod
    def parse(cls, text: str) -> "NamePattern":
        """Read a pattern; every text is one."""
        tokens: list[_Token | None] = []
        index = 0
        while index < len(text):
            character = text[index]
            if character == "*":
                if not tokens or tokens[-1] is not None:
                    tokens.append(None)
            elif character == "?":
                tokens.append(_Any())
            elif character == "[" and (found := _class(text, index)) is not None:
                token, index = found
                tokens.append(token)
                continue
            elif character == "\\" and index + 1 < len(text):
                index += 1
                tokens.append(_Literal(text[index]))
            else:
                tokens.append(_Literal(character))
            index += 1
        return cls(text, tuple(tokens))

    def matches(self, name: str) -> bool:
        """Whether it stands for `name`."""
        return name == self.text or self._fits(name)

    def _fits(self, name: str) -> bool:
        tokens = self._tokens
        if sum(token is not None for token in tokens) > len(name):
            return False
        at = position = 0
        star, widened = -1, 0  # the newest star, and how far it reaches
        while position < len(name):
            if at < len(tokens) and (token := tokens[at]) is not None:
                if _takes(token, name[position]):
                    at += 1
                    position += 1
                    continue
            elif at < len(tokens):
                star, widened = at, position
                at += 1
                continue
            if star < 0:
                return False
            widened += 1
            at, position = star + 1, widened
        return all(token is None for token in tokens[at:])


def _takes(token: _Token, character: str) -> bool:
    match token:
        case _Literal(wanted):
            return character == wanted
        case _Class():
            return token.has(character)
        case _Any():
            return True


def _class(text: str, begin: int) -> tuple[_Class, int] | None:
    """Read the class that begins at a bracket, and where it ends; None when it is no class."""
    index = begin + 1
    negated = text[index : index + 1] in {"!", "^"}
    index += negated
    members: list[tuple[str, bool]] = []  # a character, and whether it may be the dash of a range
    first = index
    while index < len(text) and (text[index] != "]" or index == first):
        escaped = text[index] == "\\" and index + 1 < len(text)
        index += escaped
        members.append((text[index], not escaped))
        index += 1
    if index >= len(text):
        return None
    ranges: list[tuple[str, str]] = []
    at = 0
    while at < len(members):
        low = members[at][0]
        if members[at + 1 : at + 2] == [("-", True)] and at + 2 < len(members):
            high = members[at + 2][0]
            if high < low:
                return None
            at += 3
        else:
            high = low
            at += 1
        ranges.append((low, high))
    return _Class(tuple(ranges), negated), index + 1


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A pattern for a path: patterns of its names one after the other; None is `**`."""

    parts: tuple[NamePattern | None, ...]

    @classmethod
    def parse(cls, text: str) -> "PathPattern":
        """Read a pattern with slashes; empty parts and `.` mean nothing."""
        parts = [part for part in text.split("/") if part not in {"", "."}]
        return cls(tuple(None if part == "**" else NamePattern.parse(part) for part in parts))

    @property
    def end(self) -> int:
        """The place behind the last part."""
        return len(self.parts)

    def begin(self) -> Places:
        """Where it is before any name."""
        return self._closed({0})

    def step(self, places: Places, name: str) -> Places:
        """Where it is after one more name; nowhere when it can match no longer."""
        after: set[int] = set()
        for place in places:
            if place == self.end:
                continue
            part = self.parts[place]
            if part is None:
                after.add(place)
                if place + 1 == self.end:
                    after.add(self.end)
            elif part.matches(name):
                after.add(place + 1)
        return self._closed(after)

    def matches(self, names: Sequence[str]) -> bool:
        """Whether it stands for the path of these names."""
        if None not in self.parts:
            # By far the most common, and the cheapest, answer is that there are more or fewer.
            return len(names) == self.end and all(
                part is not None and part.matches(name)
                for part, name in zip(self.parts, names, strict=True)
            )
        places = self.begin()
        for name in names:
            if not places:
                return False
            places = self.step(places, name)
        return self.end in places

    def _closed(self, places: set[int]) -> Places:
        """With those behind each `**` that stands for no name at all; the last one never does."""
        for place in sorted(places):
            at = place
            while at + 1 < self.end and self.parts[at] is None:
                at += 1
                places.add(at)
        return frozenset(places)
