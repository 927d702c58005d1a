"""Single values of a specification file: from a YAML node to text, numbers, choices and lists.

A `Scalars` collects what is wrong instead of raising, so that one reading finds every mistake; what
cannot be read comes back as None.
"""

import enum
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

from shoal.checks.problem import Path
from shoal.specfile.mark import Finding, Mark
from shoal.specfile.tree import mark_of
from shoal.specfile.units import parse_duration, parse_size
from shoal.suggestion import did_you_mean

E = TypeVar("E", bound=enum.Enum)
T = TypeVar("T")

_NULL = "tag:yaml.org,2002:null"
_BOOL = "tag:yaml.org,2002:bool"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_MERGE = "tag:yaml.org,2002:merge"
_TRUE = {"true", "yes", "on"}
_INTEGER_MAX = 2**32 - 1
_JSON_INTEGER = re.compile(r"-?\d{1,300}")


@dataclass(frozen=True, slots=True)
class Field:
    """One entry of a mapping: its key as written, where the key stands, and its value."""

    key: str
    mark: Mark
    value: yaml.Node


class Scalars:
    """Reads values, and keeps where each stood and what was wrong with it."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.unread: list[Path] = []
        self._marks: dict[Path, Mark] = {}

    def complain(
        self, path: Path, message: str, at: yaml.Node | Mark | None = None, *, unread: bool = True
    ) -> None:
        """Note one mistake; `unread` says that what is at `path` could not be read because of it.

        It stands at `at`, or where `path` does.
        """
        if isinstance(at, yaml.Node):
            at = mark_of(at.start_mark)
        self.findings.append(Finding(at or self.mark(path), path, message))
        if unread and path:
            self.unread.append(path)

    def note(self, path: Path, mark: Mark) -> None:
        """Remember where a field stands, for mistakes that show only later."""
        self._marks.setdefault(path, mark)

    def mark(self, path: Path) -> Mark:
        """Say where a field stands, or the nearest thing around it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self._marks:
                return self._marks[path[:length]]
        return Mark(1, 1)

    # ---- mappings and lists ---------------------------------------------------------------------

    def entries(self, node: yaml.Node, path: Path, wanted: str) -> list[Field] | None:
        """Read a mapping; nothing at all counts as an empty one.

        Args:
            node: the mapping.
            path: what it is.
            wanted: completes "this has to be …".
        """
        if is_null(node):
            return []
        if not isinstance(node, yaml.MappingNode):
            self.complain(path, f"this has to be {wanted}", node)
            return None
        fields: dict[str, Field] = {}
        merged: list[Field] = []
        for key_node, value in node.value:
            if key_node.tag == _MERGE:
                merged.extend(self._merged(value, path))
                continue
            if not isinstance(key_node, yaml.ScalarNode) or is_null(key_node):
                self.complain(path, "a key has to be a word", key_node)
                continue
            first = fields.get(key_node.value)
            if first is not None:
                self.complain(
                    (*path, key_node.value),
                    f"{key_node.value!r} stands here twice, first in line {first.mark.line}; "
                    "remove one",
                    key_node,
                    unread=False,  # the first one was
                )
                continue
            fields[key_node.value] = Field(key_node.value, mark_of(key_node.start_mark), value)
        for field in merged:
            fields.setdefault(field.key, field)
        for field in fields.values():
            scalar = isinstance(field.value, yaml.ScalarNode)
            self.note((*path, field.key), mark_of(field.value.start_mark) if scalar else field.mark)
        return list(fields.values())

    def _merged(self, node: yaml.Node, path: Path) -> Iterator[Field]:
        items: list[yaml.Node] = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for item in items:
            yield from self.entries(item, path, "a mapping, or a list of them, after `<<`") or ()

    def fields(
        self, node: yaml.Node, path: Path, known: Sequence[str], wanted: str
    ) -> dict[str, yaml.Node] | None:
        """Read a mapping of which every key is known; see `entries`."""
        entries = self.entries(node, path, wanted)
        if entries is None:
            return None
        found: dict[str, yaml.Node] = {}
        for field in entries:
            if field.key in known:
                found[field.key] = field.value
            else:
                message = f"there is no {field.key!r} here; {did_you_mean(field.key, known)}"
                self.complain((*path, field.key), message, field.mark)
        return found

    def items(self, node: yaml.Node, path: Path, wanted: str) -> list[yaml.Node] | None:
        """Read a list; a single value counts as a list of one, and nothing as an empty one."""
        if is_null(node):
            return []
        if isinstance(node, yaml.SequenceNode):
            return list(node.value)
        if isinstance(node, yaml.ScalarNode):
            return [node]
        self.complain(path, f"this has to be {wanted}", node)
        return None

    def texts(self, node: yaml.Node, path: Path, wanted: str) -> tuple[str, ...] | None:
        """Read a list of words."""
        items = self.items(node, path, wanted)
        if items is None:
            return None
        words = [self.text(item, path) for item in items]
        return tuple(word for word in words if word is not None)

    def text_map(self, node: yaml.Node, path: Path, wanted: str) -> dict[str, str] | None:
        """Read a mapping from words to words."""
        entries = self.entries(node, path, wanted)
        if entries is None:
            return None
        found: dict[str, str] = {}
        for field in entries:
            value = self.text(field.value, (*path, field.key))
            if value is not None:
                found[field.key] = value
        return found

    # ---- scalars --------------------------------------------------------------------------------

    def text(self, node: yaml.Node, path: Path) -> str | None:
        """Read a scalar as it was written."""
        if isinstance(node, yaml.ScalarNode) and not is_null(node):
            return str(node.value)
        message = "this has to be a single value"
        if is_null(node):
            message = "there is no value; give one, or '' for an empty text, or remove the key"
        self.complain(path, message, node)
        return None

    def converted(self, node: yaml.Node, path: Path, convert: Callable[[str], T]) -> T | None:
        """Read a scalar through a function whose ValueError completes a sentence about it."""
        text = self.text(node, path)
        if text is None:
            return None
        try:
            return convert(text)
        except ValueError as error:
            self.complain(path, f"{text!r} {error}", node)
            return None

    def duration(self, node: yaml.Node, path: Path) -> float | None:
        """Read a duration in seconds."""
        return self.converted(node, path, parse_duration)

    def size(self, node: yaml.Node, path: Path) -> int | None:
        """Read a size in bytes."""
        return self.converted(node, path, parse_size)

    def integer(self, node: yaml.Node, path: Path) -> int | None:
        """Read a whole number that the contract can carry."""
        return self.converted(node, path, _integer)

    def number(self, node: yaml.Node, path: Path) -> float | None:
        """Read a number."""
        return self.converted(node, path, _number)

    def boolean(self, node: yaml.Node, path: Path) -> bool | None:
        """Read true or false."""
        text = self.text(node, path)
        if text is None:
            return None
        if node.tag != _BOOL:
            self.complain(path, f"{text!r} is not true or false", node)
            return None
        return text.lower() in _TRUE

    def json(self, node: yaml.Node, path: Path) -> str | None:
        """Read whatever JSON has too, and return it as JSON."""
        try:
            return json.dumps(_plain(node))
        except ValueError as error:
            self.complain(path, str(error), node)
            return None

    def choice_of(self, choices: type[E]) -> Callable[[yaml.Node, Path], E | None]:
        """Return what reads the value of an enumeration."""
        return self.choice({str(choice.value): choice for choice in choices})

    def choice(self, values: Mapping[str, T]) -> Callable[[yaml.Node, Path], T | None]:
        """Return what reads one of these words."""

        def chosen(text: str) -> T:
            if text not in values:
                raise ValueError(f"is not possible here; {did_you_mean(text, values)}")
            return values[text]

        return lambda node, path: self.converted(node, path, chosen)


def _plain(node: yaml.Node) -> Any:
    match node:
        case yaml.SequenceNode():
            return [_plain(item) for item in node.value]
        case yaml.MappingNode():
            return {_key(key): _plain(value) for key, value in node.value}
        case _:
            return _single(str(node.value), node.tag)


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag == _MERGE:
        raise ValueError("a key has to be a single word")
    return str(node.value)


def _single(text: str, tag: str) -> Any:
    if tag == _NULL:
        return None
    if tag == _BOOL:
        return text.lower() in _TRUE
    if tag == _INT:
        if not _JSON_INTEGER.fullmatch(text):
            raise ValueError(f"{text!r} is no number as JSON has it; put a text in quotes")
        return int(text)
    if tag == _FLOAT:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{text!r} is no number as JSON has it; put a text in quotes")
        return number
    return text


def is_null(node: yaml.Node) -> bool:
    """Say whether a key has no value."""
    return bool(node.tag == _NULL)


def _integer(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(_INTEGER_MAX)):
        raise ValueError(f"is not a whole number from 0 to {_INTEGER_MAX}")
    value = int(text)
    if value > _INTEGER_MAX:
        raise ValueError(f"is not a whole number from 0 to {_INTEGER_MAX}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("is not a number; write for example 2 or 0.5") from None
