"""Structured logging: one line on stderr for each fact, with its fields, without secrets of addresses.

A process calls `setup` once, at its root. All other code asks the standard library for a logger and
hands fields over by name:

    LOG = logging.getLogger(__name__)
    LOG.info("attempt started", extra=fields(name="pipelines/p/jobs/j/attempts/1", pid=4711))
"""

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO, cast

from shoal.redaction import redacted

_FIELDS = "shoal_fields"
_PLAIN = re.compile(r"[^\s\"=\\]+")
_OTHER = "other"


class LogFormat(StrEnum):
    """How a line is written: for people, or for programs."""

    TEXT = "text"
    JSON = "json"


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Return what a logging call takes as `extra`; any name will do, the record keeps its own."""
    return {_FIELDS: values}


def setup(
    process: str,
    *,
    level: str = "INFO",
    log_format: LogFormat = LogFormat.TEXT,
    stream: TextIO | None = None,
) -> None:
    """Send every log line of this process to stderr, or to `stream`.

    Args:
        process: what this process is, such as `agent`; stands in every line.
        level: name of the lowest level that is written.
        log_format: text for people, JSON for programs.
        stream: where to, instead of stderr.

    Raises:
        ValueError: for a level that does not exist.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"log level {level!r} does not exist; use DEBUG, INFO, WARNING or ERROR")
    writer = logging.StreamHandler(stream or sys.stderr)
    writer.setFormatter(
        JsonFormatter(process) if log_format is LogFormat.JSON else TextFormatter(process)
    )
    root = logging.getLogger()
    root.handlers[:] = [writer]
    root.setLevel(number)


class _Formatter(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process


class TextFormatter(_Formatter):
    """`2026-01-31T12:00:00.000Z INFO agent edge_agent.agent_shell attempt started pid=4711`."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record, its fields after the message, and what was raised on lines beneath."""
        words = [
            _time(record),
            record.levelname,
            self._process,
            record.name,
            # One record is one line, whatever was put into the message.
            record.getMessage().replace("\r", "\\r").replace("\n", "\\n"),
            *(f"{name}={_plain(value)}" for name, value in _fields(record).items()),
        ]
        line = " ".join(words)
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return redacted(line)


class JsonFormatter(_Formatter):
    """One JSON object a line: time, level, process, logger, message, fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record; a value that JSON does not know is written as its text."""
        entry: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if found := _fields(record):
            entry["fields"] = found
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        # What is hidden holds no quotes, so the line stays JSON.
        return redacted(json.dumps(entry, ensure_ascii=False, default=str))


@dataclass(eq=False)
class CountedLog:
    """Counts what may come by the thousand, and says so at most once a period for each reason.

    The first of a reason is said at once, so that nothing waits to be noticed; then one line a
    period carries how many there were since the last. `counts` always has the true totals.

    Args:
        logger: where lines go.
        clock: seconds on a monotonic clock.
        period_seconds: the least time between two lines of one reason.
        reasons_max: how many reasons are counted each by itself; more are counted as `other`, since
            a reason may come from outside and memory may not grow with it.
    """

    logger: logging.Logger
    clock: Callable[[], float]
    _: KW_ONLY
    period_seconds: float = 60.0
    reasons_max: int = 256
    counts: dict[str, int] = field(default_factory=dict[str, int])
    """How often each reason was given so far."""
    _said: dict[str, tuple[float, int]] = field(default_factory=dict[str, tuple[float, int]])

    def warn(self, reason: str, **details: object) -> None:
        """Count one more for `reason`; `details` describe this one and are logged if it is said."""
        if reason not in self.counts and len(self.counts) >= self.reasons_max:
            reason = _OTHER
        total = self.counts[reason] = self.counts.get(reason, 0) + 1
        now = self.clock()
        said_at, said_total = self._said.get(reason, (None, 0))
        if said_at is not None and now - said_at < self.period_seconds:
            return
        self._said[reason] = (now, total)
        self.logger.warning(reason, extra=fields(**details, count=total - said_total, total=total))


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    return cast("Mapping[str, Any]", getattr(record, _FIELDS, {}))


def _plain(value: object) -> str:
    """Quote what would not be one word; JSON's quoting keeps it on one line."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
