"""What jobs print, to our own stdout and stderr: as it is, or line by line with the job's name."""

import sys
from dataclasses import dataclass, field
from typing import BinaryIO

import click

from shoal.view import LogChunk, LogStream

_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_red", "bright_cyan")
_LINE_MAX = 64 * 1024
_LAST_BYTES = 8 * 1024


@dataclass(slots=True)
class LogPrinter:
    """Writes chunks; with `prefixed`, a line waits until it is complete.

    Args:
        stdout: where standard output goes.
        stderr: where standard error goes.
        prefixed: whether every line begins with its job.
        coloured: whether prefixes have colours.
    """

    stdout: BinaryIO
    stderr: BinaryIO
    prefixed: bool
    coloured: bool = False
    _rest: dict[tuple[str, LogStream], bytes] = field(
        default_factory=dict[tuple[str, LogStream], bytes]
    )
    _colours: dict[str, str] = field(default_factory=dict[str, str])
    _last: bytes = b""

    def write(self, chunk: LogChunk) -> None:
        """Write one chunk, or its complete lines."""
        if chunk.stream is LogStream.STDERR:
            self._last = (self._last + chunk.data)[-_LAST_BYTES:]
        if not self.prefixed:
            self._out(chunk.stream, chunk.data)
            return
        key = (chunk.attempt, chunk.stream)
        text = self._rest.pop(key, b"") + chunk.data
        lines = text.split(b"\n")
        rest = lines.pop()
        if len(rest) > _LINE_MAX:  # a program that never ends its line is shown all the same
            lines.append(rest)
            rest = b""
        if rest:
            self._rest[key] = rest
        prefix = self._prefix(chunk.attempt)
        self._out(chunk.stream, b"".join(prefix + line + b"\n" for line in lines))

    def said_last(self, words: str) -> bool:
        """Whether the end of `words` is among the last that was written to stderr."""
        line = words.strip().rpartition("\n")[2]
        return line in self._last.decode("utf-8", "replace")

    def close(self) -> None:
        """Write what is left of lines that were never ended."""
        for (attempt, stream), rest in self._rest.items():
            self._out(stream, self._prefix(attempt) + rest + b"\n")
        self._rest.clear()

    def _out(self, stream: LogStream, data: bytes) -> None:
        if not data:
            return
        target = self.stdout if stream is LogStream.STDOUT else self.stderr
        target.write(data)
        target.flush()

    def _prefix(self, attempt: str) -> bytes:
        match attempt.split("/"):
            case [_, _, _, job, _, number]:
                name = job if number == "1" else f"{job}#{number}"
            case _:
                job = name = attempt
        text = f"{name} | "
        if self.coloured:
            colour = self._colours.setdefault(job, _COLOURS[len(self._colours) % len(_COLOURS)])
            text = click.style(text, fg=colour)
        return text.encode()


def standard_printer(*, prefixed: bool) -> LogPrinter:
    """Make a printer to our own stdout and stderr."""
    stdout, stderr = sys.stdout.buffer, sys.stderr.buffer
    return LogPrinter(stdout, stderr, prefixed, coloured=sys.stdout.isatty())
