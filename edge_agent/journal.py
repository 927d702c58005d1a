"""What the agent remembers of its attempts across its own death: one SQLite file.

One thread owns the connection and commits for everybody who waits at that moment, so that many
attempts cost one fsync (WAL, `synchronous=FULL`; https://www.sqlite.org/wal.html). Writes become
durable in the order in which they were asked for.
"""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, cast

from edge_agent.assignment import Assignment
from edge_agent.messages import decode_assignment, encode_assignment
from edge_agent.worker import AttemptRecord, Phase, Verdict
from services.runtime.log import fields
from services.runtime.state_folder import create_private
from shoal.model import Artifact, JobState, Reason, ReasonCode
from shoal.names import AttemptRef
from shoal.v1 import session_service_pb2

LOG = logging.getLogger(__name__)

_SCHEMA_VERSION: Final = 1
_QUEUE_SIZE: Final = 10_000
_BATCH_SIZE: Final = 512

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS attempt (
    key TEXT PRIMARY KEY,
    assignment BLOB NOT NULL,
    record TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class JournalError(Exception):
    """The journal cannot be opened or written: the agent cannot go on safely."""


@dataclass(frozen=True, slots=True)
class _Write:
    statement: str
    parameters: tuple[object, ...]
    done: asyncio.Future[None]


class Journal:
    """The agent's memory; `async with` opens and closes it.

    Args:
        path: the database file; made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.Queue[_Write | None] = queue.Queue(_QUEUE_SIZE)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: BaseException | None = None
        # An assignment is written at each step and hardly ever changes.
        self._encoded: dict[AttemptRef, tuple[Assignment, bytes]] = {}

    async def __aenter__(self) -> Self:
        """Open the file and start the writer.

        Raises:
            JournalError: the file cannot be used, or a newer agent has written it.
        """
        self._loop = asyncio.get_running_loop()
        try:
            connection = await asyncio.to_thread(self._open)
        except sqlite3.Error as error:
            raise JournalError(
                f"the journal {self._path} cannot be opened: {error}; move it away to begin anew"
            ) from error
        self._thread = threading.Thread(
            target=self._write_all, args=(connection,), name="journal", daemon=True
        )
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what is still queued and close the file."""
        thread = self._thread
        if thread is not None:
            await asyncio.to_thread(self._queue.put, None)
            await asyncio.to_thread(thread.join)

    def put(self, record: AttemptRecord) -> asyncio.Future[None]:
        """Remember an attempt; the future is done once it is durable."""
        return self._ask(
            "INSERT INTO attempt VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
            "assignment = excluded.assignment, record = excluded.record",
            (
                record.ref.prefix,
                self._encode(record.assignment),
                json.dumps(_to_json(record), separators=(",", ":")),
            ),
        )

    def forget(self, ref: AttemptRef) -> asyncio.Future[None]:
        """Remember an attempt no more."""
        self._encoded.pop(ref, None)
        return self._ask("DELETE FROM attempt WHERE key = ?", (ref.prefix,))

    def note(self, name: str, value: str) -> asyncio.Future[None]:
        """Remember a fact about the node, such as its boot id."""
        return self._ask(
            "INSERT INTO fact VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, value),
        )

    def barrier(self) -> asyncio.Future[None]:
        """Return a future that is done once everything asked for before is durable."""
        return self._ask("SELECT 1", ())

    async def load(self) -> tuple[AttemptRecord, ...]:
        """Every attempt that is remembered; one that cannot be read is logged and left out."""
        return await asyncio.to_thread(self._load)

    async def facts(self) -> dict[str, str]:
        """Every fact that was noted."""
        return await asyncio.to_thread(self._facts)

    # ---- on threads

    def _open(self) -> sqlite3.Connection:
        create_private(self._path)
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=5.0
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > _SCHEMA_VERSION:
            connection.close()
            raise sqlite3.DatabaseError(
                f"it has version {version}, and this agent knows {_SCHEMA_VERSION}"
            )
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        return connection

    def _load(self) -> tuple[AttemptRecord, ...]:
        connection = sqlite3.connect(self._path, timeout=5.0)
        try:
            rows = connection.execute("SELECT key, assignment, record FROM attempt ORDER BY key")
            return tuple(
                record for row in rows if (record := _read(row[0], row[1], row[2])) is not None
            )
        finally:
            connection.close()

    def _facts(self) -> dict[str, str]:
        connection = sqlite3.connect(self._path, timeout=5.0)
        try:
            return dict(connection.execute("SELECT name, value FROM fact").fetchall())
        finally:
            connection.close()

    def _encode(self, assignment: Assignment) -> bytes:
        known = self._encoded.get(assignment.ref)
        if known is None or known[0] is not assignment:
            known = (assignment, encode_assignment(assignment).SerializeToString())
            self._encoded[assignment.ref] = known
        return known[1]

    def _ask(self, statement: str, parameters: tuple[object, ...]) -> asyncio.Future[None]:
        if self._loop is None:
            raise JournalError("the journal is not open")
        done: asyncio.Future[None] = self._loop.create_future()
        if self._failure is not None:
            done.set_exception(JournalError(f"the journal {self._path} failed: {self._failure}"))
            return done
        try:
            self._queue.put_nowait(_Write(statement, parameters, done))
        except queue.Full:
            done.set_exception(JournalError(f"{_QUEUE_SIZE} writes wait: is the disk gone?"))
        return done

    def _write_all(self, connection: sqlite3.Connection) -> None:
        closing = False
        while not closing:
            first = self._queue.get()
            batch: list[_Write] = []
            while first is not None:
                batch.append(first)
                if len(batch) >= _BATCH_SIZE:
                    break
                try:
                    first = self._queue.get_nowait()
                except queue.Empty:
                    break
            closing = first is None
            self._commit(connection, batch)
        connection.close()

    def _commit(self, connection: sqlite3.Connection, batch: Sequence[_Write]) -> None:
        failure: BaseException | None = None
        if batch:
            try:
                connection.execute("BEGIN IMMEDIATE")
                for write in batch:
                    connection.execute(write.statement, write.parameters)
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                LOG.exception("the journal failed", extra=fields(path=self._path))
                self._failure = failure = error
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_resolve, batch, failure)


def _resolve(batch: Sequence[_Write], failure: BaseException | None) -> None:
    for write in batch:
        if write.done.done():
            continue
        if failure is None:
            write.done.set_result(None)
        else:
            write.done.set_exception(JournalError(f"the journal failed: {failure}"))


def _read(key: str, assignment: bytes, record: str) -> AttemptRecord | None:
    try:
        message = session_service_pb2.Assignment.FromString(assignment)
        return _from_json(json.loads(record), message)
    except Exception:  # one bad row costs one attempt, not the agent
        LOG.exception("a row of the journal cannot be read", extra=fields(key=key))
        return None


def _to_json(record: AttemptRecord) -> dict[str, object]:
    verdict = record.verdict
    return {
        "phase": record.phase.value,
        "turn": record.turn,
        "state": int(record.state),
        "reason": _reason_to_json(record.reason),
        "artifacts": [
            [artifact.path, artifact.size_bytes, artifact.sha256, artifact.key]
            for artifact in record.artifacts
        ],
        "start_time": record.start_time,
        "end_time": record.end_time,
        "verdict": None
        if verdict is None
        else [int(verdict.state), _reason_to_json(verdict.reason)],
        "forget": record.forget,
        "acknowledged": record.acknowledged,
    }


def _from_json(values: dict[str, Any], assignment: session_service_pb2.Assignment) -> AttemptRecord:
    verdict = values["verdict"]
    return AttemptRecord(
        assignment=decode_assignment(assignment),
        phase=Phase(values["phase"]),
        turn=int(values["turn"]),
        state=JobState(values["state"]),
        reason=_reason_from_json(values["reason"]),
        artifacts=tuple(
            Artifact(str(path), int(size), str(sha256), str(key))
            for path, size, sha256, key in cast("list[list[Any]]", values["artifacts"])
        ),
        start_time=float(values["start_time"]),
        end_time=float(values["end_time"]),
        verdict=None
        if verdict is None
        else Verdict(JobState(verdict[0]), _reason_from_json(verdict[1])),
        forget=bool(values["forget"]),
        acknowledged=bool(values["acknowledged"]),
    )


def _reason_to_json(reason: Reason) -> list[object]:
    return [reason.code.value, reason.number, reason.message]


def _reason_from_json(values: list[Any]) -> Reason:
    return Reason(ReasonCode(values[0]), int(values[1]), str(values[2]))
