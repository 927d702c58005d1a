"""The source tree as git sees it: what the architecture tests look at."""

import ast
import subprocess
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = "sdk/shoal/v1/"


@lru_cache
def tracked(*patterns: str) -> tuple[Path, ...]:
    """Return the tracked files that still exist, relative to ROOT; `patterns` are git pathspecs."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, check=True, capture_output=True
    )
    paths = (Path(name) for name in listed.stdout.decode().split("\0") if name)
    return tuple(path for path in paths if (ROOT / path).is_file())


def sources(*folders: str) -> list[Path]:
    """Return the tracked Python files under `folders` (all of them by default), not the generated."""
    wanted = tuple(f"{folder}/" for folder in folders)
    return [
        path
        for path in tracked("*.py")
        if not str(path).startswith(GENERATED) and (not wanted or str(path).startswith(wanted))
    ]


@lru_cache
def text(path: Path) -> str:
    """Return the text of a tracked file, empty for one that is not text."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@lru_cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a tracked Python file."""
    return ast.parse(text(path), filename=str(path))
