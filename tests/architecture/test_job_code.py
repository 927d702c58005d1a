"""What job code imports runs on the Python of the board: standard library only, 3.6 and later."""

import ast
import subprocess
import sys
from pathlib import Path

from tests.kit.tree import ROOT, parsed, sources, text

JOB = "sdk/shoal/job"


def test_imports_the_standard_library_alone() -> None:
    # An import inside a function or an `if` may be of something optional, such as numpy.
    foreign = [
        f"{path}:{line}: {name}"
        for path in sources(JOB)
        for line, name in _imported(parsed(path))
        if name.split(".")[0] not in sys.stdlib_module_names
        and name.split(".")[:2] != ["shoal", "job"]
    ]
    assert foreign == []


def test_is_written_in_the_syntax_of_python_3_6() -> None:
    for path in sources(JOB):
        ast.parse(text(path), filename=str(path), feature_version=(3, 6))


def test_uses_nothing_newer_than_python_3_6() -> None:
    vermin = Path(sys.executable).with_name("vermin")
    checked = subprocess.run(
        [vermin, "--quiet", "--violations", "--no-tips", "--target=3.6-", *sources(JOB)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout


def _imported(module: ast.Module) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for statement in module.body:
        if isinstance(statement, ast.Import):
            found += [(statement.lineno, alias.name) for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if base == "shoal":
                found += [(statement.lineno, f"shoal.{alias.name}") for alias in statement.names]
            else:
                found.append((statement.lineno, base if not statement.level else "shoal.job"))
    return found
