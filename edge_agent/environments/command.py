"""One program that builds something, with its last words kept."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from shoal.redaction import redacted

_TAIL_BYTES: Final = 16_384
_OUTPUT_BYTES_MAX: Final = 1 << 20
_END_SECONDS: Final = 20.0
"""How long a door may take to end what is behind it."""


class CommandFailedError(Exception):
    """The program could not be started, failed, or took too long; `said` are its own words."""

    def __init__(self, message: str, said: str) -> None:
        super().__init__(message)
        self.said = said


async def run_command(
    argv: Sequence[str],
    environ: Mapping[str, str],
    timeout_seconds: float,
    folder: Path | None = None,
    *,
    order: bytes = b"",
    name: str = "",
) -> str:
    """Run a program to its end, never through a shell; return what it printed to standard output.

    Args:
        argv: the program and its words.
        environ: all of its variables.
        timeout_seconds: how long it may take.
        folder: where it runs.
        order: what a door reads (`edge_agent.sandbox.door`); it ends everything behind it once its input is closed.
        name: what it is called in errors; its file's name otherwise.

    Raises:
        CommandFailedError: with the tail of what it printed to standard error.
    """
    name = name or Path(argv[0]).name
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if order else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environ),
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailedError(
            f"{argv[0]} cannot be started: {error.strerror}", str(error)
        ) from error
    try:
        async with asyncio.timeout(timeout_seconds), asyncio.TaskGroup() as group:
            output = group.create_task(_read(process.stdout, _OUTPUT_BYTES_MAX))
            said = group.create_task(_read(process.stderr, _TAIL_BYTES))
            group.create_task(_tell(process.stdin, order))
            group.create_task(process.wait())
    except TimeoutError:
        raise CommandFailedError(f"{name} took longer than {timeout_seconds:g} s", "") from None
    finally:
        await _end(process)
    if process.returncode != 0:
        words = redacted(said.result().strip() or output.result().strip())[-_TAIL_BYTES:]
        raise CommandFailedError(f"{name} ended with status {process.returncode}: {words}", words)
    return output.result()


async def _tell(stream: asyncio.StreamWriter | None, order: bytes) -> None:
    """Give an order; the input stays open."""
    if stream is not None:
        with contextlib.suppress(ConnectionError):  # it has ended, and its status says why
            stream.write(order)
            await stream.drain()


async def _end(process: asyncio.subprocess.Process) -> None:
    """End it, and see that it has ended."""
    if process.stdin is not None:
        process.stdin.close()
        if process.returncode is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _END_SECONDS)
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _read(stream: asyncio.StreamReader | None, kept_bytes: int) -> str:
    """Read to the end and return the last `kept_bytes`, from a line's beginning."""
    tail = b""
    cut = False
    while stream is not None and (chunk := await stream.read(65_536)):
        tail += chunk
        cut = cut or len(tail) > kept_bytes
        tail = tail[-kept_bytes:]
    # Half an address does not look like one, and what is secret in it would be shown.
    return (tail.split(b"\n", 1)[-1] if cut else tail).decode("utf-8", "replace")
