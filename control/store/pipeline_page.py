"""A part of the list of pipelines, read from the store.

Rule. A list goes on behind a key that never changes: the position of a pipeline, which counts submissions, or when it
ended and its position. So what comes and goes between two pages moves nothing from one to the other.

Theory. There is no index for what a filter may ask: an index for each would cost each job more than a list costs its
reader. Instead a part of the table is looked through, `LOOKED_THROUGH` pipelines at most, and the caller goes on from
there. A part takes some milliseconds, in a thread, without the lock of the interpreter, and others read in between.

Three ways lead to few pipelines, and look through no table: names that are given, dead letters, which have an index,
and a namespace that has few.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any, Final

from control.core.pipeline_query import PageFound, PageKey, PipelineQuery
from control.store import table
from shoal.model import DeadLetter, PipelineState
from shoal.names import PipelineRef
from shoal.pipeline_filter import PipelineFilter
from shoal.pipeline_order import PipelineOrder
from shoal.text_pattern import is_pattern

LOOKED_THROUGH: Final = 10_000
"""Most pipelines that one part looks at."""

_FEW: Final = 1_000
_SOME_OF_NAMESPACE: Final = (
    f"SELECT count(*) FROM (SELECT 1 FROM pipelines WHERE namespace = ? LIMIT {_FEW})"
)
_TERMINAL: Final = int(min(state for state in PipelineState if state.terminal))


class _Where:
    """What has to hold, joined by AND."""

    def __init__(self) -> None:
        self.terms: list[str] = []
        self.values: list[Any] = []

    def add(self, term: str, *values: object) -> None:
        self.terms.append(term)
        self.values += values


def page(
    connection: sqlite3.Connection, query: PipelineQuery, limit: int, behind: PageKey | None
) -> PageFound:
    """Read the next pipelines behind a key, `limit` at most; there may be none although more are left."""
    where = _where(query)
    if query.order is PipelineOrder.ENDED:
        return _by_end(connection, query, where, limit, behind)
    newest = query.order is PipelineOrder.NEWEST
    after, order, last = ("<", "DESC", "max") if newest else (">", "ASC", "min")
    few = query.among is not None or query.filter.dead_letters or _has_few(connection, query)
    # Of many, the index by namespace would have each part sort all of them.
    where.add(f"{'' if few else '+'}namespace = ?", query.namespace)
    if behind is not None:
        where.add(f"position {after} ?", behind[0])
    through = 0
    if not few:
        found = connection.execute(
            f"SELECT {last}(position) FROM pipelines"
            + ("" if behind is None else f" WHERE position {after} ?"),
            behind or (),
        ).fetchone()
        if found[0] is None:
            return PageFound((), None)
        # Positions have few gaps but those of pipelines that were forgotten, behind which the next part begins.
        through = found[0] - LOOKED_THROUGH if newest else found[0] + LOOKED_THROUGH
        where.add(f"position {'>' if newest else '<'}= ?", through)
    rows = connection.execute(
        f"SELECT position, id FROM pipelines WHERE {' AND '.join(where.terms)} "
        f"ORDER BY position {order} LIMIT ?",
        (*where.values, limit + 1),
    ).fetchall()
    names = tuple(
        ((position,), PipelineRef(query.namespace, one)) for position, one in rows[:limit]
    )
    if len(rows) > limit:
        return PageFound(names, names[-1][0])
    return PageFound(names, None if few else (max(through, 0),))


def _by_end(
    connection: sqlite3.Connection,
    query: PipelineQuery,
    where: _Where,
    limit: int,
    behind: PageKey | None,
) -> PageFound:
    within, values = "namespace = ? AND end_time IS NOT NULL", [query.namespace]
    of_index = _Where()
    of_index.add(within, *values)
    if behind is not None:
        of_index.add("(end_time, position) < (?, ?)", *behind)
    looked_at = "FROM pipelines INDEXED BY pipelines_by_end WHERE"
    newest = "ORDER BY end_time DESC, position DESC"
    end = connection.execute(
        f"SELECT end_time, position {looked_at} {' AND '.join(of_index.terms)} {newest} "
        f"LIMIT 1 OFFSET {LOOKED_THROUGH}",
        of_index.values,
    ).fetchone()
    if end is not None:
        of_index.add("(end_time, position) >= (?, ?)", *end)
    rows = connection.execute(
        f"SELECT end_time, position, id {looked_at} "
        f"{' AND '.join([*of_index.terms, *where.terms])} {newest} LIMIT ?",
        (*of_index.values, *where.values, limit + 1),
    ).fetchall()
    names = tuple(
        ((time, position), PipelineRef(query.namespace, one))
        for time, position, one in rows[:limit]
    )
    if len(rows) > limit:
        return PageFound(names, names[-1][0])
    return PageFound(names, end)


def _has_few(connection: sqlite3.Connection, query: PipelineQuery) -> bool:
    (count,) = connection.execute(_SOME_OF_NAMESPACE, (query.namespace,)).fetchone()
    return bool(count < _FEW)


def _where(query: PipelineQuery) -> _Where:
    wanted, where = query.filter, _Where()
    if wanted.states:
        where.add(f"state IN ({_numbers(wanted.states)})")
    if wanted.dead_letters:
        where.add(f"dead_letter = {int(DeadLetter.KEPT)}")
    _add_lasting(wanted, where)
    if query.among is not None:
        where.add("id IN (SELECT value FROM json_each(?))", table.as_json(sorted(query.among)))
    if query.ever_on:
        where.add(
            "EXISTS (SELECT 1 FROM attempts WHERE attempts.namespace = pipelines.namespace "
            "AND attempts.pipeline = pipelines.id AND attempts.node = ?)",
            query.ever_on,
        )
    if query.job_states:
        where.add(
            f"(state < {_TERMINAL} OR EXISTS (SELECT 1 FROM json_each(job_counts) "
            f"WHERE json_extract(value, '$[0]') IN ({_numbers(query.job_states)})))"
        )
    return where


def _add_lasting(wanted: PipelineFilter, where: _Where) -> None:
    for column, pattern in (("name", wanted.name), ("creator", wanted.creator)):
        if not pattern:
            continue
        if is_pattern(pattern):
            where.add(f"{column} GLOB ?", pattern.replace("[", "[[]"))
        else:
            where.add(f"instr({column}, ?) > 0", pattern)
    for key, value in wanted.labels.items():
        where.add(
            "labels <> '{}' AND EXISTS (SELECT 1 FROM json_each(labels) AS label WHERE label.key = ?"
            + (" AND label.value = ?)" if value else ")"),
            *((key, value) if value else (key,)),
        )
    if wanted.since_time is not None:
        where.add("create_time >= ?", table.micros(wanted.since_time))
    if wanted.until_time is not None:
        where.add("create_time < ?", table.micros(wanted.until_time))


def _numbers(states: Collection[int]) -> str:
    return ", ".join(str(int(state)) for state in sorted(states))
