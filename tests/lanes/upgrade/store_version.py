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
