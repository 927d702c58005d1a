"""A file with values for the parameters of a specification: YAML or TOML, by its name."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from shoal.specfile.mark import BEGINNING, Finding, Mark, SpecFileError, unusable
from shoal.specfile.scalars import Scalars
from shoal.specfile.source_text import read_source
from shoal.specfile.tree import read_tree
from shoal.specfile.values import GivenValue

_SUFFIXES = (".yaml", ".yml", ".toml")
_TOML_PLACE = re.compile(r" \(at line (\d+), column (\d+)\)$")
_WANTED = "a mapping from names of parameters to values, such as limit: 20"


def load_values(path: Path) -> Mapping[str, GivenValue]:
    """Read a file of values; each one keeps where it stands.

    YAML gives text, which the specification gives a type. TOML gives types, and they have to be those
    of the specification.

    Raises:
        SpecFileError: with everything that is wrong with the file.
    """
    if path.suffix not in _SUFFIXES:
        known = ", ".join(f"*{one}" for one in _SUFFIXES)
        raise unusable(str(path), f"a file of values is called {known}; rename it")
    text = read_source(path)
    return _toml(text, str(path)) if path.suffix == ".toml" else _yaml(text, str(path))


def _yaml(text: str, source: str) -> Mapping[str, GivenValue]:
    root = read_tree(text, source, "a value, such as limit: 20")
    scalars = Scalars()
    found: dict[str, GivenValue] = {}
    for field in scalars.entries(root, (), _WANTED) or ():
        value = scalars.text(field.value, (field.key,))
        if value is not None:
            mark = scalars.mark((field.key,))
            found[field.key] = GivenValue(value, f"{source}:{mark.line}:{mark.column}")
    if scalars.findings:
        raise SpecFileError(source, scalars.findings)
    return found


def _toml(text: str, source: str) -> Mapping[str, GivenValue]:
    try:
        table = cast("Mapping[str, object]", tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        mark = Mark(int(place[1]), int(place[2])) if place else BEGINNING
        said = _TOML_PLACE.sub("", str(error))
        raise unusable(source, f"this is not TOML: {said}", mark) from None
    found: dict[str, GivenValue] = {}
    findings: list[Finding] = []
    for name, value in table.items():
        mark = _mark(text, name)
        if isinstance(value, str | int | float):
            found[name] = GivenValue(value, f"{source}:{mark.line}:{mark.column}")
        else:
            findings.append(
                Finding(mark, (name,), "this has to be a single value; write a text or a number")
            )
    if findings:
        raise SpecFileError(source, findings)
    return found


def _mark(text: str, name: str) -> Mark:
    """Find where a name stands; the parser of TOML keeps no places."""
    pattern = re.compile(rf"^[ \t\[]*[\"']?{re.escape(name)}\b", re.MULTILINE)
    place = pattern.search(text)
    return BEGINNING if place is None else Mark(text.count("\n", 0, place.start()) + 1, 1)
