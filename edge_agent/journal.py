"""What the agent remembers of its attempts across its own death: one SQLite file.

One thread owns the connection and commits for every writer that waits at that moment, so that many
attempts cost one fsync (WAL, `synchronous=FULL`; https://www.sqlite.org/wal.html). Writes become
durable in the order in which they were asked for. A record is written out by that thread, so that
one whose place a newer one takes costs nothing; and what waits takes few statements of many rows: the
lock of the interpreter is let go for each, and had again only when the loop next waits for something.

A disk that does not take a write (full, read-only, broken) is waited for: the write is tried again
and what acts on it waits, since nothing is acted on that is not recorded. Only the newest write
of an attempt waits, so memory is bounded by the attempts. So that a full disk is survived and not
only waited for, the journal has room of its own: pages that are free within the database, a
write-ahead log that is as long and is written over in place, and beside it a reserve file, which is
given up for the files that SQLite makes when it opens a database. Where even that room is gone, the
journal is read as it is, and written once there is room.

Secrets of a job are sealed as they are written (`edge_agent.secrets.secret_seal`), in a table of their own; the column
of the assignment has none of them. While that table has a row the file is of a later version: an agent of before would
begin such a job without its secrets, and show what it printed of them. Without one, an agent of before can go on.
"""

import asyncio
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from dataclasses import fields as dataclass_fields
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self
from urllib.parse import quote

from edge_agent.attempts.local_attempt import LocalAttempt, Verdict
from edge_agent.attempts.phase import Phase
from edge_agent.secrets.secret_seal import NAME, SealError, SecretSeal
from services.runtime.group_commit import GroupWriter, is_cut_off, open_database, transact
from services.runtime.log import fields
from services.runtime.migration import BackupError, NewerFileError, migrate, refuse_newer
from services.runtime.process import ExitCode, StartRefusedError
from services.runtime.state_folder import PRIVATE_FILE
from shoal.backoff import Backoff
from shoal.model import Artifact, JobState, Reason, ReasonCode
from shoal.names import AttemptRef
from shoal.secret import no_secrets
from shoal.session.assignment import Assignment
from shoal.session.port_hold import PortHold
from shoal.session.stage import AttemptStage
from shoal.session.uploads import ArtifactParts
from shoal.v1 import session_service_pb2
from shoal.wire.assignment import decode_assignment, encode_assignment

LOG = logging.getLogger(__name__)

_ROOM_BYTES: Final = 1 << 20
_CHECKPOINT_PAGES: Final = 128
_LATER_SECONDS: Final = 0.25
"""How long it waits for another write that an attempt is forgotten: it would be once more after a restart."""
_ROWS_MAX: Final = 64
"""Most rows of a statement."""
_RETRY: Final = Backoff(0.05, 2.0, jitter=0.0)

_FIRST: Final = """
CREATE TABLE IF NOT EXISTS attempt (
    key TEXT PRIMARY KEY,
    assignment BLOB NOT NULL,
    record TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS room (filler BLOB);
"""

STEPS: Final = (_FIRST,)
"""The statements that lead from each version of the file to the next one; an empty file has version 0.

A record that an older agent could not read, such as one of a new phase, needs a step too, even one of no statement: an
older agent would leave it out and end its job. The next step has to be the table of secrets, which makes their version
that of every file.
"""

_SECRETS: Final = (
    "CREATE TABLE IF NOT EXISTS secret (key TEXT PRIMARY KEY, sealed BLOB NOT NULL) WITHOUT ROWID"
)
_WITH_SECRETS: Final = len(STEPS) + 1
"""The version of a file while it holds secrets."""

_PUT: Final = (
    "INSERT INTO attempt (key, assignment, record) VALUES ",
    "(?,?,?)",
    " ON CONFLICT (key) DO UPDATE SET assignment = excluded.assignment, record = excluded.record",
)
_FORGET: Final = "DELETE FROM attempt WHERE key IN (", "?", ")"
_NOTE: Final = (
    "INSERT INTO fact (name, value) VALUES ",
    "(?,?)",
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
)


class JournalError(StartRefusedError):
    """The journal cannot be read: the agent would forget what it knows."""


class JournalVersionError(JournalError):
    """A newer agent has written the journal."""

    code = ExitCode.OTHER_VERSION


@dataclass(slots=True)
class _Write:
    """What is to be written: a record, an attempt that is forgotten, a fact, or nothing at all."""

    record: LocalAttempt | None = None
    forgotten: AttemptRef | None = None
    fact: tuple[str, str] | None = None
    waiting: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])


@dataclass(frozen=True, slots=True)
class _Rows:
    """What a group writes: rows of attempts, with their secrets by key, keys that go, and facts."""

    attempts: Sequence[tuple[str, bytes, str]]
    secrets: Mapping[str, Mapping[str, bytes]]
    forgotten: Sequence[tuple[str]]
    facts: Sequence[tuple[str, str]]


class Journal:
    """The agent's memory; `async with` opens and closes it.

    Args:
        path: the database file; made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reserve = path.with_suffix(".reserve")
        # Beside the file, so that it goes where the state folder goes.
        self._seal = SecretSeal(path.with_name(NAME))
        self.trouble = ""
        """Why it cannot be written at the moment, for people; empty while it can."""
        # By what they write, in the order in which they were first asked for.
        self._writer = GroupWriter("journal", self._write_group, join=_joined)
        self._connection: sqlite3.Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._holding = False
        """Whether the file holds secrets, and so is of the version that has them."""
        self._hurry: asyncio.TimerHandle | None = None
        # An assignment is written at each step and hardly ever changes.
        self._encoded: dict[AttemptRef, tuple[Assignment, bytes]] = {}

    async def __aenter__(self) -> Self:
        """Open the file and start the writer; a disk that takes no write does not keep it closed.

        Raises:
            JournalError: the file is damaged or cannot be read.
            JournalVersionError: a newer agent has written it.
        """
        self._loop = asyncio.get_running_loop()
        self._connection = await asyncio.to_thread(self._begin)
        self._writer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what waits, once more if it could not be written, and close the file."""
        if self._hurry is not None:
            self._hurry.cancel()
        await asyncio.to_thread(self._writer.close)
        if self._connection is not None:
            self._connection.close()

    def put(self, record: LocalAttempt) -> asyncio.Future[None]:
        """Remember an attempt; the future is done once it is durable."""
        return self._ask(record.ref, _Write(record))

    def forget(self, ref: AttemptRef) -> None:
        """Remember an attempt no more, with the next write or a little later; nothing waits for that."""
        alone = self._writer.put_later(ref, _Write(forgotten=ref))
        if alone and self._hurry is None and self._loop is not None:
            self._hurry = self._loop.call_later(_LATER_SECONDS, self._write_later)

    def _write_later(self) -> None:
        self._hurry = None
        self._writer.hurry()

    def note(self, name: str, value: str) -> asyncio.Future[None]:
        """Remember a fact about the node, such as its boot id."""
        return self._ask(name, _Write(fact=(name, value)))

    def barrier(self) -> asyncio.Future[None]:
        """Return a future that is done once everything asked for before is durable, but what was to be forgotten."""
        if self._loop is not None and self._writer.idle:
            done: asyncio.Future[None] = self._loop.create_future()
            done.set_result(None)
            return done
        return self._ask(object(), _Write())

    async def load(self) -> tuple[LocalAttempt, ...]:
        """Every attempt that is remembered; one that cannot be read is logged and left out.

        Raises:
            JournalError: the file cannot be read.
        """
        return await asyncio.to_thread(self._load)

    async def facts(self) -> dict[str, str]:
        """Every fact that was noted.

        Raises:
            JournalError: the file cannot be read.
        """
        return await asyncio.to_thread(self._facts)

    # ---- on threads

    def _begin(self) -> sqlite3.Connection | None:
        """Open the file for writing; None where its disk takes no write and it can be read."""
        if is_cut_off(self._path):
            raise JournalError(
                f"the journal {self._path} is empty, so it was cut off: put a copy of it back, or "
                "remove it to begin anew; jobs that it knew are ended then"
            )
        try:
            refuse_newer(self._path, _WITH_SECRETS)
        except NewerFileError as error:
            raise JournalVersionError(f"the journal {error}") from error
        try:
            return self._open()
        except (sqlite3.DatabaseError, OSError) as error:
            if not _may_pass(error):
                raise self._unreadable(error) from error
            failure: Exception = error
        with suppress(OSError):
            self._reserve.unlink()
        try:
            return self._open()
        except (sqlite3.DatabaseError, OSError) as error:
            failure = error
        if not self._path.exists():
            raise JournalError(
                f"the journal {self._path} cannot be made: {failure}; make room on the disk, and "
                "see that it is healthy and writable"
            ) from failure
        self._load()  # what cannot be read cannot be waited for
        self._note_trouble(failure)
        return None

    def _open(self) -> sqlite3.Connection:
        connection = open_database(self._path, self._prepare)
        self._make_room(connection)
        self._holding = _version(connection) == _WITH_SECRETS
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        damage = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        if damage != "ok":
            raise sqlite3.DatabaseError(damage)
        try:
            migrate(connection, self._path, STEPS)
        except BackupError as error:
            raise JournalError(f"the journal {error}") from error

    def _make_room(self, connection: sqlite3.Connection) -> None:
        """Take the journal's own room from the disk, as far as there is any."""
        log = self._path.with_name(f"{self._path.name}-wal")
        try:
            free = connection.execute("PRAGMA freelist_count").fetchone()[0]
            page = connection.execute("PRAGMA page_size").fetchone()[0]
            if free * page < _ROOM_BYTES or log.stat().st_size < _ROOM_BYTES:
                connection.execute("INSERT INTO room VALUES (zeroblob(?))", (2 * _ROOM_BYTES,))
                connection.execute("DELETE FROM room")
                connection.execute("PRAGMA wal_checkpoint(RESTART)")
            descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT, PRIVATE_FILE)
            try:
                os.posix_fallocate(descriptor, 0, _ROOM_BYTES)
            finally:
                os.close(descriptor)
        except (sqlite3.Error, OSError) as error:
            LOG.warning("the journal has no room of its own", extra=fields(error=error))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Give a connection that reads; it needs no room where no other process has the file open."""
        log = self._path.with_name(f"{self._path.name}-wal")
        unlogged = not log.exists() or not log.stat().st_size
        options = "mode=ro&immutable=1" if unlogged else "mode=ro"
        try:
            connection = sqlite3.connect(
                f"file:{quote(str(self._path))}?{options}", uri=True, timeout=5.0
            )
            try:
                yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def _load(self) -> tuple[LocalAttempt, ...]:
        with self._reading() as connection:
            sealed: dict[str, bytes] = {}
            if _version(connection) == _WITH_SECRETS:
                sealed = dict(connection.execute("SELECT key, sealed FROM secret").fetchall())
            rows = connection.execute("SELECT key, assignment, record FROM attempt ORDER BY key")
            found = (
                decode_row(key, assignment, record, self._unsealed(key, sealed.get(key, b"")))
                for key, assignment, record in rows
            )
            return tuple(record for record in found if record is not None)

    def _unsealed(self, key: str, sealed: bytes) -> Mapping[str, bytes]:
        """The secrets of an attempt; what cannot be opened costs it its secrets, and is told."""
        try:
            return self._seal.open(sealed, key)
        except (SealError, OSError) as error:
            LOG.error("secrets cannot be opened", extra=fields(key=key, why=error))  # noqa: TRY400 it says all
            return no_secrets()

    def _facts(self) -> dict[str, str]:
        with self._reading() as connection:
            return dict(connection.execute("SELECT name, value FROM fact").fetchall())

    def _unreadable(self, error: Exception) -> JournalError:
        return JournalError(
            f"the journal {self._path} cannot be read: {error}; put a copy of it back, or move it "
            "away to begin anew; jobs that it knew are ended then"
        )

    def _encode(self, assignment: Assignment) -> bytes:
        known = self._encoded.get(assignment.ref)
        if known is None or known[0] is not assignment:
            known = (assignment, encode_plain(assignment))
            self._encoded[assignment.ref] = known
        return known[1]

    def _ask(self, thing: Hashable, write: _Write) -> asyncio.Future[None]:
        if self._loop is None:
            raise JournalError("the journal is not open")
        done: asyncio.Future[None] = self._loop.create_future()
        write.waiting.append(done)
        self._writer.put(thing, write)
        return done

    def _write_group(self, group: Sequence[_Write]) -> None:
        """Write a group, however long its disk takes no write; when the journal is closed, once."""
        failures = 0
        rows = self._rows_of(group)
        while True:
            try:
                self._connection = self._connection or self._open()
                self._write_rows(self._connection, rows)
                break
            except (sqlite3.Error, OSError, JournalError) as error:
                failures += 1
                self._note_trouble(error)
            if self._writer.closing:
                return
            with suppress(OSError):
                self._reserve.unlink()
            # The first time, the room of the reserve may be all that it takes.
            self._writer.pause(_RETRY.delay_seconds(failures - 1, 0.0))
        if self.trouble:  # of these tries, or of the start
            self._make_room(self._connection)
            self.trouble = ""
            LOG.info("the journal is written again", extra=fields(path=self._path))
        self._answer([done for write in group for done in write.waiting])

    def _answer(
        self, waiting: Sequence[asyncio.Future[None]], error: JournalError | None = None
    ) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nothing waits any more
            if self._loop is not None and waiting:
                self._loop.call_soon_threadsafe(_resolve, waiting, error)

    def _rows_of(self, group: Iterable[_Write]) -> _Rows:
        """Write out the records of a group; one that cannot be fails what waits for it."""
        attempts: list[tuple[str, bytes, str]] = []
        secrets: dict[str, Mapping[str, bytes]] = {}
        forgotten: list[tuple[str]] = []
        facts: list[tuple[str, str]] = []
        for write in group:
            if write.fact is not None:
                facts.append(write.fact)
            if write.forgotten is not None:
                self._encoded.pop(write.forgotten, None)
                forgotten.append((write.forgotten.prefix,))
            if (record := write.record) is None:
                continue
            key = record.ref.prefix
            try:
                attempts.append((key, self._encode(record.assignment), encode_record(record)))
            except Exception as error:  # a mistake of ours about one attempt
                LOG.exception("a record cannot be written out", extra=fields(key=key))
                waiting, write.waiting = write.waiting, []
                failed = JournalError(f"the record of {key} cannot be written out: {error}")
                self._answer(waiting, failed)
            else:
                secrets[key] = record.assignment.secrets
        return _Rows(attempts, secrets, forgotten, facts)

    def _write_rows(self, connection: sqlite3.Connection, rows: _Rows) -> None:
        """Write the rows of a group, all or none."""
        if self._holding or any(rows.secrets.values()):
            transact(connection, partial(self._write_with_secrets, rows))
            self._holding = _version(connection) == _WITH_SECRETS
            return
        statements = _statements(rows)
        if len(statements) == 1:  # it is a transaction by itself
            connection.execute(*statements[0])
        elif statements:
            transact(connection, partial(_execute, statements))

    def _write_with_secrets(self, rows: _Rows, connection: sqlite3.Connection) -> None:
        _execute(_statements(rows), connection)
        holding = _version(connection) == _WITH_SECRETS
        for key, secrets in rows.secrets.items():
            if not secrets:
                continue
            if not holding:
                connection.execute(_SECRETS)
                connection.execute(f"PRAGMA user_version = {_WITH_SECRETS}")
                holding = True
            connection.execute(
                "INSERT INTO secret VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET sealed = excluded.sealed",
                (key, self._seal.close(secrets, key)),
            )
        if holding and rows.forgotten:
            connection.executemany("DELETE FROM secret WHERE key = ?", rows.forgotten)
            if connection.execute("SELECT 1 FROM secret LIMIT 1").fetchone() is None:
                connection.execute(f"PRAGMA user_version = {len(STEPS)}")

    def _note_trouble(self, error: Exception) -> None:
        before, self.trouble = (
            self.trouble,
            f"its journal {self._path} cannot be written: {error}; {self._remedy()}",
        )
        if not before:
            LOG.error("the journal waits for its disk", extra=fields(why=self.trouble))

    def _remedy(self) -> str:
        with suppress(OSError):
            if os.statvfs(self._path.parent).f_flag & os.ST_RDONLY:
                return "its disk is read-only, mount it for writing"
        return "make room on the disk, or see that it is healthy and writable"


def _joined(older: _Write, newer: _Write) -> _Write:
    """Return a write in the place of an older one of the same thing, whose futures wait, too."""
    newer.waiting = [*older.waiting, *newer.waiting]
    return newer


def _statements(rows: _Rows) -> list[tuple[str, Sequence[object]]]:
    return [
        *_of_many(*_PUT, rows.attempts),
        *_of_many(*_FORGET, rows.forgotten),
        *_of_many(*_NOTE, rows.facts),
    ]


def _of_many(
    begin: str, row: str, end: str, rows: Sequence[tuple[object, ...]]
) -> Iterator[tuple[str, Sequence[object]]]:
    """Cut rows into statements of 64, 32, ... 1 rows, so that few different ones are ever prepared."""
    first = 0
    while left := len(rows) - first:
        many = min(1 << (left.bit_length() - 1), _ROWS_MAX)
        taken = rows[first : first + many]
        first += many
        yield begin + ",".join([row] * many) + end, [one for each in taken for one in each]


def _execute(
    statements: Iterable[tuple[str, Sequence[object]]], connection: sqlite3.Connection
) -> None:
    for statement, parameters in statements:
        connection.execute(statement, parameters)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _may_pass(error: Exception) -> bool:
    """Whether a disk may be at fault that has room or works again later."""
    if isinstance(error, OSError):
        return True
    return isinstance(error, sqlite3.OperationalError) and getattr(
        error, "sqlite_errorcode", 0
    ) & 0xFF in {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
    }


def _resolve(waiting: Iterable[asyncio.Future[None]], error: JournalError | None) -> None:
    for done in waiting:
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


def encode_plain(assignment: Assignment) -> bytes:
    """Write an assignment without its secrets, which have a column of their own."""
    if assignment.secrets:
        assignment = replace(assignment, secrets=no_secrets())
    return encode_assignment(assignment).SerializeToString()


def encode_record(record: LocalAttempt) -> str:
    """Write as JSON how a record differs from a new one; its assignment has a column of its own."""
    changed = {
        name: value
        for name, value, new in zip(_NAMES, record[1:], _NEW_VALUES, strict=True)
        if value is not new and value != new
    }
    return _JSON.encode(changed)


def decode_row(
    key: str, assignment: bytes, record: str, secrets: Mapping[str, bytes]
) -> LocalAttempt | None:
    """Read a row, with its secrets as they were opened; None for one that cannot be read, which is logged.

    What the row does not have, since an older agent wrote it, is as in a new record.
    """
    try:
        message = decode_assignment(session_service_pb2.Assignment.FromString(assignment))
        if secrets:
            message = replace(message, secrets=secrets)
        values = json.loads(record)
        found = {name: read(values[name]) for name, read in _READERS.items() if name in values}
        return LocalAttempt(message, **found)
    except Exception:  # one bad row costs one attempt, not the agent
        LOG.exception("a row of the journal cannot be read", extra=fields(key=key))
        return None


def _reason(value: Any) -> Reason:
    code, number, message = value
    return Reason(ReasonCode(code), number, message)


def _verdict(value: Any) -> Verdict | None:
    return None if value is None else Verdict(JobState(value[0]), _reason(value[1]))


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "phase": Phase,
        "turn": int,
        "state": JobState,
        "reason": _reason,
        "artifacts": lambda rows: tuple(Artifact(*row) for row in rows),
        "parts": lambda rows: tuple(
            ArtifactParts(path, size, tuple(hashes), upload) for path, size, hashes, upload in rows
        ),
        "start_time": float,
        "end_time": float,
        "verdict": _verdict,
        "forget": bool,
        "acknowledged": bool,
        "closed": bool,
        "finishing": bool,
        "missing": bool,
        "archived": bool,
        "keeper": str,
        "holds": lambda rows: tuple(PortHold(*row) for row in rows),
        "ended_inputs": tuple,
        "stages": lambda rows: tuple((AttemptStage(stage), float(time)) for stage, time in rows),
    }
)
"""How each field of a record is read from its JSON, in which a value is the array of its fields.

A value of another type is refused by it, and costs one attempt: the machine would fail over it.
"""

_NAMES: Final = LocalAttempt._fields[1:]
_NEW_VALUES: Final = tuple(LocalAttempt._field_defaults[name] for name in _NAMES)


def _values_in(value: Any) -> list[object]:
    """The fields of a value in an array, as it stands in JSON."""
    return [getattr(value, one.name) for one in dataclass_fields(value)]


_JSON: Final = json.JSONEncoder(separators=(",", ":"), default=_values_in)
