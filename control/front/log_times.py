"""When what is in a log was printed: a file beside the log, `{log}.times`.

A mark of 16 bytes (little-endian: u64 offset, i64 microseconds since 1970) stands for each piece that an
agent sent with its time: what is in the log from there to the next mark was printed by then. An agent
looks ten times a second, so a line of a log has the time at which it was printed, to a tenth of a second.
A mark is written before its piece: a crash between the two leaves a mark that the next piece's own,
with the same offset, replaces.
"""

import os
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

MARKS_MAX = 1 << 20
"""What comes after so many pieces has the time of the last of them."""

_MARK = struct.Struct("<Qq")
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def note_time(log: Path, offset: int, moment: datetime) -> None:
    """Note that what is written to a log from `offset` on was printed by `moment`.

    Raises:
        OSError: it cannot be written.
    """
    with _beside(log).open("ab") as file:
        end = file.tell()
        if torn := end % _MARK.size:  # the power went while it was written
            file.truncate(end - torn)
        if end // _MARK.size < MARKS_MAX:
            file.write(_MARK.pack(offset, (moment - _BEGIN) // _MICROSECOND))


class LogTimes:
    """The times of one log, as far as they were read.

    Args:
        log: the log.
        until: what was printed at this moment or later is not wanted.

    Attributes:
        end: where that begins; None as long as nothing of it is known.
    """

    def __init__(self, log: Path, until: datetime | None = None) -> None:
        self.end: int | None = None
        self._until = None if until is None else (until - _BEGIN) // _MICROSECOND
        self._path = _beside(log)
        self._begins = array("Q")
        self._moments = array("q")

    def refresh(self) -> None:
        """Read what has been noted since; blocks."""
        try:
            with self._path.open("rb") as file:
                file.seek(len(self._begins) * _MARK.size)
                data = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return
        for begin, moment in _MARK.iter_unpack(data[: len(data) - len(data) % _MARK.size]):
            self._begins.append(begin)
            self._moments.append(moment)
            if self.end is None and self._until is not None and moment >= self._until:
                self.end = begin

    def cut(self, offset: int, data: bytes) -> Iterator[tuple[int, bytes, datetime | None]]:
        """Cut what lies at an offset of the log into pieces, each with the moment it was printed by."""
        end = offset + len(data)
        position = offset
        while position < end:
            index = bisect_right(self._begins, position)
            stop = min(self._begins[index], end) if index < len(self._begins) else end
            moment = _BEGIN + self._moments[index - 1] * _MICROSECOND if index else None
            yield position, data[position - offset : stop - offset], moment
            position = stop

    def first_since(self, moment: datetime) -> int | None:
        """Return where what was printed at a moment or later begins; None if nothing was.

        It is the beginning of the log if no times are known.
        """
        if not self._begins:
            return 0
        wanted = (moment - _BEGIN) // _MICROSECOND
        for begin, printed in zip(self._begins, self._moments, strict=True):
            if printed >= wanted:
                return begin
        return None


def _beside(log: Path) -> Path:
    return log.with_name(f"{log.name}.times")


def log_size(log: Path) -> int:
    """Return how many bytes a log has; blocks."""
    try:
        return log.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def line_begin(log: Path, offset: int) -> int:
    """Return where the line begins that an offset of a log lies in; blocks."""
    return _backwards(log, offset, 0)


def last_lines(log: Path, count: int) -> int:
    """Return where the last lines of a log begin; an unfinished one counts; blocks."""
    return _backwards(log, max(0, log_size(log) - 1), count - 1)


def _backwards(log: Path, end: int, skipped: int) -> int:
    """Return what follows the line break before `end`, behind `skipped` others; 0 if there is none."""
    try:
        descriptor = os.open(log, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    try:
        while end > 0:
            begin = max(0, end - (64 << 10))
            part = os.pread(descriptor, end - begin, begin)
            breaks = part.count(b"\n")
            if breaks > skipped:
                place = len(part)
                for _ in range(skipped + 1):
                    place = part.rindex(b"\n", 0, place)
                return begin + place + 1
            skipped -= breaks
            end = begin
        return 0
    finally:
        os.close(descriptor)
