"""A SQLite file as text, which is what is kept of databases of releases."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path


def write_text(database: Path, text: Path) -> None:
    """Write the tables of a database with their version."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        lines = [*connection.iterdump(), f"PRAGMA user_version = {version};"]
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text("\n".join(lines) + "\n")


def read_text(text: Path, database: Path) -> None:
    """Make the database of a text."""
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(text.read_text())


def rows_of(database: Path) -> Iterator[tuple[str, tuple[str, ...], list[tuple[object, ...]]]]:
    """Each table with its columns and its rows."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in sorted(names):
            columns = tuple(row[1] for row in connection.execute(f'PRAGMA table_info("{name}")'))
            yield name, columns, rows_at(connection, name, columns)


def rows_at(
    connection: sqlite3.Connection, table: str, columns: tuple[str, ...]
) -> list[tuple[object, ...]]:
    """The rows of some columns of a table, in the order of their text."""
    chosen = ", ".join(f'"{one}"' for one in columns)
    found = connection.execute(f'SELECT {chosen} FROM "{table}"').fetchall()  # noqa: S608 - our own
    return sorted(found, key=repr)
