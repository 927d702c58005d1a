"""Entry of a process: its event loop, its signals and its exit code."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import Any, cast

from services.runtime.log import fields
from shoal.redaction import redacted
from shoal.unloadable_package import explain_unloadable

LOG = logging.getLogger(__name__)

Main = Callable[[], Coroutine[Any, Any, int | None]]


class ExitCode(IntEnum):
    """How a process of ours ends; 130 is what shells expect after Ctrl-C."""

    OK = 0
    FAILED = 1
    REFUSED = 2
    SUPERSEDED = 3
    OTHER_VERSION = 4
    INTERRUPTED = 130


class EndedError(Exception):
    """The process has to end; the message is printed as it stands, without a traceback.

    `code` is the exit code of the process.
    """

    code = ExitCode.FAILED


class StartRefusedError(EndedError):
    """The process cannot begin as it was asked to; the message says what to change."""

    code = ExitCode.REFUSED


class OtherVersionError(StartRefusedError):
    """What is there needs another version of the program: to start this one again does not help."""

    code = ExitCode.OTHER_VERSION


class SupersededError(EndedError):
    """Another process has taken the place of this one."""

    code = ExitCode.SUPERSEDED


def run(main: Main, *, uvloop: bool = False) -> int:
    """Run `main` on a fresh event loop and return the exit code of the process.

    SIGTERM, SIGHUP and SIGINT cancel `main`, which then cleans up: that is the only way in which
    things stop. A second signal of the same kind ends the process at once, except SIGHUP: a terminal
    that is closed sends it more than once. SIGTERM and SIGHUP are orders to stop, so obeying them is
    `OK`; SIGINT is a person's Ctrl-C, so it is `INTERRUPTED`. Where SIGHUP was ignored before, as
    below `nohup`, it stays ignored.

    Args:
        main: makes the root coroutine; its result is the exit code, and None is 0.
        uvloop: use uvloop, which carries data faster and costs a tenth of CPU less where much is said. No process
            is spawned by the loop then: it forks, with the handlers of every library that registered one.
    """
    # gRPC's core writes lines of its own to stderr when a connection ends; our log says it in words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # What was imported stays for good: a full collection need not walk it, which costs a loop with
    # ten thousand members some 20 ms each time (bench/membership, M11). It is not collected before, which
    # costs a start 100 ms and frees 800 objects.
    gc.freeze()
    gc.enable()
    try:
        with asyncio.Runner(loop_factory=_uvloop if uvloop else None) as runner:
            return runner.run(_until_signalled(main))
    except Exception as error:
        ended = _ended(error)
        if ended is None:
            LOG.exception("the process failed")
            return ExitCode.FAILED
        sys.stderr.write(f"{redacted(str(ended))}\n")
        return ended.code


def _ended(error: Exception) -> EndedError | None:
    """Find the reason to end, which a TaskGroup wraps."""
    if isinstance(error, EndedError):
        return error
    if isinstance(error, ImportError) and (said := explain_unloadable(error)):
        return EndedError(said)
    inner = cast("tuple[Exception, ...]", getattr(error, "exceptions", ()))
    return _ended(inner[0]) if len(inner) == 1 else None


async def _until_signalled(main: Main) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(main())
    received: list[signal.Signals] = []
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)

    def stop(number: signal.Signals) -> None:
        received.append(number)
        LOG.info("stopping", extra=fields(signal=number.name))
        # Cleaning up may hang; a second signal has its default action, which is the end.
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN if number is signal.SIGHUP else signal.SIG_DFL)
        task.cancel()

    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        code = await task
    except asyncio.CancelledError:
        if not received:
            raise
        return ExitCode.INTERRUPTED if received[0] is signal.SIGINT else ExitCode.OK
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
    return ExitCode.OK if code is None else code


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop  # noqa: PLC0415 - a process that does not ask for it does not load it

    return uvloop.new_event_loop()
