"""Which pieces of bundles the archive has, by namespace: a file beside the store, and no more than a memory.

Rule: a piece is known only in the namespaces in which a bundle with it was uploaded.
Why: a client that names a hash and is told that it is known learns that another client has such a file.
Losing the file costs that clients send whole bundles again, so it is written without waiting for the
disk, and one that cannot be read is begun anew.
"""

import contextlib
import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.runtime.log import fields
from shoal.pieces import Piece, placed

LOG = logging.getLogger(__name__)

PIECES_MAX: Final = 1_000_000
"""Most pieces that are known; those of the bundles that were uploaded longest ago are forgotten first."""

# One statement for a whole list: it takes its time in SQLite, where other threads go on meanwhile.
_FIND: Final = (
    "SELECT piece.sha256, digest, begin FROM json_each(?) AS wanted"
    " CROSS JOIN piece ON piece.namespace = ? AND piece.sha256 = wanted.value"
    " JOIN bundle ON bundle.id = piece.bundle"
)
_ADD: Final = (
    "INSERT OR REPLACE INTO piece SELECT ?, json_extract(value, '$[0]'), ?, json_extract(value, '$[1]')"
    " FROM json_each(?)"
)
_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS bundle (id INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS bundle_digest ON bundle (digest);
CREATE TABLE IF NOT EXISTS piece (
  namespace TEXT NOT NULL, sha256 TEXT NOT NULL, bundle INTEGER NOT NULL, begin INTEGER NOT NULL,
  PRIMARY KEY (namespace, sha256)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS piece_bundle ON piece (bundle);
"""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A bundle in the archive with a piece, and where in it the piece begins, in bytes."""

    digest: str
    begin: int


@dataclass(eq=False)
class KnownPieces:
    """The memory in a file; every method waits for the disk, so call it in a thread.

    Args:
        path: the file; its folder has to be there.
        pieces_max: most pieces that are known.
    """

    path: Path
    pieces_max: int = PIECES_MAX
    _connection: sqlite3.Connection | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, namespace: str, sha256: Collection[str]) -> Mapping[str, Whereabouts]:
        """Return where pieces are, of those that are known in a namespace."""
        found: dict[str, Whereabouts] = {}

        def look(database: sqlite3.Connection) -> None:
            rows = database.execute(_FIND, (json.dumps(list(sha256)), namespace))
            found.update({sha: Whereabouts(digest, begin) for sha, digest, begin in rows})

        self._transact(look)
        return found

    def add(self, namespace: str, digest: str, pieces: Sequence[Piece]) -> None:
        """Remember the pieces of a bundle that the archive has."""

        def insert(database: sqlite3.Connection) -> None:
            cursor = database.execute("INSERT INTO bundle (digest) VALUES (?)", (digest,))
            where = json.dumps([(one.piece.sha256, one.begin) for one in placed(pieces)])
            database.execute(_ADD, (namespace, cursor.lastrowid, where))
            self._forget_oldest(database)

        self._transact(insert)

    def forget(self, digest: str) -> None:
        """Forget a bundle that the archive does not have any more, or not as it was."""

        def delete(database: sqlite3.Connection) -> None:
            database.execute(
                "DELETE FROM piece WHERE bundle IN (SELECT id FROM bundle WHERE digest = ?)",
                (digest,),
            )
            database.execute("DELETE FROM bundle WHERE digest = ?", (digest,))

        self._transact(delete)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _forget_oldest(self, database: sqlite3.Connection) -> None:
        (count,) = database.execute("SELECT count(*) FROM piece").fetchone()
        while count > self.pieces_max:
            (oldest,) = database.execute("SELECT min(bundle) FROM piece").fetchone()
            count -= database.execute("DELETE FROM piece WHERE bundle = ?", (oldest,)).rowcount
        database.execute("DELETE FROM bundle WHERE id NOT IN (SELECT DISTINCT bundle FROM piece)")

    def _transact(self, change: Callable[[sqlite3.Connection], None]) -> None:
        """Carry a transaction out; where the file fails, it is as if nothing were known."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._begin()
                with self._connection:
                    change(self._connection)
            except sqlite3.Error as error:
                LOG.warning("pieces are not known", extra=fields(file=self.path, why=error))
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                if not isinstance(error, sqlite3.OperationalError):
                    self._remove()  # it is no database, or a damaged one

    def _begin(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, check_same_thread=False)
        try:
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
