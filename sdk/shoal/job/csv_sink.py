"""A job that writes the records of its input to a file of comma-separated values.

```yaml
table:
  run: python -m shoal.job.csv_sink --columns 'time,{name},{value}'
  local: true                       # beside `shoal run`; without it, on a board
  inputs: {rows: detector.found}
```

The pattern has a column between every two commas. A column is `TITLE=PATTERN` or PATTERN alone. In
a pattern, `{name}` stands for a field of the record: a key of a dict, a place in a list, `{a.b}`
for a field of a field; everything around it is kept. A pattern without braces is one of `time` (of
arrival, UTC), `sequence` (from 0), `record` (all of it).

What a program wrote stays as it wrote it: a record of a raw format is its text, byte for byte, also
where that could be read as JSON; its fields are read as JSON, and a number keeps its digits (`3.10`,
`1e3`).
"""

import argparse
import csv
import json
import re
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, List, Mapping, NamedTuple, Optional, Sequence, cast

from shoal import job
from shoal.job.process import current
from shoal.job.program import STREAM, Program

_FIELD = re.compile(r"\{([^{}]+)\}")
_dumps = json.JSONEncoder(ensure_ascii=False).encode
WORDS = ("time", "sequence", "record")


class PatternError(ValueError):
    """A column pattern that says nothing."""


class Written(NamedTuple):
    """A value beside the text that a program wrote for it."""

    text: str
    value: Any


class Column(NamedTuple):
    """One column: its title, and the pattern of its cells."""

    title: str
    pattern: str


def columns_of(text: str) -> List[Column]:
    """Read a pattern of columns.

    Raises:
        PatternError: A column has no field and is none of the known words.
    """
    columns: List[Column] = []
    for piece in text.split(","):
        part = piece.strip()
        title, equals, pattern = part.partition("=")
        if not equals:
            title, pattern = _FIELD.sub(r"\1", part), part
        if not _FIELD.search(pattern) and pattern not in WORDS:
            raise PatternError(
                "column {!r} has no {{field}} and is none of {}".format(part, ", ".join(WORDS))
            )
        columns.append(Column(title, pattern))
    return columns


def field(record: Any, path: str) -> Any:
    """A field of a record; empty text if it has none of that name."""
    value = record.value if isinstance(record, Written) else record
    for name in path.split("."):
        value = _part(value, name)
    return value


def _part(value: Any, name: str) -> Any:
    if isinstance(value, (str, Written)):
        return ""  # neither a text nor a number has parts
    try:
        return value[name] if hasattr(value, "keys") else value[int(name)]
    except (KeyError, IndexError, TypeError, ValueError):
        return ""


def cell(column: Column, record: Any, sequence: int, now: Callable[[], datetime]) -> str:
    """What a record has in a column."""
    if column.pattern == "time":
        return now().strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    if column.pattern == "sequence":
        return str(sequence)
    if column.pattern == "record":
        return text_of(record)
    return _FIELD.sub(lambda found: text_of(field(record, found.group(1))), column.pattern)


def text_of(value: Any) -> str:
    """A value as a cell has it: text as it is, anything else as JSON."""
    if isinstance(value, Written):
        return value.text
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "surrogateescape")
    if value is None:
        return ""
    try:
        return _json(value)
    except TypeError:
        return str(value)


def _json(value: Any) -> str:
    """Compact JSON in which numbers that were read keep their digits.

    Raises:
        TypeError: JSON has no such value.
    """
    if isinstance(value, Written):
        return value.text
    if isinstance(value, dict):
        members = cast(Mapping[Any, Any], value).items()
        return "{" + ",".join(_key(key) + ":" + _json(one) for key, one in members) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_json(one) for one in cast(Sequence[Any], value)) + "]"
    return _dumps(value)


def _key(key: Any) -> str:
    return _dumps(key if isinstance(key, str) else _dumps(key))


def write_rows(
    path: Path, columns: Sequence[Column], *, header: bool, now: Callable[[], datetime]
) -> None:
    """Write all records of the only input.

    Args:
        path: where to; it is made anew, unless the job goes on after others.
        columns: what of.
        header: whether the first line has the titles.
        now: the time.

    Raises:
        PatternError: The job has not exactly one input.
    """
    if len(job.inputs) != 1:
        raise PatternError("it has {} inputs; give it one".format(len(job.inputs)))
    ((_, port),) = job.inputs.items()
    sequence = job.context.first_round
    again = sequence > 0 and path.exists()
    with path.open(
        "a" if again else "w", newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        rows = csv.writer(file)
        if header and not again:
            rows.writerow([column.title for column in columns])
        for value in port:
            record = read(bytes(value)) if isinstance(value, (bytes, bytearray)) else value
            rows.writerow([cell(column, record, sequence, now) for column in columns])
            file.flush()
            sequence += 1


def read(record: bytes) -> Written:
    """Of a program with a raw format: its text, and what that is as JSON, if it is."""
    text = record.decode("utf-8", "surrogateescape")
    try:
        return Written(text, json.loads(text, parse_int=_number, parse_float=_number))
    except (ValueError, RecursionError):
        return Written(text, text)


def _number(digits: str) -> Written:
    return Written(digits, None)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Read the arguments and write the file."""
    parser = argparse.ArgumentParser(
        prog="python -m shoal.job.csv_sink",
        description="Write the records of the input to a CSV file.",
    )
    parser.add_argument(
        "--columns", default="record", help="for example 'time,{name},{value}'; default: record"
    )
    parser.add_argument("--file", default="", help="default: INPUT.csv in the job's results")
    parser.add_argument("--no-header", action="store_true", help="no line with the titles")
    given = parser.parse_args(arguments)
    try:
        columns = columns_of(given.columns)
    except PatternError as error:
        parser.error(str(error))

    def write() -> None:
        names = list(job.inputs)
        name = names[0] if names else "records"
        file = Path(job.context.results) / (given.file or "{}.csv".format(name))
        header = not given.no_header
        write_rows(file, columns, header=header, now=lambda: datetime.now(timezone.utc))

    Program(write, STREAM, None).run(current())
    return 0


if __name__ == "__main__":
    sys.exit(main())
