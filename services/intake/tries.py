"""How often each message was refused: a small SQLite file, written before anything follows from it.

A message that is gone for `KEPT` is forgotten, and so are the oldest beyond `KEPT_MAX`: a message whose
tries are forgotten has all of them again.
"""

import contextlib
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

from services.runtime.group_commit import open_database
from services.runtime.migration import NewerFileError, migrate, refuse_newer
from services.runtime.process import OtherVersionError, StartRefusedError

NAME: Final = "intake.db"
KEPT: Final = timedelta(days=15)
KEPT_MAX: Final = 100_000

STEPS: Final = (
    """
CREATE TABLE tries (
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    tries INTEGER NOT NULL,
    reason TEXT NOT NULL,
    time INTEGER NOT NULL,
    PRIMARY KEY (source, id)
) WITHOUT ROWID;
CREATE INDEX tries_by_time ON tries (time);
""",
)
"""The statements that lead from each version of the file to the next one."""


class MessageTries:
    """The tries of all messages; every method blocks, and one is called at a time.

    Args:
        path: of the file; made if it is missing.
        kept_max: of how many messages it remembers the tries.

    Raises:
        StartRefusedError: it cannot be opened.
        OtherVersionError: a newer program has written it.
    """

    def __init__(self, path: Path, kept_max: int = KEPT_MAX) -> None:
        self._kept_max = kept_max
        try:
            refuse_newer(path, len(STEPS))
            self._connection = open_database(
                path, lambda connection: migrate(connection, path, STEPS)
            )
        except NewerFileError as error:
            raise OtherVersionError(str(error)) from error
        except (OSError, sqlite3.Error) as error:
            raise StartRefusedError(
                f"{path} cannot be used: {error}; make room and let this user write there, or choose another --state"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def of(self, identity: tuple[str, str]) -> tuple[int, str]:
        """Return how often the message of an `identity` was refused, and why the last time."""
        row = self._connection.execute(
            "SELECT tries, reason FROM tries WHERE source = ? AND id = ?", identity
        ).fetchone()
        return (0, "") if row is None else (int(row[0]), str(row[1]))

    def record(self, identity: tuple[str, str], tries: int, reason: str, time: float) -> None:
        """Remember a try durably; `time` is in seconds since 1970.

        Raises:
            sqlite3.Error: the disk takes it not.
        """
        with contextlib.closing(self._connection.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                cursor.execute(
                    "INSERT OR REPLACE INTO tries VALUES (?, ?, ?, ?, ?)",
                    (*identity, tries, reason, int(time)),
                )
                cursor.execute(
                    "DELETE FROM tries WHERE time < ?", (int(time - KEPT.total_seconds()),)
                )
                cursor.execute(
                    "DELETE FROM tries WHERE time < (SELECT time FROM tries ORDER BY time DESC LIMIT 1 OFFSET ?)",
                    (self._kept_max,),
                )
                cursor.execute("COMMIT")
            except BaseException:
                cursor.execute("ROLLBACK")
                raise

    def forget(self, identity: tuple[str, str]) -> None:
        """Forget a message.

        Raises:
            sqlite3.Error: the disk takes it not.
        """
        self._connection.execute("DELETE FROM tries WHERE source = ? AND id = ?", identity)
