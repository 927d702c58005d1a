"""Tables as lists of fields: each says once which columns hold an attribute of a row, and how."""

# The values of columns are whatever SQLite returns.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any, Generic, TypeVar

from shoal.model import NO_REASON, Capacity, Reason, ReasonCode
from shoal.names import AttemptRef, JobRef, PipelineRef

RowT = TypeVar("RowT")

Values = Sequence[Any]
"""What is bound to the question marks of one statement, or one row of an answer."""

_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def as_json(value: object) -> str:
    """JSON as short as it can be."""
    return _JSON.encode(value)


Write = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of an attribute: what each holds is found at a path from the row, and is written as it is, or made.

    `read` makes the attribute of the values of all of them.
    """

    attribute: str
    names: tuple[str, ...]
    paths: tuple[str, ...]
    writes: tuple[Write | None, ...]
    read: Callable[..., Any]


def _column(attribute: str, write: Write | None, read: Callable[..., Any]) -> Columns:
    return Columns(attribute, (attribute,), (attribute,), (write,), read)


_SIZES = (32, 16, 8, 4, 2, 1)


class Many:
    """A statement that takes several rows at once, `head` and `tail` around their marks.

    Each step of a statement lets go of the interpreter, and has to get it back from the event loop, which may take
    milliseconds: what is written with a row for each step waits as often as it has rows.
    """

    def __init__(self, head: str, marks: str, tail: str = "") -> None:
        self._texts = {size: f"{head}{', '.join([marks] * size)}{tail}" for size in _SIZES}

    def run(self, connection: sqlite3.Connection, rows: Iterable[Values]) -> None:
        """Carry it out for all rows, in their order."""
        left = tuple(rows)
        done = 0
        for size in _SIZES:
            while len(left) - done >= size:
                part = left[done : done + size]
                connection.execute(self._texts[size], tuple(chain.from_iterable(part)))
                done += size


class Table(Generic[RowT]):
    """A table whose rows are of one class; its first columns are its key.

    Args:
        name: Name of the table.
        make: The class of its rows.
        fields: All attributes, in the order of the columns.
    """

    def __init__(self, name: str, make: type[RowT], *fields: Columns) -> None:
        self._make = make
        self._fields = fields
        self._paths = attrgetter(*chain.from_iterable(field.paths for field in fields))
        writes = chain.from_iterable(field.writes for field in fields)
        self._writes = [(at, write) for at, write in enumerate(writes) if write is not None]
        names = tuple(chain.from_iterable(field.names for field in fields))
        key, others = fields[0].names, names[len(fields[0].names) :]
        marks = f"({', '.join('?' * len(names))})"
        self.put = Many(f"INSERT OR REPLACE INTO {name} ({', '.join(names)}) VALUES ", marks)
        self.add = Many(f"INSERT INTO {name} ({', '.join(names)}) VALUES ", marks)
        self.update = Many(
            f"WITH new ({', '.join(f'new_{one}' for one in names)}) AS (VALUES ",
            marks,
            f") UPDATE {name} SET {', '.join(f'{one} = new_{one}' for one in others)} FROM new "
            f"WHERE {' AND '.join(f'{one} = new_{one}' for one in key)}",
        )
        self.select = f"SELECT {', '.join(names)} FROM {name}"

    def values(self, rows: Iterable[RowT]) -> Iterator[Values]:
        """What is bound for each row."""
        for row in rows:
            found = list(self._paths(row))
            for at, write in self._writes:
                found[at] = write(found[at])
            yield found

    def row(self, values: Sequence[Any]) -> RowT:
        """Make a row of what `select` returned."""
        found: dict[str, Any] = {}
        at = 0
        for field in self._fields:
            end = at + len(field.names)
            found[field.attribute] = field.read(*values[at:end])
            at = end
        return self._make(**found)


def plain(*attributes: str) -> tuple[Columns, ...]:
    """Attributes that are kept as they are."""
    return tuple(_column(one, None, lambda value: value) for one in attributes)


def number(attribute: str, make: Callable[[int], Any]) -> Columns:
    """An attribute that is a number to the store: of an enum, say, or a truth value."""
    return _column(attribute, int, make)


def word(attribute: str, make: Callable[[str], Any]) -> Columns:
    """An attribute that is a text to the store: of an enum, say."""
    return _column(attribute, str, make)


def moment(*attributes: str) -> tuple[Columns, ...]:
    """Moments, or None."""
    return tuple(_column(one, micros, moment_of) for one in attributes)


def listed(
    attribute: str, read: Callable[[Any], Any], write: Callable[[Any], Any] = list
) -> Columns:
    """An attribute that is JSON to the store, or NULL for None."""
    empty = as_json(write(()))

    def written(value: Any) -> str | None:
        if not value:
            return None if value is None else empty
        return as_json(write(value))

    return _column(
        attribute, written, lambda text: None if text is None else read(json.loads(text))
    )


def name_of(
    attribute: str, kind: type[PipelineRef | JobRef | AttemptRef], *columns: str
) -> Columns:
    """The parts of a name."""
    paths = tuple(f"{attribute}.{one}" for one in columns)
    return Columns(attribute, columns, paths, (None,) * len(columns), kind)


def pipeline_name(column: str) -> Columns:
    """The namespace and the id of a pipeline, which is in this column."""
    names = ("namespace", column)
    return Columns("ref", names, ("ref.namespace", "ref.pipeline"), (None, None), PipelineRef)


JOB = ("namespace", "pipeline", "job")

REASON = Columns(
    "reason",
    ("reason_code", "reason_number", "reason_message"),
    ("reason.code", "reason.number", "reason.message"),
    (str, None, None),
    lambda code, number, message: Reason(ReasonCode(code), number, message),
)

STOP = Columns(
    "stop",
    ("stopped", "stop_code", "stop_number", "stop_message"),
    ("stop",) * 4,
    (
        lambda stop: int(stop is not None),
        lambda stop: str((stop or NO_REASON).code),
        lambda stop: (stop or NO_REASON).number,
        lambda stop: (stop or NO_REASON).message,
    ),
    lambda stopped, *reason: REASON.read(*reason) if stopped else None,
)

SUBJECT = Columns(
    "subject",
    ("pipeline", "subject"),
    ("subject", "subject"),
    (lambda subject: subject.split("/")[1], None),
    lambda _, subject: subject,
)

CAPACITY = Columns(
    "capacity",
    ("cpus", "memory_bytes", "devices"),
    ("capacity.cpus", "capacity.memory_bytes", "capacity.devices"),
    (None, None, as_json),
    lambda cpus, memory_bytes, devices: Capacity(cpus, memory_bytes, tuple(json.loads(devices))),
)


@lru_cache(256)
def micros(moment: datetime | None) -> int | None:
    """Microseconds since 1970 in UTC."""
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND


def moment_of(micros: int | None) -> Any:
    """The moment of so many microseconds since 1970, or None."""
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)
