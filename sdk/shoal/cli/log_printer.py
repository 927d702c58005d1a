"""What jobs print, to our own stdout and stderr: as it is, or line by line with times and the job's name."""

import os
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import BinaryIO

import click

from shoal.view import LIVE_LOG_BYTES_MAX, JobView, LogChunk, LogStream

_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_red", "bright_cyan")
_LINE_MAX = 64 * 1024
_LAST_BYTES = 8 * 1024

_Output = tuple[str, LogStream]
"""One of the two outputs of an attempt."""


@dataclass(slots=True)
class LogPrinter:
    """Writes chunks; with `prefixed` or `timed`, a line waits until it is complete.

    Where lines do not begin with their job, what another attempt prints is announced on stderr by a line
    of its own, from the second attempt on.

    Args:
        stdout: where standard output goes.
        stderr: where standard error goes.
        prefixed: whether every line begins with its job.
        timed: whether every line begins with the time at which its beginning was printed; chunks
            have to have theirs.
        coloured: whether prefixes have colours.
        pipelines: whether prefixes name the pipeline, too.
        together: whether what is written to one is seen after the other's, as on a terminal.
        incomplete: why not everything came; empty when it did.
    """

    stdout: BinaryIO
    stderr: BinaryIO
    prefixed: bool
    timed: bool = False
    coloured: bool = False
    pipelines: bool = False
    together: bool = False
    incomplete: str = ""
    printed_bytes: int = 0
    _ends: dict[_Output, int] = field(default_factory=dict[_Output, int])
    _rest: dict[_Output, tuple[bytes, datetime | None]] = field(
        default_factory=dict[_Output, tuple[bytes, datetime | None]]
    )
    _colours: dict[str, str] = field(default_factory=dict[str, str])
    _last: bytes = b""
    _open: dict[LogStream, str] = field(default_factory=dict[LogStream, str])
    _attempt: str = ""

    def write(self, chunk: LogChunk) -> None:
        """Write one chunk, or its complete lines."""
        self.printed_bytes += len(chunk.data)
        self._ends[chunk.attempt, chunk.stream] = chunk.offset + len(chunk.data)
        if chunk.stream is LogStream.STDERR:
            self._last = (self._last + chunk.data)[-_LAST_BYTES:]
        if not self.prefixed and chunk.data:
            self._announce(chunk.attempt)
        if not self.prefixed and not self.timed:
            self._write_plainly(chunk)
            return
        key = (chunk.attempt, chunk.stream)
        before, began = self._rest.pop(key, (b"", chunk.print_time))
        lines = (before + chunk.data).split(b"\n")
        rest = lines.pop()
        if len(rest) > _LINE_MAX:  # a program that never ends its line is shown all the same
            lines.append(rest)
            rest = b""
        if rest:
            self._rest[key] = (rest, chunk.print_time if lines else began)
        times = (began, *[chunk.print_time] * (len(lines) - 1))
        self._out(
            chunk.stream,
            b"".join(
                self._line(chunk.attempt, line, moment)
                for line, moment in zip(lines, times, strict=False)
            ),
        )

    def said_last(self, words: str) -> bool:
        """Whether the end of `words` is among the last that was written to stderr."""
        line = words.strip().rpartition("\n")[2]
        return line in self._last.decode("utf-8", "replace")

    def cut(self, archived: Collection[str]) -> tuple[str, ...]:
        """Name the logs of which only the beginning came; those of `archived` attempts are whole."""
        return tuple(
            f"{stream.name.lower()} of {attempt}"
            for (attempt, stream), end in self._ends.items()
            if end == LIVE_LOG_BYTES_MAX and attempt not in archived
        )

    def close(self) -> None:
        """Write what is left of lines that were never ended."""
        for (attempt, stream), (rest, began) in self._rest.items():
            self._out(stream, self._line(attempt, rest, began))
        self._rest.clear()
        for stream in self._open if self.together else ():
            self._out(stream, b"\n")
        self._open.clear()

    def _announce(self, attempt: str) -> None:
        """Say that what follows is another attempt's; of the first one that is nothing to say."""
        if attempt == self._attempt:
            return
        *_, job, _, number = attempt.split("/")
        if self._attempt or number != "1":
            for stream in self._open:
                self._out(stream, b"\n")
            self._open.clear()
            self._out(LogStream.STDERR, f"--- attempt {number} of {job} ---\n".encode())
        self._attempt = attempt

    def _line(self, attempt: str, line: bytes, moment: datetime | None) -> bytes:
        time = b""
        if self.timed:
            said = (
                "-"
                if moment is None
                else moment.astimezone(UTC)
                .isoformat(timespec="milliseconds")
                .replace("+00:00", "Z")
            )
            time = f"{said:<24} ".encode()
        return time + (self._prefix(attempt) if self.prefixed else b"") + line + b"\n"

    def _write_plainly(self, chunk: LogChunk) -> None:
        """Write what was printed and nothing more, but never two attempts on one line."""
        if not chunk.data:
            return
        if self._open.pop(chunk.stream, chunk.attempt) != chunk.attempt:
            self._out(chunk.stream, b"\n")
        self._out(chunk.stream, chunk.data)
        if not chunk.data.endswith(b"\n"):
            self._open[chunk.stream] = chunk.attempt

    def _out(self, stream: LogStream, data: bytes) -> None:
        if not data:
            return
        target = self.stdout if stream is LogStream.STDOUT else self.stderr
        target.write(data)
        target.flush()

    def _prefix(self, attempt: str) -> bytes:
        match attempt.split("/"):
            case [_, pipeline, _, job, _, number]:
                job = f"{pipeline}/{job}" if self.pipelines else job
                name = job if number == "1" else f"{job}#{number}"
            case _:
                job = name = attempt
        text = f"{name} | "
        if self.coloured:
            colour = self._colours.setdefault(job, _COLOURS[len(self._colours) % len(_COLOURS)])
            text = click.style(text, fg=colour)
        return text.encode()


def tell_cut(printer: LogPrinter, jobs: Iterable[JobView]) -> bool:
    """Say on stderr what was not printed; return whether there is anything."""
    cut = printer.cut(
        [
            manifest.attempt
            for job in jobs
            for manifest in (job.manifest, *[attempt.manifest for attempt in job.attempts])
            if manifest is not None
        ]
    )
    for log in cut:
        click.echo(
            f"{log}: only its first {LIVE_LOG_BYTES_MAX >> 20} MiB are printed; the rest is on "
            "its way to the archive, or on the node for a while: ask again",
            err=True,
        )
    if printer.incomplete:
        click.echo(f"not everything was printed: {printer.incomplete}", err=True)
    return bool(cut or printer.incomplete)


def standard_printer(*, prefixed: bool, pipelines: bool = False, timed: bool = False) -> LogPrinter:
    """Make a printer to our own stdout and stderr."""
    stdout, stderr = sys.stdout.buffer, sys.stderr.buffer
    terminal = sys.stdout.isatty()
    return LogPrinter(
        stdout,
        stderr,
        prefixed,
        timed=timed,
        coloured=terminal,
        pipelines=pipelines,
        together=terminal or _one_file(),
    )


def _one_file() -> bool:
    """Whether stdout and stderr are the same file, as with `2>&1`."""
    try:
        return os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except (OSError, ValueError):
        return False  # one of them is no file at all
