"""Tables as lists of fields: each says once which columns hold an attribute of a row, and how."""

# The values of columns are whatever SQLite returns.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import attrgetter
from typing import Any, Generic, TypeVar

from shoal.model import Capacity, Reason, ReasonCode
from shoal.names import AttemptRef, JobRef, PipelineRef

RowT = TypeVar("RowT")

Values = tuple[Any, ...]
"""What is bound to the question marks of one statement, or one row of an answer."""

_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of an attribute; `write` makes their values of it, `read` makes it of their values."""

    attribute: str
    names: tuple[str, ...]
    write: Callable[[Any], Values]
    read: Callable[..., Any]


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
        self._attributes = attrgetter(*(field.attribute for field in fields))
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
            parts = zip(self._fields, self._attributes(row), strict=True)
            yield tuple(chain.from_iterable(field.write(value) for field, value in parts))

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
    return tuple(
        Columns(one, (one,), lambda value: (value,), lambda value: value) for one in attributes
    )


def number(attribute: str, make: Callable[[int], Any]) -> Columns:
    """An attribute that is a number to the store: of an enum, say, or a truth value."""
    return Columns(attribute, (attribute,), lambda value: (int(value),), make)


def word(attribute: str, make: Callable[[str], Any]) -> Columns:
    """An attribute that is a text to the store: of an enum, say."""
    return Columns(attribute, (attribute,), lambda value: (str(value),), make)


def moment(*attributes: str) -> tuple[Columns, ...]:
    """Moments, or None."""
    return tuple(
        Columns(one, (one,), lambda value: (micros(value),), moment_of) for one in attributes
    )


def listed(
    attribute: str, read: Callable[[Any], Any], write: Callable[[Any], Any] = list
) -> Columns:
    """An attribute that is JSON to the store, or NULL for None."""
    return Columns(
        attribute,
        (attribute,),
        lambda value: (None if value is None else as_json(write(value)),),
        lambda text: None if text is None else read(json.loads(text)),
    )


def name_of(
    attribute: str, kind: type[PipelineRef | JobRef | AttemptRef], *columns: str
) -> Columns:
    """The parts of a name."""
    return Columns(attribute, columns, attrgetter(*columns), kind)


def pipeline_name(column: str) -> Columns:
    """The namespace and the id of a pipeline, which is in this column."""
    return Columns(
        "ref", ("namespace", column), lambda ref: (ref.namespace, ref.pipeline), PipelineRef
    )


JOB = ("namespace", "pipeline", "job")

REASON = Columns(
    "reason",
    ("reason_code", "reason_number", "reason_message"),
    lambda reason: (str(reason.code), reason.number, reason.message),
    lambda code, number, message: Reason(ReasonCode(code), number, message),
)

STOP = Columns(
    "stop",
    ("stopped", "stop_code", "stop_number", "stop_message"),
    lambda stop: (int(stop is not None), *REASON.write(stop or Reason())),
    lambda stopped, *reason: REASON.read(*reason) if stopped else None,
)

SUBJECT = Columns(
    "subject",
    ("pipeline", "subject"),
    lambda subject: (subject.split("/")[1], subject),
    lambda _, subject: subject,
)

CAPACITY = Columns(
    "capacity",
    ("cpus", "memory_bytes", "devices"),
    lambda one: (one.cpus, one.memory_bytes, as_json(one.devices)),
    lambda cpus, memory_bytes, devices: Capacity(cpus, memory_bytes, tuple(json.loads(devices))),
)


def micros(moment: datetime | None) -> int | None:
    """Microseconds since 1970 in UTC."""
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND


def moment_of(micros: int | None) -> Any:
    """The moment of so many microseconds since 1970, or None."""
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)


def as_json(value: object) -> str:
    """JSON as short as it can be."""
    return _JSON.encode(value)
