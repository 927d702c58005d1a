"""The embedded store: SQLite in WAL mode with `synchronous=FULL`.

One thread writes: it drains a bounded queue into one transaction and resolves every waiter after
the commit, so that many commits cost one fsync (https://www.sqlite.org/wal.html). Another thread
reads on a connection of its own, which in WAL mode neither waits for the writer nor stops it.

Every transaction is fenced by the term, which is the number of the start that this store counted: once
another store has counted a later one on the same file, nothing that this one does is written. The lock
beside the file keeps that from happening by mistake on one host; the term holds without it.

The file has room of its own, pages that are free within it and a write-ahead log that is as long
and is written over in place, so that what runs can still be recorded when its disk is full.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Self, TypeVar

from control.core.errors import (
    RowError,
    StoreFailedError,
    StoreFullError,
    StoreVersionError,
    TermOverError,
)
from control.core.event_query import EventQuery
from control.core.pipeline_query import PageFound, PageKey, PipelineQuery
from control.core.rows import (
    EventsRead,
    FoundRows,
    KeptNames,
    Loaded,
    ObjectsWaiting,
    OutboxRow,
    OutboxWaiting,
    Queued,
    RequestKey,
    Row,
    SpansRow,
    StoredVersionRow,
)
from control.store import event_rows, schema, statements
from control.store.pipeline_page import page
from services.runtime.group_commit import GroupWriter, connect, is_cut_off, open_database, transact
from services.runtime.log import fields
from services.runtime.migration import BackupError, NewerFileError, migrate, refuse_newer
from services.runtime.state_folder import PRIVATE_FILE
from shoal.names import PipelineRef
from shoal.view import PipelineSummary
from shoal.wire.fields import WireError

LOG = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

Work = Callable[[sqlite3.Connection], None]

_Item = tuple[Work, "Future[None]"]

ROOM_BYTES = 4 << 20
"""What the file and its log take beforehand, each, or an eighth of what is free on a small disk."""

CHECKPOINT_PAGES = 256
_LEAST_BYTES = 64 * 1024
"""With less than this the files that SQLite makes beside a database have no room."""


class SqliteStore:
    """A `Store` in one file. `async with` it; it belongs to one process at a time.

    Args:
        path: The database file; its folder exists.
        queue_size: How many transactions may wait.
        batch_size: How many of them become one.
        events_kept: About how many published events stay readable.
    """

    def __init__(
        self,
        path: Path,
        *,
        queue_size: int = 1024,
        batch_size: int = 512,
        events_kept: int = 100_000,
    ) -> None:
        self._path = path
        self._events_kept = events_kept
        self._room = asyncio.Semaphore(queue_size)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._batch_size = batch_size
        self._writer: GroupWriter[_Item] | None = None
        self._lock: int | None = None
        self._term = 0
        # Of the outbox up to here nothing stays that has left; at first that is not known of any.
        self._trimmed = 0
        self._read_connection: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        """Open the file, and make or check its tables.

        Raises:
            StoreFailedError: The file cannot be used, or belongs to another controller.
            StoreVersionError: A newer version has written it.
        """
        try:
            await asyncio.to_thread(self._open)
        except (OSError, sqlite3.Error) as error:
            self._unlock()
            raise self._failed("open", error) from error
        except StoreFailedError:
            self._unlock()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what waits, then close."""
        await asyncio.to_thread(self._close)

    async def load(self, new_id: Callable[[], str], queue_page: int) -> Loaded:
        """Read what the control machine starts from, and count this start durably; `new_id` draws its random id."""

        def count_start(connection: sqlite3.Connection) -> None:
            self._term = statements.count_start(connection, new_id)

        await self._write(count_start)
        try:
            return await self._read(lambda connection: statements.load(connection, queue_page))
        except WireError as error:
            raise self._failed("read", error) from error

    async def queued(self, after: int, limit: int) -> Sequence[Queued]:
        """Return pipelines of which no job was ever placed, above the position `after`, in order."""
        return await self._read(lambda connection: statements.queued(connection, after, limit))

    async def find(
        self, refs: Sequence[PipelineRef], requests: Sequence[RequestKey] = ()
    ) -> FoundRows:
        """Read pipelines and requests by their keys; what is not there is left out."""
        return await self._read(lambda connection: statements.find(connection, refs, requests))

    async def page(
        self, query: PipelineQuery, limit: int, behind: PageKey | None = None
    ) -> PageFound:
        """Return the names of the next pipelines behind a key, `limit` at most."""
        return await self._read(lambda connection: page(connection, query, limit, behind))

    async def summaries(
        self, refs: Sequence[PipelineRef], revision: int = 0
    ) -> Sequence[PipelineSummary]:
        """Sum up pipelines as of a revision, in any order; what is not there is left out."""
        return await self._read(lambda connection: statements.summaries(connection, refs, revision))

    async def commit(self, rows: Sequence[Row]) -> None:
        """Write all rows in one transaction."""
        await self._write(lambda connection: statements.write(connection, rows))

    async def outbox(self, limit: int = 100, after: int = 0) -> Sequence[OutboxRow]:
        """Return what has not left yet with a sequence above `after`, in order."""
        return await self._read(lambda connection: statements.outbox(connection, after, limit))

    async def objects_waiting(self, limit: int, after: int) -> ObjectsWaiting:
        """Return what waits for the archive with a sequence above `after`, in order."""
        return await self._read(
            lambda connection: statements.objects_waiting(connection, after, limit)
        )

    async def outbox_waiting(self) -> OutboxWaiting:
        """Count what has not left yet, up to 10,000 rows."""
        return await self._read(statements.outbox_waiting)

    async def kept_names(self) -> KeptNames:
        """Read what pipelines and manifests name in the archive."""
        return await self._read(statements.kept_names)

    async def stored(
        self, keys: Sequence[tuple[str, str, int]], *, content: bool
    ) -> Sequence[StoredVersionRow]:
        """Return versions of stored pipelines by namespace, name and number."""
        return await self._read(
            lambda connection: statements.stored(connection, keys, content=content)
        )

    async def mark_published(
        self, sequences: Sequence[int], aside: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        """Let go of rows that have left, or that cannot for the reason in `aside`."""
        before, through = self._trimmed, 0

        def mark(connection: sqlite3.Connection) -> None:
            nonlocal through
            through = statements.mark_published(
                connection, sequences, aside, self._events_kept, before
            )

        await self._write(mark)
        self._trimmed = max(self._trimmed, through)

    async def spans(self, limit: int) -> Sequence[SpansRow]:
        """Return spans that have not left yet, the oldest first."""
        return await self._read(lambda connection: statements.spans(connection, limit))

    async def drop_spans(self, through: int, kept: int) -> int:
        """Let go of spans up to a sequence, and of the oldest beyond `kept` rows; returns how many those had."""
        dropped = 0

        def drop(connection: sqlite3.Connection) -> None:
            nonlocal dropped
            dropped = statements.drop_spans(connection, through, kept)

        await self._write(drop)
        return dropped

    async def events(
        self, query: EventQuery, place: int, limit: int, *, newest_first: bool = False
    ) -> EventsRead:
        """Return events behind a place, oldest first; or before it, newest first."""
        return await self._read(
            lambda connection: event_rows.events(
                connection, query, place, limit, newest_first=newest_first
            )
        )

    async def events_forgotten_through(self) -> int:
        """Return up to which sequence events may have been let go of; 0 for none."""
        return await self._read(
            lambda connection: event_rows.forgotten_through(connection, self._events_kept)
        )

    # --- threads

    async def _write(self, work: Work) -> None:
        if self._writer is None:
            raise StoreFailedError(f"store {self._path} is closed: open it with `async with`")
        done: Future[None] = Future()
        async with self._room:
            self._writer.put(done, (work, done))
            await asyncio.wrap_future(done)

    async def _read(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        connection = self._read_connection
        if connection is None:
            raise StoreFailedError(f"store {self._path} is closed: open it with `async with`")
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._reader, _consistently, work, connection
            )
        except sqlite3.Error as error:
            raise self._failed("read", error) from error

    def _open(self) -> None:
        self._take_lock()
        if is_cut_off(self._path):
            raise StoreFailedError(
                f"store {self._path} is empty, so it was cut off: put a copy of it back, or remove "
                "it to begin with nothing"
            )
        try:
            refuse_newer(self._path, schema.VERSION)
            connection = open_database(self._path, self._migrate)
        except NewerFileError as error:
            raise StoreVersionError(f"store {error}") from error
        except BackupError as error:
            raise StoreFailedError(f"store {error}") from error
        try:
            self._read_connection = connect(self._path)
        except BaseException:
            connection.close()
            raise
        self._make_room(connection)
        self._connection = connection
        self._writer = GroupWriter(
            "store-writer", partial(self._settle, connection), group_size=self._batch_size
        )
        self._writer.start()

    def _migrate(self, connection: sqlite3.Connection) -> None:
        schema.add_functions(connection)
        migrate(connection, self._path, schema.STEPS)

    def _make_room(self, connection: sqlite3.Connection) -> None:
        """Take the room of its own from the disk, as far as there is any."""
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        disk = os.statvfs(self._path.parent)
        room = min(ROOM_BYTES, disk.f_bavail * disk.f_frsize // 8)
        if self._has_room(connection, room):
            return  # as after a kill: what was taken is there, and taking it again would wait for the disk
        try:
            connection.execute("CREATE TABLE room (filler BLOB)")
            connection.execute("INSERT INTO room VALUES (zeroblob(?))", (room,))
        except sqlite3.Error as error:
            LOG.warning("the store has no room of its own", extra=fields(error=error))
        with suppress(sqlite3.Error):
            connection.execute("DROP TABLE IF EXISTS room")
            connection.execute("PRAGMA wal_checkpoint(RESTART)")

    def _has_room(self, connection: sqlite3.Connection, room: int) -> bool:
        """Whether both the file and its log have so many bytes to spare."""
        log = self._path.with_name(f"{self._path.name}-wal")
        try:
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
            return free * page_bytes >= room and log.stat().st_size >= room
        except (sqlite3.Error, OSError):
            return False

    def _take_lock(self) -> None:
        lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise StoreFailedError(
                f"store {self._path} belongs to a controller that is running: "
                "end that one, or use another --state folder"
            ) from error
        self._lock = lock

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()
        self._reader.shutdown()
        if self._read_connection is not None:
            self._read_connection.close()
            self._read_connection = None
        self._unlock()

    def _settle(self, connection: sqlite3.Connection, items: Sequence[_Item]) -> None:
        """Commit items together; if that fails, one by one, so that each gets its own answer."""
        items = [item for item in items if item[1].set_running_or_notify_cancel()]
        error = self._transact(connection, [work for work, _ in items]) if items else None
        for work, done in items:
            one = (
                self._transact(connection, [work])
                if error is not None and len(items) > 1
                else error
            )
            if one is None:
                done.set_result(None)
            elif isinstance(one, TermOverError):
                done.set_exception(one)
            elif _is_the_rows(one):
                done.set_exception(RowError(f"{type(one).__name__}: {one}"))
            else:
                done.set_exception(self._failed("write", one))

    def _transact(self, connection: sqlite3.Connection, works: Sequence[Work]) -> Exception | None:
        before = self._term

        def work(connection: sqlite3.Connection) -> None:
            if before:
                statements.check_term(connection, before)
            for one in works:
                one(connection)

        try:
            transact(connection, work)
        except Exception as error:  # noqa: BLE001 -- whatever it was, the waiters have to know
            self._term = before
            return error
        return None

    def _is_full(self, error: Exception) -> bool:
        code = getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_FULL or getattr(error, "errno", 0) in {
            errno.ENOSPC,
            errno.EDQUOT,
        }:
            return True
        if code & 0xFF not in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}:
            return False
        # What SQLite makes beside the file found no room, and it only says that reading or writing failed.
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize < _LEAST_BYTES

    def _failed(self, what: str, error: Exception) -> StoreFailedError:
        again = "start the controller again" if what == "open" else "ask again"
        if self._is_full(error):
            return StoreFullError(
                f"store {self._path} could not {what}: its disk is full; make room there, and {again}: what "
                "runs goes on"
            )
        if _is_read_only(error):
            return StoreFailedError(
                f"store {self._path} could not {what}: its disk is read-only; mount it for writing, and {again}: what "
                "runs goes on"
            )
        remedy = "look at the disk's space, its health and the file's permissions"
        if (
            isinstance(error, sqlite3.DatabaseError)
            and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
        ):
            remedy = "put a copy of it back, or move it away to begin with nothing"
        return StoreFailedError(f"store {self._path} could not {what}: {error}; {remedy}")


def _is_read_only(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code == sqlite3.SQLITE_READONLY or getattr(error, "errno", 0) == errno.EROFS


def _consistently(
    work: Callable[[sqlite3.Connection], ResultT], connection: sqlite3.Connection
) -> ResultT:
    """Let all that a piece of work reads be of one moment."""
    connection.execute("BEGIN")
    try:
        return work(connection)
    finally:
        connection.execute("ROLLBACK")


_DAMAGED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})

_ROW_ERRORS = (
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
)


def _is_the_rows(error: Exception) -> bool:
    """Whether the rows are to blame, such as by a number that is too large, and not the disk."""
    return isinstance(error, _ROW_ERRORS) or not isinstance(error, sqlite3.Error | OSError)
