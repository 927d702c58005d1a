"""The version that a SQLite file of a controller or an agent says it has."""

import sqlite3
from contextlib import closing
from pathlib import Path


def version_of(path: Path) -> int:
    """Return which steps a file has been through."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def call_version(path: Path, version: int) -> None:
    """Let a file say that it has another version: what came since are tables, and columns with defaults."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")


def go_back(path: Path, said: str) -> None:
    """Do what the sentence of an older program says, which found a later file."""
    backup = next(word for word in said.split() if word.endswith(".backup"))
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        if (path.parent / name).exists():
            (path.parent / name).rename(path.parent / f"{name}.later")
    path.write_bytes(Path(backup).read_bytes())
