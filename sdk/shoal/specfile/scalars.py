"""Single values of a specification file: from a YAML node to text, numbers, choices and lists.

A `Scalars` collects what is wrong instead of raising, so that one reading finds every mistake; what
cannot be read comes back as None.
"""

import enum
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from shoal.checks.problem import Path
from shoal.parameter import no_values, shown_value, value_text
from shoal.specfile.filled_word import FilledWord
from shoal.specfile.foreign_key import key_remedy
from shoal.specfile.mark import BEGINNING, Finding, Mark
from shoal.specfile.template import (
    KEY_PROBLEM,
    OPENING,
    Template,
    parse_template,
    split_template,
)
from shoal.specfile.tree import mark_of
from shoal.specfile.units import parse_duration, parse_size
from shoal.specfile.values import Values
from shoal.suggestion import did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

E = TypeVar("E", bound=enum.Enum)
T = TypeVar("T")
DataT = TypeVar("DataT", bound="DataclassInstance")

Readers = Mapping[str, tuple[str, Callable[[yaml.Node, Path], Any]]]
"""By key in the file: the field that it fills, and what reads it; None leaves the default."""

_NULL = "tag:yaml.org,2002:null"
_BOOL = "tag:yaml.org,2002:bool"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_MERGE = "tag:yaml.org,2002:merge"
_STR = "tag:yaml.org,2002:str"
_TAGS: Mapping[type, str] = {bool: _BOOL, int: _INT, float: _FLOAT, str: _STR}
_WRITTEN = "x"
_TRUE = {"true", "yes", "on"}
_INTEGER_MAX = 2**32 - 1
_JSON_INTEGER = re.compile(r"-?\d{1,300}")


@dataclass(frozen=True, slots=True)
class Field:
    """One entry of a mapping: its key as written, where the key stands, and its value."""

    key: str
    mark: Mark
    value: yaml.Node


class _UnfilledError(Exception):
    """A parameter has no value; what is wrong with it was said."""


class Scalars:
    """Reads values, puts parameters into them, and keeps where each stood and what was wrong with it.

    Attributes:
        values: what is put in; None leaves every value as it was written.
        keys_refused: whether a key could not be read, so that what it names is missing.
    """

    def __init__(self) -> None:
        self.values: Values | None = None
        self.keys_refused = False
        self._filled: dict[Path, dict[str, None]] = {}
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
        return BEGINNING

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
            if OPENING in key_node.value:
                self.keys_refused = True
                self.complain((*path, key_node.value), KEY_PROBLEM, key_node)
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
                at = (*path, field.key)
                message = f"there is no {field.key!r} here; {key_remedy(at, known)}"
                self.complain(at, message, field.mark)
        return found

    def filled(
        self, value: DataT, fields: Mapping[str, yaml.Node], path: Path, readers: Readers
    ) -> DataT:
        """Return `value` with the fields that could be read; in the order of the file."""
        found: dict[str, Any] = {}
        for key, node in fields.items():
            if key in readers:
                name, read = readers[key]
                one = read(node, (*path, key))
                if one is not None:
                    found[name] = one
        return replace(value, **found)

    def mapping(
        self, value: DataT, node: yaml.Node, path: Path, readers: Readers, wanted: str
    ) -> DataT:
        """Read a mapping into `value`; every key that there may be has a reader, see `entries`."""
        return self.filled(
            value, self.fields(node, path, tuple(readers), wanted) or {}, path, readers
        )

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
        read = {one.key: self.text(one.value, (*path, one.key)) for one in entries}
        return {key: value for key, value in read.items() if value is not None}

    # ---- scalars --------------------------------------------------------------------------------

    def text(self, node: yaml.Node, path: Path) -> str | None:
        """Read a scalar as it was written, with the parameters in it."""
        found = self._single(node, path)
        return None if found is None else found[0]

    def key(self, node: yaml.Node, path: Path) -> str | None:
        """Read a scalar that names something, as a key does; no parameter can stand in it."""
        if isinstance(node, yaml.ScalarNode) and OPENING in node.value:
            self.complain(path, KEY_PROBLEM, node)
            return None
        return self.text(node, path)

    def words(self, node: yaml.Node, path: Path, wanted: str) -> list[FilledWord] | None:
        """Read a command, a text that is split or a list of its words, and then put parameters in."""
        if not isinstance(node, yaml.ScalarNode) or is_null(node):
            items = self.items(node, path, wanted)
            read = [self._template(item, path) for item in items or ()]
            templates = None if items is None else [one for one in read if one is not None]
        else:
            whole = self._template(node, path)
            try:
                templates = None if whole is None else list(split_template(whole))
            except ValueError as error:
                self.complain(path, f"{node.value!r} {error}", node)
                return None
        if templates is None:
            return None
        words = [self._word(template, path, node) for template in templates]
        return [word for word in words if word is not None]

    def _word(self, template: Template, path: Path, node: yaml.Node) -> FilledWord | None:
        filled = self._put_in(template, path, node)
        if filled is None:
            return None
        values = no_values() if self.values is None else self.values.by_name
        texts = tuple(name for name in template.names if isinstance(values[name], str))
        return FilledWord(filled[0], template.text(dict.fromkeys(template.names, _WRITTEN)), texts)

    def _single(self, node: yaml.Node, path: Path) -> tuple[str, str] | None:
        """Read a scalar: its text and its tag."""
        template = self._template(node, path)
        if template is None:
            return None
        if template.names:
            return self._put_in(template, path, node)
        return template.text({}), node.tag

    def _template(self, node: yaml.Node, path: Path) -> Template | None:
        if not isinstance(node, yaml.ScalarNode) or is_null(node):
            message = "this has to be a single value"
            if is_null(node):
                message = "there is no value; give one, or '' for an empty text, or remove the key"
            self.complain(path, message, node)
            return None
        text = str(node.value)
        if self.values is None or OPENING not in text:
            return Template((text,))
        try:
            return parse_template(text)
        except ValueError as error:
            self.complain(path, f"this {error}", node)
            return None

    def _put_in(self, template: Template, path: Path, at: yaml.Node) -> tuple[str, str] | None:
        """Put values into a template: the text, and the tag of the value if it is all of it."""
        values = self.values
        if values is None or not template.names:
            return template.text({}), _STR
        for name in template.names:
            if problem := values.unknown(name):
                self.complain(path, problem, at)
                return None
            values.used.add(name)
            if name not in values.by_name:
                self.unread.append(path)
                return None
            self._filled.setdefault(path, {})[name] = None
        text = template.text({name: value_text(values.by_name[name]) for name in template.names})
        whole = values.by_name[template.whole] if template.whole else ""
        return text, _TAGS[type(whole)]

    def with_values(self, finding: Finding) -> Finding:
        """Say in a finding which parameters gave the value that it complains of."""
        values = no_values() if self.values is None else self.values.by_name
        names = [
            name
            for path, filled in self._filled.items()
            if finding.path[: len(path)] == path
            for name in filled
            if re.search(rf"(?<!\w){re.escape(value_text(values[name]))}(?!\w)", finding.message)
        ]
        if not names:
            return finding
        told = ", ".join(f"{name} is {shown_value(values[name])}" for name in names)
        return replace(finding, message=f"{finding.message} (the parameter {told})")

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
        found = self._single(node, path)
        if found is None:
            return None
        text, tag = found
        if tag != _BOOL:
            self.complain(path, f"{text!r} is not true or false", node)
            return None
        return text.lower() in _TRUE

    def json(self, node: yaml.Node, path: Path) -> str | None:
        """Read whatever JSON has too, and return it as JSON."""
        try:
            return json.dumps(self._plain(node, path))
        except _UnfilledError:
            return None
        except ValueError as error:
            self.complain(path, str(error), node)
            return None

    def _plain(self, node: yaml.Node, path: Path) -> Any:
        match node:
            case yaml.SequenceNode():
                return [self._plain(item, path) for item in node.value]
            case yaml.MappingNode():
                return {_key(key): self._plain(value, path) for key, value in node.value}
            case _ if is_null(node):
                return None
            case _:
                found = self._single(node, path)
                if found is None:
                    raise _UnfilledError
                return _plain_scalar(*found)

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


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag == _MERGE:
        raise ValueError("a key has to be a single word")
    if OPENING in node.value:
        raise ValueError(KEY_PROBLEM)
    return str(node.value)


def _plain_scalar(text: str, tag: str) -> Any:
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
