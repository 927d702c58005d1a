"""One program that is about to be started, with everything open that it gets."""

import contextlib
import fcntl
import os
import resource
import select
import signal
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from edge_agent.keeper import strays
from edge_agent.sandbox import entry
from edge_agent.sandbox.plan import NO_PLAN, SandboxPlan

DEFAULT_SIGNALS: Final = (
    *(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGXFSZ, signal.SIGCHLD),
)
"""The interpreter ignores some of these, and a child would inherit that: `yes | head` would never end."""
_ALL_SIGNALS: Final = frozenset(signal.valid_signals())
_START_SECONDS: Final = 5.0
_FIRST_HIGH_DESCRIPTOR: Final = 512  # above every number that a job's port may be given
_PROBLEM_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Execution:
    """What is executed.

    `descriptors` are (ours, the program's number), in the order in which they are put there, after standard input.
    `mark` is what its processes are known by. `stdin` is opened with the rights that `plan` leaves it, and is empty for
    none (`/dev/null`). `status` is
    the descriptor that bubblewrap writes to, where the plan has it.
    """

    attempt: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    cwd: str
    stdin: str
    descriptors: Sequence[tuple[int, int]]
    mark: int
    plan: SandboxPlan = NO_PLAN
    status: int = -1


class SpawnError(Exception):
    """The program could not be started; nothing is left of it."""


def spawn(execution: Execution, *, guarded: bool = False) -> int:
    """Start it as the leader of a session and process group of its own; `guarded` lets it end with this process.

    Forked and not spawned: what a plan says is done by the process itself. This one is small and has one thread.
    `edge_agent.keeper.direct_start` is cheaper for what needs no step of its own.

    Raises:
        SpawnError: A step of the plan failed, the folder or the program cannot be had, or no process.
    """
    try:
        pid, problem = _spawn(execution, guarded=guarded)
    except OSError as error:
        pid, problem = 0, said(error)
    if problem:
        if pid:
            os.waitpid(pid, 0)
        raise SpawnError(f"cannot start {execution.argv[0]!r} in {execution.cwd!r}: {problem}")
    return pid


def _spawn(execution: Execution, *, guarded: bool) -> tuple[int, str]:
    """The process, and why it executes nothing; empty if it does."""
    starter = os.getpid()
    parent = starter if guarded or execution.plan.no_new_privileges else 0
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with open(reading, "rb", buffering=0) as answer:  # noqa: PTH123 - a descriptor
        try:
            high = fcntl.fcntl(writing, fcntl.F_DUPFD_CLOEXEC, _FIRST_HIGH_DESCRIPTOR)
        finally:
            os.close(writing)
        # A signal that comes before the child has handlers of its own would be told to this process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
        try:
            with strays.worn(execution.mark):
                pid = os.fork()
                if pid == 0:
                    _be(execution, parent, high)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(high)
        problem = _answer(answer.fileno())
    if problem is None:
        os.kill(pid, signal.SIGKILL)
        problem = f"it did not begin within {_START_SECONDS:g} s"
    return pid, problem


def _answer(descriptor: int) -> str | None:
    """Why the child executes nothing; empty if it does, None if that is not known in time."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    give_up_at = time.monotonic() + _START_SECONDS
    said = b""
    while (left := give_up_at - time.monotonic()) > 0:
        if poller.poll(left * 1000):
            more = os.read(descriptor, _PROBLEM_BYTES)
            if not more:
                return said.decode(errors="replace")
            said += more
    return None


# ---- in the child


def _be(execution: Execution, parent: int, problem: int) -> None:
    """Be the program; does not return."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in DEFAULT_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        with contextlib.suppress(OSError, ValueError):
            # 0 would not keep a program from getting its memory where core_pattern is a pipe; see core(5).
            resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
        entry.execute(
            execution.plan,
            execution.argv,
            execution.env,
            parent=parent,
            prepare=lambda: _prepare(execution),
            status=execution.status,
        )
    except BaseException as error:  # noqa: BLE001 - it has to end here, whatever it is
        os.write(problem, said(error).encode(errors="replace")[:_PROBLEM_BYTES])
    finally:
        os._exit(127)


def _prepare(execution: Execution) -> None:
    os.chdir(execution.cwd)
    os.dup2(open_plain(execution.stdin or os.devnull, os.O_RDONLY), 0)
    for ours, theirs in execution.descriptors:
        os.dup2(ours, theirs)


def open_plain(path: str, flags: int) -> int:
    """Open what becomes a standard stream, without waiting: a FIFO in its place would stop the keeper.

    Raises:
        OSError: it cannot be opened, or is neither a file nor a character device.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISCHR(mode):
        os.close(descriptor)
        raise OSError(0, "it is not a file, something else was put in its place", path)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & os.O_APPEND)
    return descriptor


def said(error: BaseException) -> str:
    """What went wrong, with the file that it went wrong with."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or repr(error)
    return error.strerror if error.filename is None else f"{error.strerror} ({error.filename})"
