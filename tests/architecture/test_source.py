"""How source is written: documented, named after its noun, packages without code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.kit.tree import parsed, sources

PRODUCT = ("bench", "compose", "control", "edge_agent", "examples", "sdk", "services", "tests/kit")
# What job code imports: `from shoal import job`, then `job.inputs`. Its names are bound here and
# nothing is decided here.
FACES = {Path("sdk/shoal/job/__init__.py")}
VAGUE_FILE = re.compile(r"^(?:utils?|helpers?|managers?|handlers?|misc|common)$")
VAGUE_CLASS = re.compile(r"(?:Utils?|Helpers?|Manager|Handler)$")

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def test_every_module_is_documented() -> None:
    assert [str(path) for path in sources() if not ast.get_docstring(parsed(path))] == []


def test_every_public_class_and_function_is_documented() -> None:
    bare = [
        f"{path}:{definition.lineno}: {definition.name}"
        for path in sources(*PRODUCT)
        for definition in _public(parsed(path))
        if not ast.get_docstring(definition)
    ]
    assert bare == []


def test_packages_hold_a_docstring_only() -> None:
    full = [
        str(path)
        for path in sources()
        if path.name == "__init__.py" and path not in FACES and len(parsed(path).body) != 1
    ]
    assert full == []


def test_faces_only_bind_names() -> None:
    allowed = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    busy = [
        f"{path}:{statement.lineno}"
        for path in sources()
        if path in FACES
        for statement in parsed(path).body
        if not isinstance(statement, allowed)
    ]
    assert busy == []


def test_files_and_classes_are_named_after_their_noun() -> None:
    vague = [str(path) for path in sources() if any(map(VAGUE_FILE.match, _names(path)))]
    vague += [
        f"{path}:{node.lineno}: {node.name}"
        for path in sources()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and VAGUE_CLASS.search(node.name)
    ]
    assert vague == []


def test_proto_is_no_package() -> None:
    # `import proto` would otherwise find ours instead of a library of that name.
    assert [str(path) for path in sources("proto")] == []


def _names(path: Path) -> list[str]:
    return [*path.parent.parts, path.stem]


def _public(node: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    for child in node.body:
        if not isinstance(child, Definition) or child.name.startswith("_"):
            continue
        if not isinstance(child, ast.ClassDef) and _explained_elsewhere(child):
            continue
        yield child
        if isinstance(child, ast.ClassDef):
            yield from _public(child)


def _explained_elsewhere(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Say whether a function's docstring stands where it is first declared."""
    if function.name[0].isupper():  # a method of a gRPC service: its .proto says what it does
        return True
    names = {ast.unparse(decorator).rpartition(".")[2] for decorator in function.decorator_list}
    return bool(names & {"override", "overload", "setter", "deleter"})
