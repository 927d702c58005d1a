"""Pure modules take time and chance as arguments; import-linter looks at what they import."""

import ast
import tomllib
from pathlib import Path
from typing import cast

from tests.kit.tree import parsed, sources, text

CONTRACT = "pure modules stay pure"
# What gives another answer each time, and is reached without importing a clock or a generator.
IMPURE = {
    "datetime.now", "datetime.today", "datetime.utcnow", "date.today",
    "uuid.uuid1", "uuid.uuid4", "uuid1", "uuid4",
    "open", "input", "print",
}  # fmt: skip


def test_pure_modules_ask_nobody_for_time_or_chance() -> None:
    asked = [
        f"{path}:{node.lineno}: {ast.unparse(node.func)}"
        for path in _pure()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in IMPURE
    ]
    assert asked == []


def test_pure_modules_know_random_as_a_type_alone() -> None:
    drawn = [
        f"{path}:{node.lineno}"
        for path in _pure()
        for node in ast.walk(parsed(path))
        if (isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names))
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "random"
            and any(alias.name != "Random" for alias in node.names)
        )
        or (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Random"))
    ]
    assert drawn == [], "write `from random import Random`, and let the caller make one"


def _pure() -> list[Path]:
    contracts = tomllib.loads(text(Path("pyproject.toml")))["tool"]["importlinter"]["contracts"]
    modules = next(
        cast("list[str]", contract["source_modules"])
        for contract in contracts
        if contract["name"] == CONTRACT
    )
    prefixes = tuple(f"{module}." for module in modules)
    return [path for path in sources() if _module(path).startswith(prefixes)]


def _module(path: Path) -> str:
    """Return the module's dotted name with a dot at its end, so that packages are prefixes."""
    parts = path.relative_to("sdk").parts if path.parts[0] == "sdk" else path.parts
    name = ".".join(parts).removesuffix(".py").removesuffix(".__init__")
    return f"{name}."
