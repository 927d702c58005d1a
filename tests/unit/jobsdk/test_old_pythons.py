"""Boards bring old Pythons: job code must load there."""

import ast
import sys
from pathlib import Path

import pytest

import shoal.job

FILES = sorted(Path(shoal.job.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_syntax_is_that_of_python_3_6(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_imports_the_standard_library_and_itself(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.startswith("shoal.job") or name.split(".")[0] in sys.stdlib_module_names
            assert name not in {"dataclasses", "__future__", "contextvars"}  # younger than 3.6
