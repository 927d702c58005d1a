"""Text to a YAML tree that is safe to walk: bounded in size, depth and aliases, with marks.

Only the composer of PyYAML is used, never a constructor, so no tag can make an object. Scalars stay
the text that was written: `python: 3.10` is not the number 3.1.
"""

from collections.abc import Iterator
from typing import Protocol

import yaml

from shoal.specfile.mark import BEGINNING, Mark, unusable
from shoal.specfile.template import OPENING

BYTES_MAX = 512 * 1024
"""Largest specification file."""

NODES_MAX = 50_000
"""Most values of a file once every alias is written out."""

DEPTH_MAX = 32
"""Deepest nesting of lists and mappings."""

_TAGS = {
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq", "merge", "value")
}


_REMEDIES = (
    ("'\\t'", "indent with blanks, since YAML takes no tabs"),
    ("mapping values are not allowed", "put a text that holds a colon and a blank in quotes"),
)
"""What to do about the mistakes that are made most, by a part of what the parser says of them."""

_REMEDY = "look for a quote or a bracket that is not closed, or a wrong indent, here or in the line before"


class _TreeError(ValueError):
    """Text that is not the YAML we take."""

    def __init__(self, mark: Mark, message: str) -> None:
        super().__init__(message)
        self.mark = mark


def read_tree(text: str, source: str, example: str = "`name:` and `jobs:`") -> yaml.Node:
    """Read one YAML document; `example` says what one that is empty may begin with.

    Raises:
        SpecFileError: it is too large, too deep, refers to itself, has tags or is not YAML.
    """
    try:
        return _tree(text, example)
    except _TreeError as error:
        raise unusable(source, str(error), error.mark) from None


def _tree(text: str, example: str) -> yaml.Node:
    if len(text) > BYTES_MAX:
        raise _TreeError(
            BEGINNING,
            f"the file has {len(text)} characters, {BYTES_MAX} at most; "
            "put data into the bundle instead",
        )
    try:
        _bound(yaml.parse(text, Loader=yaml.SafeLoader))
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        words = [word for word in (error.context, error.problem, error.note) if word]
        lines = text.splitlines()  # others than those of YAML end lines here, too
        if place is not None and any(OPENING in one for one in lines[place.line : place.line + 1]):
            words.append(f"put {OPENING} … }}}} in quotes where it stands within [] or {{}}")
        said = ", ".join(words)
        if OPENING not in said:
            said += f"; {next((what for part, what in _REMEDIES if part in said), _REMEDY)}"
        raise _TreeError(mark_of(place), f"this is not YAML: {said}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _TreeError(
            Mark(line, error.position - text.rfind("\n", 0, error.position)),
            f"the character {error.character!r} is not allowed in YAML; remove it",
        ) from None
    if root is None:
        raise _TreeError(BEGINNING, f"the file is empty; begin with {example}")
    _count(root)
    return root


class _Place(Protocol):
    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


def mark_of(place: _Place | None) -> Mark:
    """Convert PyYAML's mark, which counts from 0."""
    return BEGINNING if place is None else Mark(place.line + 1, place.column + 1)


def _bound(events: Iterator[yaml.Event]) -> None:
    """Look at the flat events first: the composer recurses, so depth has to be known before."""
    depth = nodes = 0
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise _TreeError(
                    mark_of(event.start_mark), f"this is nested deeper than {DEPTH_MAX} levels"
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.NodeEvent):
            nodes += 1
            if nodes > NODES_MAX:
                raise _TreeError(
                    mark_of(event.start_mark),
                    f"the file has more than {NODES_MAX} values; put data into the bundle instead",
                )


def _count(root: yaml.Node) -> None:
    """Bound what aliases grow to, without writing them out: sizes are sums over shared nodes."""
    # By the node: how many values it is once its aliases are written out, and how many levels.
    counted: dict[int, tuple[int, int]] = {}
    open_nodes: set[int] = set()

    def count(node: yaml.Node) -> tuple[int, int]:
        if id(node) in open_nodes:
            raise _TreeError(
                mark_of(node.start_mark), "this contains itself by an alias; write it out"
            )
        if node.tag not in _TAGS:
            raise _TreeError(
                mark_of(node.start_mark), f"the tag {node.tag!r} is not allowed; write plain values"
            )
        if id(node) not in counted:
            open_nodes.add(id(node))
            size, height = 1, 0
            if len(open_nodes) <= 2 * DEPTH_MAX:
                for child in _children(node):
                    child_size, child_height = count(child)
                    size, height = size + child_size, max(height, child_height)
            open_nodes.discard(id(node))
            counted[id(node)] = size, height + 1
            if size > NODES_MAX or len(open_nodes) + height + 1 > 2 * DEPTH_MAX:
                raise _TreeError(
                    mark_of(node.start_mark),
                    f"its aliases grow to more than {NODES_MAX} values "
                    f"or {2 * DEPTH_MAX} levels; write less of them",
                )
        return counted[id(node)]

    count(root)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
