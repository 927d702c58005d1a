"""Reading events out of the outbox, both ways, so that no reading is long.

Rule: one reading looks at no more than `LOOKED_AT_MAX` rows of the outbox, so that other readings have their turn, and
returns how far it has come. Events of a pipeline that is remembered are found by its position, and all of them are
looked at; those of one that is forgotten are among all others.

There is no index by time: it would cost each event that is written, and a clock may be set back, so that later events
have earlier times. A search for a time looks at all rows from the first one on, some 40 ms for a reading.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from control.core.event_query import EventQuery
from control.core.rows import EventsRead
from control.store import table
from shoal.limits import BATCH_BYTES_MAX
from shoal.view import Event

LOOKED_AT_MAX: Final = 10_000

_SELECT: Final = "SELECT id, type, subject, time, data, sequence, published, problem FROM outbox"


def events(
    connection: sqlite3.Connection,
    query: EventQuery,
    place: int,
    limit: int,
    *,
    newest_first: bool = False,
    looked_at_max: int = LOOKED_AT_MAX,
) -> EventsRead:
    """Read events behind a place, oldest first; or before it, newest first, where 0 is behind all."""
    first, newest = _ends(connection)
    position = _position(connection, query)
    if newest_first:
        high = newest if not place else min(newest, place - 1)
        low = first - 1 if position else max(first - 1, high - looked_at_max)
    else:
        low = max(place, first - 1)
        high = newest if position else min(newest, low + looked_at_max)
    found: list[Event] = []
    left = BATCH_BYTES_MAX
    words, values = _conditions(query, position)
    order = "DESC" if newest_first else "ASC"
    for row in connection.execute(
        f"{_SELECT} {words} AND sequence > ? AND sequence <= ? ORDER BY sequence {order} LIMIT ?",
        (*values, low, high, limit),
    ):
        row_id, row_type, subject, time, data, sequence, published, problem = row
        found.append(
            Event(
                id=row_id,
                type=row_type,
                subject=subject,
                time=table.moment_of(time),
                data_json=data,
                sequence=sequence,
                published=bool(published) and not problem,
                problem=problem,
            )
        )
        left -= len(data)
        if left <= 0 or len(found) >= limit:
            through = sequence
            break
    else:
        through = low + 1 if newest_first else max(place, high)
    more = through >= first + 1 if newest_first else through < newest
    return EventsRead(tuple(found), through, more)


def forgotten_through(connection: sqlite3.Connection, events_kept: int) -> int:
    """Return up to which sequence events may have been let go of; 0 for none.

    Those that have left are, once newer ones push them out. Where nothing leaves, all are kept.
    """
    _, newest = _ends(connection)
    pushed_out = newest - events_kept
    if pushed_out <= 0:
        return 0
    left = connection.execute("SELECT 1 FROM outbox WHERE published = 1 LIMIT 1").fetchone()
    return pushed_out if left else 0


def _ends(connection: sqlite3.Connection) -> tuple[int, int]:
    """The first sequence that is there, and the last one that was given."""
    (newest,) = connection.execute(
        "SELECT max(seq) FROM sqlite_sequence WHERE name = 'outbox'"
    ).fetchone()
    (first,) = connection.execute("SELECT min(sequence) FROM outbox").fetchone()
    newest = newest or 0
    return (newest + 1 if first is None else first), newest


def _position(connection: sqlite3.Connection, query: EventQuery) -> int:
    """The position of the pipeline that is meant; 0 for none, or one that is forgotten."""
    if not query.pipeline:
        return 0
    found = connection.execute(
        "SELECT position FROM pipelines WHERE namespace = ? AND id = ?",
        (query.namespace, query.pipeline),
    ).fetchone()
    return found[0] if found else 0


def _conditions(query: EventQuery, position: int) -> tuple[str, tuple[object, ...]]:
    """What is asked for as words of SQL, with their values."""
    values: list[object] = []
    if position:
        words = "WHERE position = ?"
        values.append(position)
    elif query.pipeline:
        words = "NOT INDEXED WHERE namespace = ? AND pipeline = ?"
        values += (query.namespace, query.pipeline)
    else:
        words = (
            "NOT INDEXED WHERE (namespace = ? OR namespace = '' AND (? OR subject LIKE 'nodes/%'))"
        )
        values += (query.namespace, query.identities)
    words += " AND kind NOT IN ('manifest', 'copies')"
    if query.types:
        words += f" AND ({' OR '.join(['type GLOB ?'] * len(query.types))})"
        values += query.types
    if query.since is not None:
        words += " AND time >= ?"
        values.append(table.micros(query.since))
    if query.until is not None:
        words += " AND time < ?"
        values.append(table.micros(query.until))
    return words, tuple(values)
