"""What attempts print, as files: `{ns}/{pipeline}/{job}/{epoch}-{n}.stdout|stderr`, with their times.

The agent sends pieces in order and again after a cut; the size of the file says what is known. A
piece that would leave a gap is dropped and counted: the archive has the whole log. Nothing is
fsynced: a power cut may take the last lines from this copy, and from no other.
"""

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from control.front.log_times import LogTimes, last_lines, line_begin, log_size, note_time
from services.runtime.log import CountedLog
from shoal.names import AttemptRef, PipelineRef
from shoal.session.log_piece import LogPiece
from shoal.view import LogStream

LOG = logging.getLogger(__name__)

LOG_BYTES_MAX = 64 * 1024 * 1024
"""Most that is kept of one output, whatever an agent sends."""

READ_BYTES = 256 * 1024
_NAMES = {LogStream.STDOUT: "stdout", LogStream.STDERR: "stderr"}


class LogFolder:
    """Keeps logs under `root` and tells followers of their growth.

    Args:
        root: the folder; made when the first log comes.
        clock: seconds on a monotonic clock.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float]) -> None:
        self._root = root
        self._refused = CountedLog(LOG, clock)
        self._followers: dict[PipelineRef, set[asyncio.Event]] = {}

    async def append(self, pieces: Collection[LogPiece]) -> None:
        """Keep pieces; what is known already is dropped. Returns when the files have them."""
        if not pieces:
            return
        refused = await asyncio.to_thread(lambda: [*self._append(pieces)])
        for why, piece in refused:
            self._refused.warn(why, attempt=piece.ref.name, offset=piece.offset)
        for ref in {piece.ref.pipeline_ref for piece in pieces}:
            for grown in self._followers.get(ref, ()):
                grown.set()

    def size(self, ref: AttemptRef, stream: LogStream) -> int:
        """Return how many bytes of an output are kept."""
        return log_size(self._path(ref, stream))

    async def read(self, ref: AttemptRef, stream: LogStream, offset: int) -> bytes:
        """Return the next bytes from `offset` on; empty when there are none yet."""
        return await asyncio.to_thread(_read, self._path(ref, stream), offset)

    def times(self, ref: AttemptRef, stream: LogStream, until: datetime | None = None) -> LogTimes:
        """Return the times of an output, of which nothing was read yet."""
        return LogTimes(self._path(ref, stream), until)

    async def last_lines(self, ref: AttemptRef, stream: LogStream, count: int) -> int:
        """Return where the last lines of an output begin."""
        return await asyncio.to_thread(last_lines, self._path(ref, stream), count)

    async def since(self, ref: AttemptRef, stream: LogStream, moment: datetime) -> int:
        """Return where the first line begins of which something was printed at a moment or later."""
        return await asyncio.to_thread(_since, self._path(ref, stream), moment)

    @contextlib.contextmanager
    def follow(self, ref: PipelineRef) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever a log of the pipeline grows."""
        grown = asyncio.Event()
        self._followers.setdefault(ref, set()).add(grown)
        try:
            yield grown
        finally:
            followers = self._followers[ref]
            followers.discard(grown)
            if not followers:
                del self._followers[ref]

    async def keep_only(self, known: Callable[[PipelineRef], bool]) -> int:
        """Remove the logs of pipelines that are forgotten; returns how many there were."""
        found = await asyncio.to_thread(self._pipelines)
        forgotten = [ref for ref in found if not known(ref)]
        for ref in forgotten:
            await asyncio.to_thread(
                shutil.rmtree, self._root / ref.namespace / ref.pipeline, ignore_errors=True
            )
        return len(forgotten)

    def _append(self, pieces: Collection[LogPiece]) -> Iterator[tuple[str, LogPiece]]:
        for piece in pieces:
            path = self._path(piece.ref, piece.stream)
            try:
                with _opened(path) as file:
                    size = file.tell()
                    if piece.offset > size:
                        yield "piece of a log dropped: what is before it is missing", piece
                        continue
                    new = piece.data[size - piece.offset :][: max(0, LOG_BYTES_MAX - size)]
                    if new and piece.print_time is not None:
                        note_time(path, size, piece.print_time)
                    file.write(new)
            except OSError as error:
                # The log in the archive is whole; jobs do not end for this copy's sake.
                yield f"piece of a log dropped: {error.strerror}", piece

    def _pipelines(self) -> list[PipelineRef]:
        return [PipelineRef(path.parent.name, path.name) for path in self._root.glob("*/*")]

    def _path(self, ref: AttemptRef, stream: LogStream) -> Path:
        name = f"{ref.epoch}-{ref.number}.{_NAMES[stream]}"
        return self._root / ref.namespace / ref.pipeline / ref.job / name


def _opened(path: Path) -> BinaryIO:
    """Open a log to write behind what it has; its folders are made with the first piece alone."""
    try:
        return path.open("ab")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")


def _since(path: Path, moment: datetime) -> int:
    times = LogTimes(path)
    times.refresh()
    begin = times.first_since(moment)
    return log_size(path) if begin is None else line_begin(path, begin)


def _read(path: Path, offset: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    try:
        return os.pread(descriptor, READ_BYTES, offset)
    finally:
        os.close(descriptor)
