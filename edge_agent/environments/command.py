"""One program that builds something, with its last words kept."""

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from shoal.redaction import redacted

_TAIL_BYTES: Final = 16_384
_OUTPUT_BYTES_MAX: Final = 1 << 20
_END_SECONDS: Final = 20.0
"""How long a door may take to end what is behind it."""

TransportT = TypeVar("TransportT", bound=asyncio.BaseTransport)


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
    loop = asyncio.get_running_loop()
    process = _started(argv, environ, folder, taking=bool(order))
    ended: asyncio.Future[int] = loop.create_future()
    threading.Thread(target=_wait, args=(process, ended), name="command", daemon=True).start()
    input_: asyncio.WriteTransport | None = None
    unread = [pipe for pipe in (process.stdout, process.stderr) if pipe is not None]
    try:
        async with asyncio.timeout(timeout_seconds), asyncio.TaskGroup() as group:
            output = group.create_task(_read(unread, process.stdout, _OUTPUT_BYTES_MAX))
            said = group.create_task(_read(unread, process.stderr, _TAIL_BYTES))
            if process.stdin is not None:
                input_ = await _opened(loop.connect_write_pipe(asyncio.BaseProtocol, process.stdin))
                if not input_.is_closing():  # it has ended, and its status says why
                    input_.write(order)  # it stays open
            status = await asyncio.shield(ended)
    except TimeoutError:
        raise CommandFailedError(f"{name} took longer than {timeout_seconds:g} s", "") from None
    finally:
        for pipe in unread:  # it is given up before they are looked at; the others are the loop's
            pipe.close()
        await _end(process, ended, input_)
    if status != 0:
        words = redacted(said.result().strip() or output.result().strip())[-_TAIL_BYTES:]
        raise CommandFailedError(f"{name} ended with status {status}: {words}", words)
    return output.result()


def _started(
    argv: Sequence[str], environ: Mapping[str, str], folder: Path | None, *, taking: bool
) -> "subprocess.Popen[bytes]":
    """Start a program, which is given an input if it is `taking` one.

    Not by the loop: uvloop forks, with the handlers of every library that registered one. This shares memory until
    the program begins (vfork(2)).
    """
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if taking else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environ),
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailedError(
            f"{argv[0]} cannot be started: {error.strerror}", str(error)
        ) from error


async def _opened(connecting: Coroutine[Any, Any, tuple[TransportT, Any]]) -> TransportT:
    """Wait until a pipe is the loop's.

    Given up half-way, uvloop closes its descriptor, and its file would close the same number later, which may be that
    of another file by then.
    """
    opening = asyncio.ensure_future(connecting)
    try:
        transport, _ = await asyncio.shield(opening)
    except asyncio.CancelledError:
        transport, _ = await opening
        transport.close()
        raise
    return transport


def _wait(process: "subprocess.Popen[bytes]", ended: asyncio.Future[int]) -> None:
    """Wait for the end of a program, in a thread of its own: not every kernel has a descriptor for that."""
    status = process.wait()
    with contextlib.suppress(RuntimeError):  # the loop is closed, and nothing waits any more
        ended.get_loop().call_soon_threadsafe(ended.set_result, status)


async def _end(
    process: "subprocess.Popen[bytes]",
    ended: asyncio.Future[int],
    input_: asyncio.WriteTransport | None,
) -> None:
    """End it, and see that it has ended."""
    if input_ is not None:
        if not input_.is_closing():  # by itself, since nothing reads it any more
            input_.abort()
        await asyncio.wait({ended}, timeout=_END_SECONDS)
    if not ended.done():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.wait({ended})


async def _read(unread: list[IO[bytes]], pipe: IO[bytes] | None, kept_bytes: int) -> str:
    """Take a pipe from the unread ones, read to its end and return the last `kept_bytes`, from a line's beginning."""
    loop = asyncio.get_running_loop()
    if pipe is not None:
        unread.remove(pipe)
    stream = asyncio.StreamReader()
    transport = await _opened(
        loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
    )
    tail = b""
    cut = False
    try:
        while chunk := await stream.read(65_536):
            tail += chunk
            cut = cut or len(tail) > kept_bytes
            tail = tail[-kept_bytes:]
    finally:
        transport.close()
    # Half an address does not look like one, and what is secret in it would be shown.
    return (tail.split(b"\n", 1)[-1] if cut else tail).decode("utf-8", "replace")
