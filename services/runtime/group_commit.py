"""SQLite files that are written in groups: all writes that wait at a moment cost one fsync.

Both the store of a controller and the journal of an agent are such files (WAL, `synchronous=FULL`;
https://www.sqlite.org/wal.html). What they do with a write that fails is their own.
"""

import itertools
import sqlite3
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Generic, TypeVar

from services.runtime.state_folder import create_private

BUSY_SECONDS: Final = 5.0
"""How long another program with the file open (a backup, say) is waited for."""

STATEMENTS_CACHED: Final = 512
"""Statements that are kept prepared: one that writes several rows at once has a text for each number of them."""

ItemT = TypeVar("ItemT")


def is_cut_off(path: Path) -> bool:
    """Whether a file is there and empty: no database is, so something cut it off."""
    return path.exists() and not path.stat().st_size


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection for any thread, which begins no transaction by itself."""
    connection = sqlite3.connect(
        path,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS_CACHED,
    )
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def open_database(path: Path, prepare: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    """Open a database that is its user's alone, or make it; `prepare` checks or makes its tables.

    Raises:
        OSError: The file cannot be made or read.
        sqlite3.Error: It is no database, or its disk takes no write.
    """
    made = create_private(path)
    try:
        connection = connect(path)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            prepare(connection)
        except BaseException:
            connection.close()
            raise
    except BaseException:
        if made and is_cut_off(path):
            path.unlink()
        raise
    return connection


def transact(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], None]) -> None:
    """Do work in one transaction; whatever it raises rolls all of it back."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


@dataclass(eq=False)
class GroupWriter(Generic[ItemT]):
    """A thread that writes what waits, in the order in which it came.

    Args:
        name: Of the thread.
        write: Writes a group; called in the thread, and raises nothing.
        join: Makes one write of an older and a newer one with the same key.
        group_size: Most writes of a group.
    """

    name: str
    write: Callable[[list[ItemT]], None]
    _: KW_ONLY
    join: Callable[[ItemT, ItemT], ItemT] = lambda _older, newer: newer
    group_size: int = 512

    def __post_init__(self) -> None:
        self._waiting: dict[Hashable, ItemT] = {}
        self._later: dict[Hashable, ItemT] = {}
        self._lock = threading.Lock()
        self._news: SimpleQueue[None] = SimpleQueue()
        """Has something whenever something came to an empty `_waiting`, which costs less than a condition."""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._writing = False

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, key: Hashable, item: ItemT) -> None:
        """Have this written; one that waits with the same key keeps its place and is joined."""
        with self._lock:
            first = not self._waiting
            older = self._waiting.get(key)
            self._waiting[key] = item if older is None else self.join(older, item)
            self._later.pop(key, None)
        if first:
            self._news.put(None)

    def put_later(self, key: Hashable, item: ItemT) -> bool:
        """Have this written along with something else, or once there is `hurry`; say whether it waits alone for that.

        Nothing waits for it: it is not looked at by `idle`, and what is put with the same key takes its place.
        """
        with self._lock:
            older = self._waiting.get(key)
            if older is not None:
                self._waiting[key] = self.join(older, item)
                return False
            self._later[key] = item
            return not self._waiting

    def hurry(self) -> None:
        """Write what was put for later, if that has not happened yet."""
        with self._lock:
            first = not self._waiting and bool(self._later)
            self._waiting |= self._later
            self._later.clear()
        if first:
            self._news.put(None)

    @property
    def idle(self) -> bool:
        """Whether everything that was put is written."""
        with self._lock:
            return not self._waiting and not self._writing

    @property
    def closing(self) -> bool:
        """Whether nothing more comes than what waits."""
        return self._closed.is_set()

    def pause(self, seconds: float) -> None:
        """Let the thread wait before it tries again; it ends early when the writer is closed."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """Write what waits, and end the thread; blocks."""
        self.hurry()
        self._closed.set()
        self._news.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._news.get()
            last = (
                self.closing
            )  # looked at before, so that nothing is left of what came before that
            while group := self._take():
                self.write(group)
            if last:
                return

    def _take(self) -> list[ItemT]:
        with self._lock:
            waiting = self._waiting
            if waiting and self._later:
                waiting |= self._later
                self._later.clear()
            if len(waiting) <= self.group_size:
                taken, self._waiting = list(waiting.values()), {}
            else:
                keys = list(itertools.islice(waiting, self.group_size))
                taken = [waiting.pop(key) for key in keys]
            self._writing = bool(taken)
            return taken
