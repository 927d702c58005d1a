"""Starting one program: descriptors, FIFOs, session, limits.

`posix_spawn` and not fork: it does not copy the page tables of its parent, whatever the parent's size.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
class Program:
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
    """A running program: its process id, the agent's ends of its ports, its FIFOs' relays."""

    pid: int
    ports: Mapping[Port, int]
    relays: Sequence[Relay] = ()


class LaunchError(Exception):
    """The program could not be started."""


def launch(program: Program) -> Launched:
    """Start `program` as the leader of a session and process group of its own.

    Raises:
        LaunchError: The folder, the program or a file cannot be opened, a FIFO cannot be made, or no
            process can be had.
    """
    with contextlib.ExitStack() as undo:
        ours: dict[Port, int] = {}
        theirs: list[tuple[int, int]] = []
        relays: list[Relay] = []
        for port in program.ports:
            mine, job_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            undo.callback(mine.close)
            ours[port] = mine.fileno()
            with job_end:
                if port.path:
                    relays.append(_relay(port, job_end, program.env))
                    # Without its keeper's end of the control a relay ends by itself.
                    undo.callback(os.close, relays[-1].control)
                    continue
                high = fcntl.fcntl(job_end.fileno(), fcntl.F_DUPFD_CLOEXEC, _FIRST_HIGH_DESCRIPTOR)
            undo.callback(os.close, high)
            theirs.append((high, port.fd))
        actions = _file_actions(program, theirs)
        argv = _with_places(program.argv, program.ports)
        try:
            # One thread, so the working folder is nobody else's while the child is made.
            os.chdir(program.cwd)
            pid = os.posix_spawn(
                argv[0],
                argv,
                dict(program.env),
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                # The interpreter ignores SIGPIPE, and a child would inherit that: `yes | head` would never end.
                setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGXFSZ),
            )
        except OSError as error:
            where = f" in {program.cwd!r}" if error.filename is None else ""
            raise LaunchError(
                f"cannot start {argv[0]!r}{where}: {error.strerror}"
                f"{'' if error.filename is None else f' ({error.filename})'}"
            ) from error
        finally:
            os.chdir("/")
        _limit(pid, program)
        kept = {port: os.dup(fd) for port, fd in ours.items()}
        relays = [replace(relay, control=os.dup(relay.control)) for relay in relays]
    return Launched(pid, kept, relays)


def _relay(port: Port, job_end: socket.socket, env: Mapping[str, str]) -> Relay:
    try:
        return start_relay(
            *(port.name, port.direction, port.path, job_end.fileno(), env),
            record_bytes=port.record_bytes,
        )
    except RelayError as error:
        raise LaunchError(f"the FIFO of the port {port.name!r} cannot be had: {error}") from error


def _file_actions(
    program: Program, ports: Sequence[tuple[int, int]]
) -> list[tuple[int, int, int] | tuple[int, int, str, int, int]]:
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, program.stdin or os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, program.stdout, append, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, program.stderr, append, 0o600),
    ]
    # After the files, so that a port may be standard input or output.
    actions.extend((os.POSIX_SPAWN_DUP2, high, number) for high, number in ports)
    return actions


def _with_places(argv: Sequence[str], ports: Sequence[Port]) -> list[str]:
    done = list(argv)
    for port in ports:
        name = ("inputs" if port.direction == "in" else "outputs") + f".{port.name}"
        mark, place = ("path", port.path) if port.path else ("fd", str(port.fd))
        done = [word.replace(f"{{{name}.{mark}}}", place) for word in done]
    return done


def _limit(pid: int, program: Program) -> None:
    # Set from outside, a moment after the start: posix_spawn knows no limits of its own.
    limits = [(resource.RLIMIT_CORE, 0)]
    if program.open_files:
        limits.append((resource.RLIMIT_NOFILE, program.open_files))
    if program.memory_bytes:
        limits.append((resource.RLIMIT_DATA, program.memory_bytes))
    for which, amount in limits:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, which, (amount, amount))
