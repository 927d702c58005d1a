"""Starting one program: descriptors, FIFOs, session, limits."""

import contextlib
import fcntl
import os
import resource
import socket
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_agent.keeper.boottime import boottime
from edge_agent.keeper.execution import Execution, spawn
from edge_agent.keeper.guard import Guard, GuardError, start_guard
from edge_agent.keeper.relay import Relay, RelayError, start_relay

_FIRST_HIGH_DESCRIPTOR = 512  # above every number that a job's port may be given


@dataclass(frozen=True, slots=True)
class Port:
    """One port of a job: its name, its direction as the job sees it, and where the job finds it.

    That is a descriptor of the program, or, where `path` is not empty, a FIFO of that absolute path,
    whose records have `record_bytes` each; 0 where they have no size of their own.
    """

    name: str
    direction: str
    fd: int = -1
    path: str = ""
    record_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Launch:
    """What is to be started. Paths are absolute; `stdin` of "" means none.

    `memory_bytes` and `open_files` are hard limits of each process; 0 means no limit of ours.
    """

    attempt: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    stdin: str
    stdout: str
    stderr: str
    ports: tuple[Port, ...] = ()
    memory_bytes: int = 0
    open_files: int = 0


@dataclass(frozen=True, slots=True)
class Launched:
    """A running program: its process id, the agent's ends of its ports, its FIFOs' relays.

    `guard` is there if it was started with a lease. `execution` is what was executed; its limits are still
    to be set where there is no guard.
    """

    pid: int
    ports: Mapping[Port, int]
    relays: Sequence[Relay]
    guard: Guard | None
    execution: Execution


class LaunchError(Exception):
    """The program could not be started."""


def launch(program: Launch, mark: int, until: float = 0.0) -> Launched:
    """Start `program` as the leader of a session and process group of its own.

    Args:
        program: what is to be started.
        mark: what its processes are known by.
        until: if not 0, a moment on the clock of leases at which it is killed unless that is renewed.

    Raises:
        LaunchError: The folder, the program or a file cannot be opened, a FIFO cannot be made, no
            process can be had, or the lease has run out. Nothing is left of it then.
    """
    if until and boottime() >= until:
        raise LaunchError("its lease ran out before it was started")
    with contextlib.ExitStack() as undo, contextlib.ExitStack() as after:
        try:
            return _launch(program, mark, until, undo, after)
        except GuardError as error:
            raise LaunchError(str(error)) from error
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            named = error.filename if isinstance(error, OSError) else None
            where = f" in {program.cwd!r}" if named is None else ""
            raise LaunchError(
                f"cannot start {program.argv[0]!r}{where}: {why}"
                f"{'' if named is None else f' ({named})'}"
            ) from error


def _launch(
    program: Launch,
    mark: int,
    until: float,
    undo: contextlib.ExitStack,
    after: contextlib.ExitStack,
) -> Launched:
    """Start it; `after` closes what only the program needs, `undo` what is kept unless this fails."""
    ours: dict[Port, int] = {}
    relays: list[Relay] = []
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = (
        (program.stdin or os.devnull, os.O_RDONLY),
        (program.stdout, flags),
        (program.stderr, flags),
    )
    descriptors: list[tuple[int, int]] = []
    for number, (path, how) in enumerate(files):
        descriptor = _open(path, how)
        after.callback(os.close, descriptor)
        descriptors.append((descriptor, number))
    # After the files, so that a port may be standard input or output.
    for port in program.ports:
        mine, job_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours[port] = mine.detach()
        undo.callback(os.close, ours[port])
        with job_end:
            if port.path:
                relays.append(_relay(port, job_end, program.env))
                # Without its keeper's end of the control a relay ends by itself.
                undo.callback(os.close, relays[-1].control)
                continue
            high = fcntl.fcntl(job_end.fileno(), fcntl.F_DUPFD_CLOEXEC, _FIRST_HIGH_DESCRIPTOR)
        after.callback(os.close, high)
        descriptors.append((high, port.fd))
    execution = Execution(
        program.attempt,
        _with_places(program.argv, program.ports),
        program.env,
        program.cwd,
        descriptors,
        _limits(program),
        mark,
    )
    guard = start_guard(execution, until) if until else None
    pid = spawn(execution) if guard is None else guard.program
    undo.pop_all()  # nothing can fail from here on: what was started is known
    return Launched(pid, ours, relays, guard, execution)


def _open(path: str, flags: int) -> int:
    """Open what becomes a standard stream, without waiting: a FIFO in its place would stop the keeper."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISCHR(mode):
        os.close(descriptor)
        raise OSError(0, "it is not a file, something else was put in its place", path)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & os.O_APPEND)
    return descriptor


def _relay(port: Port, job_end: socket.socket, env: Mapping[str, str]) -> Relay:
    try:
        return start_relay(
            *(port.name, port.direction, port.path, job_end.fileno(), env),
            record_bytes=port.record_bytes,
        )
    except RelayError as error:
        raise LaunchError(f"the FIFO of the port {port.name!r} cannot be had: {error}") from error


def _with_places(argv: Sequence[str], ports: Sequence[Port]) -> list[str]:
    done = list(argv)
    for port in ports:
        name = ("inputs" if port.direction == "in" else "outputs") + f".{port.name}"
        mark, place = ("path", port.path) if port.path else ("fd", str(port.fd))
        done = [word.replace(f"{{{name}.{mark}}}", place) for word in done]
    return done


def _limits(program: Launch) -> list[tuple[int, int]]:
    limits = [(resource.RLIMIT_CORE, 0)]
    if program.open_files:
        limits.append((resource.RLIMIT_NOFILE, program.open_files))
    if program.memory_bytes:
        limits.append((resource.RLIMIT_DATA, program.memory_bytes))
    return limits
