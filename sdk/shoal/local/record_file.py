"""A file of records: what a client keeps of a stream that it feeds, and what a recording is.

Layout: one line `shoal-records 1 {JSON}`, then blocks (docs/architecture.md, section 3) with their
CRC-32C; a block of kind 6 has no body, and its `first` says when the ones after it came, in
microseconds since the recording began. The JSON says what the records are; `first` is the sequence
of the first one. The last block of a complete file is an END whose `first` is the total and whose
body is 32 bytes: SHA-256(SHA-256(all tables) + SHA-256(all records)), which does not depend on how
records were packed. A file without END was not completed; what is torn at its end is cut off when
it is opened.
"""

import fcntl
import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from shoal.errors import ShoalError
from shoal.job.block import CHECKED, DATA, END, HEADER, MAX_RECORD_BYTES
from shoal.local.checked_block import BrokenBlockError, Records, check_table, crc32c, opened, sealed

TIME = 6
"""Kind of a block that says when those after it came: `first` is in microseconds."""

_MAGIC = b"shoal-records 1 "
_HEADER_BYTES_MAX = 64 * 1024
_BODY_BYTES_MAX = MAX_RECORD_BYTES + 4


class RecordFileError(ShoalError):
    """A file that holds no records, or that another process writes."""

    def __init__(self, message: str) -> None:
        super().__init__("RECORD_FILE", message)


@dataclass(frozen=True, slots=True)
class _Place:
    first: int
    count: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.first + self.count


class RecordFile:
    """Records in a file, appended and read; one process at a time writes it.

    Args:
        path: the file, which is made if it is not there.
        header: what the records are, for a new file.
        writable: whether to append; what is torn at its end is then cut off.

    Raises:
        RecordFileError: It is another kind of file, it is damaged, another process writes it, or it
            cannot be read or written at all.
    """

    def __init__(
        self, path: Path, header: Mapping[str, Any] | None = None, *, writable: bool = True
    ) -> None:
        self.path = path
        self.header: Mapping[str, Any] = dict(header or {})
        self.total: int | None = None
        """How many records there are in all, with those before the first one, once that is known."""
        self.size_bytes = 0
        """Bytes of the blocks, END left out."""
        self.marked = 0
        """When the last records came, in microseconds since the recording began."""
        self._places: list[_Place] = []
        self._tables = hashlib.sha256()
        self._records = hashlib.sha256()
        self._digest = b""
        self._file = _opened(path, writable=writable)
        try:
            if writable:
                self._claim()
            self._end = (
                self._read_header() if path.stat().st_size or not writable else self._begin()
            )
            self.base = self.next = int(self.header.get("first", 0))
            self._scan(writable=writable)
        except OSError as error:
            self._file.close()
            raise _unusable(path, error, writable=writable) from error
        except BaseException:
            self._file.close()
            raise

    @property
    def digest(self) -> str:
        """The digest of a complete file in hex; empty until then."""
        return self._digest.hex()

    def append(self, records: Records) -> None:
        """Write records, which follow on those before.

        Raises:
            ValueError: They do not.
            OSError: The disk is full or broken.
        """
        if records.first != self.next or self.total is not None:
            raise ValueError(f"record {records.first} cannot follow on {self.next - 1}")
        data = sealed(DATA, records.first, records.count, records.body)
        self._write(data)
        self._take(records, self._end - len(data))

    def mark(self, microseconds: int) -> None:
        """Write when what follows came, since the recording began.

        Raises:
            OSError: The disk is full or broken.
        """
        self._write(sealed(TIME, microseconds, 0, b""))
        self.marked = microseconds

    def end(self) -> None:
        """Write that there are no more.

        Raises:
            OSError: The disk is full or broken.
        """
        if self.total is None:
            self._digest = self._reckoned()
            self._write(sealed(END, self.next, 0, self._digest))
            self.total = self.next

    def begin(self, first: int) -> None:
        """Let an empty file begin with a record above 0.

        Raises:
            ValueError: It is not empty.
        """
        if self._places or self.total is not None:
            raise ValueError(f"{self.path} holds records already")
        self.header = {**self.header, "first": first}
        self._file.truncate(0)
        self._end = self._begin()
        self.base = self.next = first

    def place(self, sequence: int) -> int:
        """Return the number of the block that holds a record, or of the one that will."""
        return bisect_right(self._places, sequence, key=lambda place: place.end)

    def bytes_before(self, number: int) -> int:
        """Return how many bytes the blocks before one have."""
        if number >= len(self._places):
            return self.size_bytes
        return self._places[number].offset - self._places[0].offset

    def read(self, number: int) -> Records | None:
        """Return a block by its number; None if there are not so many.

        Raises:
            RecordFileError: It is not what was written.
            OSError: It cannot be read.
        """
        if number >= len(self._places):
            return None
        place = self._places[number]
        self._file.seek(place.offset)
        try:
            return opened(self._file.read(place.size) or b"")
        except BrokenBlockError as error:
            raise RecordFileError(f"{self.path} is damaged at {place.offset}: {error}") from error

    def sync(self) -> None:
        """Have the disk hold what was written."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; it can be opened again and continued."""
        self._file.close()

    def _claim(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RecordFileError(f"another process writes {self.path}; end it first") from error

    def _begin(self) -> int:
        line = _MAGIC + json.dumps(self.header, separators=(",", ":")).encode() + b"\n"
        self._file.seek(0)
        self._file.write(line)
        return len(line)

    def _read_header(self) -> int:
        self._file.seek(0)
        line, newline, _ = (self._file.read(_HEADER_BYTES_MAX) or b"").partition(b"\n")
        try:
            if not newline or not line.startswith(_MAGIC):
                raise ValueError(f"it begins with {line[:20]!r}")
            self.header = cast("Mapping[str, Any]", json.loads(line[len(_MAGIC) :]))
        except ValueError as error:
            raise RecordFileError(f"{self.path} is no file of records: {error}") from error
        return len(line) + 1

    def _scan(self, *, writable: bool) -> None:
        size = self.path.stat().st_size
        while True:
            found = self._next_block(self._end, size)
            if found is None:
                break
            kind, first, count, body = found
            offset = self._end
            self._end += HEADER.size + len(body)
            if kind == END:
                self._check_end(first, body)
                break
            if kind == TIME:
                self.marked = first
                continue
            records = Records(first, count, body)
            if first != self.next:
                raise RecordFileError(
                    f"{self.path} is damaged: record {first} follows on {self.next - 1}"
                )
            self._take(records, offset)
        if writable and self._end < size:
            self._file.truncate(self._end)

    def _next_block(self, offset: int, size: int) -> tuple[int, int, int, bytes] | None:
        """Read the block at `offset`; None where the file ends or is torn."""
        if offset + HEADER.size > size:
            return None
        self._file.seek(offset)
        kind, flags, _, count, first, length, crc = HEADER.unpack(self._file.read(HEADER.size))
        if kind not in {DATA, END, TIME} or not flags & CHECKED or length > _BODY_BYTES_MAX:
            return None
        if offset + HEADER.size + length > size:
            return None
        body = self._file.read(length)
        if crc32c(body) != crc or 4 * count > length:
            return None
        if kind == DATA:
            # The checksum is of the body alone, so its table says whether the count is right.
            try:
                check_table(Records(first, count, body))
            except BrokenBlockError:
                return None
        return kind, first, count, body

    def _check_end(self, total: int, digest: bytes) -> None:
        if total != self.next or digest != self._reckoned():
            raise RecordFileError(
                f"{self.path} is damaged: its end says {total} records with digest {digest.hex()}, "
                f"and it holds {self.next} with {self._reckoned().hex()}"
            )
        self.total, self._digest = total, digest

    def _take(self, records: Records, offset: int) -> None:
        size = HEADER.size + len(records.body)
        self._places.append(_Place(records.first, records.count, offset, size))
        self._tables.update(records.body[: 4 * records.count])
        self._records.update(records.body[4 * records.count :])
        self.next = records.end
        self.size_bytes += size

    def _reckoned(self) -> bytes:
        return hashlib.sha256(self._tables.digest() + self._records.digest()).digest()

    def _write(self, data: bytes) -> None:
        self._file.seek(self._end)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._end += len(data)


def _opened(path: Path, *, writable: bool) -> BinaryIO:
    try:
        if writable:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return path.open("r+b" if writable else "rb", buffering=0)
    except OSError as error:
        raise _unusable(path, error, writable=writable) from error


def _unusable(path: Path, error: OSError, *, writable: bool) -> RecordFileError:
    does = "written" if writable else "read"
    return RecordFileError(
        f"{path} cannot be {does}: {error.strerror} ({error.filename or path}); name a file that this "
        f"user may {'write' if writable else 'read'}"
    )
