"""Ids of cases in tests and benchmarks are those that docs/cases.md explains."""

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from tests.kit.tree import parsed, sources, text

CASES = Path("docs/cases.md")
GUARANTEES = Path("docs/guarantees.md")
MESH = Path("tests/simulation/mesh")
LETTERS = "ABEFGKMPRSTUX"
ROW = re.compile(rf"^\| ([{LETTERS}]\d+) \| .* \| (.*) \|$", re.MULTILINE)
PATH = re.compile(r"`(?:bench|tests)/[\w./]+`")
NOT_BUILT = "not built"
AT_THE_BEGINNING = re.compile(rf"test((?:_[{LETTERS.lower()}]\d{{1,2}})+)_")
IN_PROSE = re.compile(rf"\b([{LETTERS}]\d{{1,2}})[a-z]?\b")
NUMBER = re.compile(r"f?\"(\d+):(?: |\")")
"""An invariant at the beginning of the words with which a history fails."""
CITED = re.compile(r"\b[Ii]nvariants? (\d+(?:(?:, | and )\d+)*)")
OTHER_MEANING = {"S3", "T1", "T2"}
"""Not cases where they stand alone: the object store, moments of a story. "Case S3" is one."""


@lru_cache
def _listed() -> dict[str, str]:
    """Return what the list says of each id: where it is proved, or that it is not built."""
    rows = ROW.findall(text(CASES))
    listed = dict(rows)
    assert len(rows) == len(listed), "an id stands twice in the list"
    return listed


def test_every_id_that_a_test_carries_is_explained() -> None:
    unknown = sorted({f"{path}: {case}" for path, case in _used() if case not in _listed()})
    assert unknown == [], f"add these ids to {CASES}, or leave them out"


def test_every_id_of_the_list_is_proved_somewhere_or_said_not_to_be_built() -> None:
    used = {case for _, case in _used()}
    open_cases = {case for case, where in _listed().items() if where.startswith(NOT_BUILT)}
    print("not built:", *sorted(open_cases, key=_order))  # noqa: T201 - `pytest -s` shows it
    unnamed = _listed().keys() - open_cases - used
    print("proved by tests that do not name them:", *sorted(unnamed, key=_order))  # noqa: T201
    assert sorted(used & open_cases) == [], f"tests prove these: say where in {CASES}"
    nowhere = [case for case in unnamed if not PATH.search(_listed()[case])]
    assert nowhere == [], "name the file that proves them, or say that they are not built"


def test_the_simulation_checks_the_invariants_by_their_numbers() -> None:
    listed = set(re.findall(r"^\| (\d+) \|", text(GUARANTEES), re.MULTILINE))
    checked = {number for path in sources(str(MESH)) for number in NUMBER.findall(text(path))}
    assert checked == listed
    cited = {
        (str(path), number)
        for path in sources("tests")
        if MESH not in path.parents
        for words in CITED.findall(text(path))
        for number in re.findall(r"\d+", words)
    }
    assert sorted(cited) == sorted(_also()), f"{GUARANTEES} and these tests disagree"


def _also() -> Iterator[tuple[str, str]]:
    """Yield the tests that the table of invariants names besides the simulation."""
    for number, where in re.findall(r"^\| (\d+) \| .* \| (.*) \|$", text(GUARANTEES), re.MULTILINE):
        yield from ((path.strip("`"), number) for path in PATH.findall(where))


@lru_cache
def _used() -> frozenset[tuple[Path, str]]:
    """Return the ids that names and docstrings of tests and benchmarks carry, with their files."""
    return frozenset(_found())


def _found() -> Iterator[tuple[Path, str]]:
    for path in sources("tests", "bench"):
        if path == Path(__file__).relative_to(Path(__file__).parents[2]):
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = node.name if node.name.startswith("test_") else ""
                yield from ((path, case) for case in _in_name(name))
                yield from ((path, case) for case in _in_prose(ast.get_docstring(node) or ""))
            elif isinstance(node, ast.Module):
                yield from ((path, case) for case in _in_prose(ast.get_docstring(node) or ""))


def _in_name(name: str) -> Iterator[str]:
    """Yield the ids at the beginning of a test's name, such as `test_k2_k4_…`."""
    found = AT_THE_BEGINNING.match(name)
    ids = found[1].upper().split("_")[1:] if found else ()
    yield from (case for case in ids if case not in OTHER_MEANING)


def _in_prose(words: str) -> Iterator[str]:
    """Yield the ids of a docstring."""
    for found in IN_PROSE.finditer(words):
        said = words[: found.start()].rstrip().endswith(("Case", "case", "Cases", "cases"))
        if said or found[1] not in OTHER_MEANING:
            yield found[1]


def _order(case: str) -> tuple[str, int]:
    return case[0], int(case[1:])
